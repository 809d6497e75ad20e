"""Post-hoc pruning of an update: θ_0 + m ⊙ (θ_T − θ_0), m ~ Bernoulli(1 − p) (MIFO section 2), written as HF folders.

Without rescaling, as in the paper; DARE divides what is left by 1 − p. One draw a coordinate serves every rate: what a
rate prunes, the higher ones prune too.
"""

import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from mifo_verl.tools.inspect.sources import Weights, common_names

_FILE_BYTES = 2 << 30


def prune(start: Tensor, end: Tensor, rate: float, name: str, seed: int, rescale: bool) -> Tensor:
    """One tensor of the pruned model, in ``end``'s dtype; the draw depends on seed, name and place alone."""
    draw = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
    keep = torch.rand(end.shape, generator=draw, dtype=torch.float32) >= rate
    change = (end.float() - start.float()) * keep
    pruned = start.float() + (change / (1 - rate) if rescale and rate < 1 else change)
    # where the change is kept as it is, the end's own bits: a sum of differences would round them
    exact = keep if not rescale or rate == 0 else torch.zeros_like(keep)
    return torch.where(exact, end, pruned.to(end.dtype))


def write_pruned(
    start: Weights,
    end: Weights,
    model: Path,
    out: Path,
    rate: float,
    seed: int,
    rescale: bool,
    dtype: torch.dtype | None,
) -> None:
    """A Hugging Face folder of the pruned model, with config and tokenizer of the folder ``model``.

    At most one file of 2 GiB and one tensor are in memory.
    """
    out.mkdir(parents=True, exist_ok=True)
    for file in model.iterdir():
        if file.is_file() and file.suffix not in (".safetensors", ".bin", ".pt") and "index" not in file.name:
            shutil.copy(file, out / file.name)
    names = common_names(end, start)
    files: list[tuple[Path, list[str]]] = []
    total = 0
    progress = tqdm(names, desc=f"rate {rate}", leave=False)
    for tensors in _files(
        progress, lambda name: prune(start.tensor(name), end.tensor(name), rate, name, seed, rescale)
    ):
        cast = {name: (tensor if dtype is None else tensor.to(dtype)).contiguous() for name, tensor in tensors.items()}
        path = out / f"part-{len(files)}.safetensors"
        save_file(cast, path, metadata={"format": "pt"})
        files.append((path, list(cast)))
        total += sum(tensor.nbytes for tensor in cast.values())
    _name(files, out, total)


def _files(names: "tqdm[str]", make: object) -> Iterator[dict[str, Tensor]]:
    """The tensors in groups of at most 2 GiB, or of one tensor."""
    assert callable(make)
    held: dict[str, Tensor] = {}
    for name in names:
        tensor = make(name)
        if held and sum(one.nbytes for one in held.values()) + tensor.nbytes > _FILE_BYTES:
            yield held
            held = {}
        held[name] = tensor
    if held:
        yield held


def _name(files: list[tuple[Path, list[str]]], out: Path, total: int) -> None:
    """The names that transformers looks for: one file, or an index of several."""
    if len(files) == 1:
        files[0][0].rename(out / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for number, (path, names) in enumerate(files, start=1):
        file = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        path.rename(out / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
