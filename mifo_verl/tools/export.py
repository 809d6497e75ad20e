"""``mifo export``: a model of ours, or a mean of two, as a Hugging Face folder."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mifo_verl.errors import require, require_choice
from mifo_verl.tools.command_line import read, run

if TYPE_CHECKING:
    from torch import Tensor

USAGE = """usage: mifo export <run or checkpoint> [out=<folder>] [dtype=bfloat16|float32]
       mifo export <model> merge=<model> share=<s> out=<folder> [dtype=bfloat16|float32]

  a Hugging Face folder: weights, config.json, tokenizer with its chat template, generation_config.json
  <run>          its newest checkpoint that is whole; a checkpoint is <run>/checkpoints/global_step_<n>
  out=<folder>   where it is written; without it, huggingface_<dtype> beside the checkpoint
  dtype=         bfloat16 rounds the weights, float32 keeps them as they were trained
  merge=<model>  (1 - s) times the weights of the first and s times those of the second, in float32; each is a run, a
                 checkpoint or a Hugging Face folder. share=[0,0.5,1] writes out/share_<s> for each"""


@dataclass(frozen=True)
class Settings:
    """One export."""

    out: Path | None = None
    dtype: str = "bfloat16"
    merge: str | None = None
    share: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        require_choice("dtype", self.dtype, ("bfloat16", "float32"))
        merges = self.merge is not None
        require(merges == bool(self.share), "share", list(self.share), "given with merge=<model>", "write both or none")
        require(all(0 <= s <= 1 for s in self.share), "share", list(self.share), "in [0, 1]", "0.5 is the mean")
        require(self.out is not None or not merges, "out", self.out, "given with merge=<model>", "write out=<folder>")


def export(model: str, asked: Settings) -> list[Path]:
    """The folders written. Raises ValueError if there is no model, or if something else lies in ``out``."""
    from mifo_verl.tools.evaluate.models import find_model
    from mifo_verl.verl.merge import SOURCE

    out, is_ours = asked.out, not (Path(model).expanduser() / "config.json").exists()
    if asked.merge is None and not (Path(model).expanduser().is_dir() and is_ours):
        raise ValueError(f"{model} must be the folder of a run or of a checkpoint of ours; correct the path")
    if out is not None and out.exists() and any(out.iterdir()):
        raise ValueError(f"out={out} must be a new or an empty folder; choose another one")
    if out is not None and asked.merge is not None:
        first, second = (find_model(one, "float32").folder for one in (model, asked.merge))
        return merged(first, second, asked, out)
    folder = find_model(model, asked.dtype).folder
    if out is None:
        return [folder]
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns(SOURCE), dirs_exist_ok=True)
    return [out]


def merged(first: Path, second: Path, asked: Settings, out: Path) -> list[Path]:
    """The models between two, as folders: in ``out`` itself, or one a share in it. All but weights is the first's."""
    import torch

    from mifo_verl.tools.analyze.prune import write_model
    from mifo_verl.tools.inspect.sources import open_weights
    from mifo_verl.verl.merge import SOURCE, say_dtype

    one, other, folders = open_weights(str(first)), open_weights(str(second)), []
    for share in asked.share:
        folder = out if len(asked.share) == 1 else out / f"share_{share:g}"

        def mean(name: str, share: float = share) -> torch.Tensor:
            return between(one.tensor(name).float(), other.tensor(name).float(), share)

        write_model((one, other), mean, first, folder, getattr(torch, asked.dtype), f"share {share:g}")
        (folder / SOURCE).unlink(missing_ok=True)
        say_dtype(folder / "config.json", asked.dtype)
        folders.append(folder)
    return folders


def between(first: "Tensor", second: "Tensor", share: float) -> "Tensor":
    """(1 - share) * first + share * second, float32; at 0 and 1 the tensor itself, its zeros' signs too."""
    if share in (0, 1):
        return second if share else first
    return (1 - share) * first + share * second


def main(arguments: list[str]) -> int:
    """Export a model; returns the exit code."""
    places = [argument for argument in arguments if "=" not in argument]
    if {"-h", "--help"} & set(arguments) or len(places) != 1:
        print(USAGE)
        return 0 if {"-h", "--help"} & set(arguments) else 2

    def act() -> None:
        for folder in export(places[0], read(Settings, [argument for argument in arguments if "=" in argument])):
            print(folder)

    return run(act)
