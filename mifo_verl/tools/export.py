"""``mifo export <run or checkpoint> [out=<folder>] [push=<repo>]``: a model of ours as a Hugging Face folder."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mifo_verl.tools.command_line import pairs, run

USAGE = """usage: mifo export <run or checkpoint> [out=<folder>] [dtype=bfloat16|float32] [push=<owner>/<name>]

  a Hugging Face folder: weights, config.json, tokenizer with its chat template, generation_config.json, and README.md,
  a model card with method, data, numbers, config and versions
  <run>             its newest checkpoint that is whole; a checkpoint is <run>/checkpoints/global_step_<n>
  out=<folder>      where it is written; without it, huggingface_<dtype> beside the checkpoint
  dtype=            bfloat16 rounds the weights, float32 keeps them as they were trained
  evaluation=<folder>   results of mifo evaluate on this model in this dtype, for the card
  push=<repo>       also to the hub, private unless private=false; log in with hf auth login or HF_TOKEN"""


@dataclass(frozen=True)
class Export:
    """What is asked for."""

    model: str
    out: Path | None
    dtype: str = "bfloat16"
    evaluation: Path | None = None
    push: str | None = None
    private: bool = True


def export(asked: Export) -> Path:
    """The folder written. Raises ValueError if there is no checkpoint, if something else lies in ``out``, or if the
    evaluation is of another model.
    """
    from mifo_verl.tools.card import card
    from mifo_verl.tools.evaluate.models import find_model
    from mifo_verl.verl.merge import SOURCE

    model, out = Path(asked.model).expanduser(), asked.out
    if asked.dtype not in ("bfloat16", "float32"):
        raise ValueError(f"dtype={asked.dtype} must be bfloat16 or float32; choose one of them")
    if not model.is_dir() or (model / "config.json").exists():
        raise ValueError(f"{asked.model} must be the folder of a run or of a checkpoint of ours; correct the path")
    if out is not None and out.exists() and any(out.iterdir()):
        raise ValueError(f"out={out} must be a new or an empty folder; choose another one")
    found = find_model(asked.model, asked.dtype)
    written = card(found.folder.parent, asked.dtype, _evaluations(asked.evaluation, found.digest))
    folder = found.folder
    if out is not None:
        shutil.copytree(folder, out, ignore=shutil.ignore_patterns(SOURCE), dirs_exist_ok=True)
        folder = out
    (folder / "README.md").write_text(written)
    for path in (folder, *folder.rglob("*")):  # what a library has written for its owner alone
        path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o644))
    if asked.push is not None:
        print(_push(folder, asked.push, asked.private, SOURCE))
    return folder


def _evaluations(folder: Path | None, digest: str) -> list[dict[str, Any]]:
    """The tables of this very model. Raises ValueError if there is none."""
    if folder is None:
        return []
    file = folder / "results.json" if folder.is_dir() else folder
    try:
        tables = json.loads(file.read_text())["models"]
    except (OSError, ValueError, KeyError):
        raise ValueError(f"evaluation={folder} must hold a results.json of mifo evaluate; correct the path") from None
    ours = [table for table in tables if table["digest"] == digest]
    if not ours:
        raise ValueError(
            f"evaluation={folder} must be of this model in this dtype, {digest[:16]}, and is of "
            f"{', '.join(table['digest'][:16] for table in tables)}; run mifo evaluate with the same dtype="
        )
    return ours


def _push(folder: Path, repo: str, private: bool, source: str) -> str:
    """The address of the commit."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo, folder_path=folder, ignore_patterns=[source], commit_message="mifo export"
        )
    except (HfHubHTTPError, HFValidationError) as error:
        text = " ".join(str(error).split())[:300]
        cure = f"log in with hf auth login, as a user who may write to it; the folder {folder} is whole"
        raise ValueError(f"push={repo} must be a repository that you may write to ({text}); {cure}") from None
    return str(done.commit_url)


def main(arguments: list[str]) -> int:
    """Export a model; returns the exit code."""
    places = [argument for argument in arguments if "=" not in argument]
    if {"-h", "--help"} & set(arguments) or len(places) != 1:
        print(USAGE)
        return 0 if {"-h", "--help"} & set(arguments) else 2

    def act() -> None:
        from mifo_verl.tools.command_line import read

        options = [argument for argument in arguments if "=" in argument]
        pairs(options, ("out", "dtype", "evaluation", "push", "private"))
        print(export(read(Export, [f"model={places[0]}", *options])))

    return run(act)
