"""Checks of mifo_verl.method at the size of a 1.5B model: exact top-k, entropy selection, strict freezing under FSDP2.

Plain Python and torch. Every check ends in an assertion; the table gives the median time of five beside the time in
which the device copies as many bytes, and the peak memory above what the check's inputs take.
"""

import argparse
import sys
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from check_entropy import check_entropy  # noqa: E402  # they need the path
from check_freezing import check_freezing  # noqa: E402
from check_top_share import check_top_share  # noqa: E402
from measure import table  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size; 1 needs about 40 GB")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--world", type=int, help="ranks of the FSDP2 check; all visible GPUs, or 1 on a CPU")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("skipped: no CUDA device")
        return
    if options.device == "cpu":
        torch.set_num_threads(1)
    device = torch.device(options.device, 0) if options.device == "cuda" else torch.device("cpu")
    world = options.world or (torch.cuda.device_count() if options.device == "cuda" else 1)
    name = torch.cuda.get_device_name(device) if options.device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, scale {options.scale}", flush=True)
    rows = check_top_share(options.scale, device)
    rows += check_entropy(options.scale, device)
    if options.device == "cuda":
        torch.cuda.empty_cache()
    rows += check_freezing(options.scale, device, world)
    print(table(rows))
    print("all checks passed")


if __name__ == "__main__":
    main()
