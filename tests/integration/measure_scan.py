"""Time the search for bad rows in a made-up file of the paper's size: 46,000 rows, half a gigabyte of demonstrations.

python -m tests.integration.measure_scan
"""

import os
import random
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from mifo_verl.data.bad_rows import scan_rows

ROWS = 46_000
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]


def make(path: Path) -> int:
    """Write the file; returns the characters of all demonstrations."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(5000)]
    paragraphs = [" ".join(draw.choices(words, k=200)) + "\n$x^{2}=\\frac{1}{2}$ " for _ in range(3000)]
    rows, chars = [], 0
    for number in tqdm(range(ROWS), desc="rows"):
        text = "".join(draw.choices(paragraphs, k=draw.randint(1, 16))) + f"\\boxed{{{number}}}"
        prompt = [{"role": "user", "content": f"Question {number}: {draw.choice(paragraphs)[:400]}"}]
        target = [{"role": "assistant", "content": text}]
        rows.append({"data_source": "s", "prompt": prompt, "target": target, "reward_model": {"ground_truth": "1"}})
        chars += len(text)
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")
    return chars


def main() -> None:
    """Make the file, scan it, print the time."""
    with tempfile.TemporaryDirectory() as folder:
        chars = make(Path(folder) / "a.parquet")
        before, started = os.times(), time.monotonic()
        scan = scan_rows(Path(folder) / "a.parquet", SPECIAL, num_sampled=200)
        wall, after = time.monotonic() - started, os.times()
    worked = after.user + after.system - before.user - before.system
    print(f"{scan.num_rows} rows, {chars / 1e6:.0f} MB of demonstrations, {len(scan.bad)} bad rows")
    print(f"{wall:.1f} s, {worked:.1f} s of CPU time")


if __name__ == "__main__":
    main()
