"""Post-hoc pruning of an update: θ_0 + m ⊙ (θ_T − θ_0), m ~ Bernoulli(1 − p) (MIFO section 2), written as HF folders.

Without rescaling, as in the paper; DARE divides what is left by 1 − p. One draw a coordinate serves every rate: what a
rate prunes, the higher ones prune too.
"""

import json
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from mifo_verl.tools.inspect.sources import Weights, common_names

FILE_BYTES = 2 << 30


def prune(start: Tensor, end: Tensor, rate: float, name: str, seed: int, rescale: bool) -> Tensor:
    """One tensor of the pruned model, in ``end``'s dtype; the draw depends on seed, name and place alone."""
    draw = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
    keep = torch.rand(end.shape, generator=draw, dtype=torch.float32) >= rate
    change = (end.float() - start.float()) * keep
    pruned = start.float() + (change / (1 - rate) if rescale and rate < 1 else change)
    # if the change is kept as it is, the end's own bits: a sum of differences would round them
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
    file_bytes: int = FILE_BYTES,
) -> None:
    """A Hugging Face folder of the pruned model, with config and tokenizer of the folder ``model``."""

    def pruned(name: str) -> Tensor:
        return prune(start.tensor(name), end.tensor(name), rate, name, seed, rescale)

    write_model((end, start), pruned, model, out, dtype, f"rate {rate:g}", file_bytes)


def write_model(
    sources: Sequence[Weights],
    tensor: Callable[[str], Tensor],
    model: Path,
    out: Path,
    dtype: torch.dtype | None,
    label: str,
    file_bytes: int = FILE_BYTES,
) -> None:
    """A Hugging Face folder of what ``tensor(name)`` makes of the sources, with all else of the folder ``model``.

    Names, shapes and order are those of the first source, as is the dtype unless one is given. At most one file of
    ``file_bytes`` and one tensor are in memory. Raises ValueError if the sources are not models of the same tensors.
    """
    shapes = {}
    for name in common_names(*sources):
        own, *others = (source.tensor(name) for source in sources)
        if any(other.shape != own.shape for other in others):
            told = ", ".join(str(tuple(one.shape)) for one in (own, *others))
            raise ValueError(f"the models differ: {name} has the shapes {told}; they must be of one architecture")
        shapes[name] = torch.empty(own.shape, dtype=dtype or own.dtype, device="meta")
    out.mkdir(parents=True, exist_ok=True)
    for file in model.iterdir():
        if file.is_file() and file.suffix not in (".safetensors", ".bin", ".pt") and "index" not in file.name:
            shutil.copy(file, out / file.name)
    files = split_torch_state_dict_into_shards(
        shapes, filename_pattern="model{suffix}.safetensors", max_shard_size=file_bytes
    )
    with tqdm(total=len(shapes), desc=label, leave=False) as bar:
        for part, inside in files.filename_to_tensors.items():
            tensors = {}
            for name in inside:
                tensors[name] = tensor(name).to(shapes[name].dtype).contiguous()
                bar.update()
            save_file(tensors, out / part, metadata={"format": "pt"})
    if files.is_sharded:
        index = {"metadata": files.metadata, "weight_map": files.tensor_to_filename}
        (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
