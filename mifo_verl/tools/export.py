"""``mifo export <run or checkpoint> [out=<folder>] [dtype=bfloat16]``: a model of ours as a Hugging Face folder."""

import shutil
from pathlib import Path

from mifo_verl.tools.command_line import pairs, run

USAGE = """usage: mifo export <run or checkpoint> [out=<folder>] [dtype=bfloat16|float32]

  a Hugging Face folder: weights, config.json, tokenizer with its chat template, generation_config.json
  <run>          its newest checkpoint that is whole; a checkpoint is <run>/checkpoints/global_step_<n>
  out=<folder>   where it is written; without it, huggingface_<dtype> beside the checkpoint
  dtype=         bfloat16 rounds the weights, float32 keeps them as they were trained"""


def export(model: str, out: Path | None, dtype: str) -> Path:
    """The folder written. Raises ValueError if there is no checkpoint, or if something else lies in ``out``."""
    from mifo_verl.tools.evaluate.models import find_model
    from mifo_verl.verl.merge import SOURCE

    if dtype not in ("bfloat16", "float32"):
        raise ValueError(f"dtype={dtype} must be bfloat16 or float32; choose one of them")
    if not Path(model).expanduser().is_dir() or (Path(model).expanduser() / "config.json").exists():
        raise ValueError(f"{model} must be the folder of a run or of a checkpoint of ours; correct the path")
    if out is not None and out.exists() and any(out.iterdir()):
        raise ValueError(f"out={out} must be a new or an empty folder; choose another one")
    folder = find_model(model, dtype).folder
    if out is None:
        return folder
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns(SOURCE), dirs_exist_ok=True)
    return out


def main(arguments: list[str]) -> int:
    """Export a model; returns the exit code."""
    places = [argument for argument in arguments if "=" not in argument]
    if {"-h", "--help"} & set(arguments) or len(places) != 1:
        print(USAGE)
        return 0 if {"-h", "--help"} & set(arguments) else 2

    def act() -> None:
        given = pairs([argument for argument in arguments if "=" in argument], ("out", "dtype"))
        out = Path(given["out"]).expanduser() if "out" in given else None
        print(export(places[0], out, given.get("dtype", "bfloat16")))

    return run(act)
