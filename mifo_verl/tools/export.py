"""``mifo export``: a model of ours, or a mean of two, as a Hugging Face folder."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mifo_verl.errors import require, require_choice
from mifo_verl.tools.command_line import read, run

if TYPE_CHECKING:
    from torch import Tensor

USAGE = """usage: mifo export <run or checkpoint> [out=<folder>] [dtype=bfloat16|float32] [push=<owner>/<name>]
       mifo export <model> merge=<model> share=<s> out=<folder> [dtype=bfloat16|float32]

  a Hugging Face folder: weights, config.json, tokenizer with its chat template, generation_config.json, and README.md,
  a model card with method, data, numbers, config and versions
  <run>             its newest checkpoint that is whole; a checkpoint is <run>/checkpoints/global_step_<n>
  out=<folder>      where it is written; without it, huggingface_<dtype> beside the checkpoint
  dtype=            bfloat16 rounds the weights, float32 keeps them as they were trained
  evaluation=<folder>   results of mifo evaluate on this model in this dtype, for the card
  push=<repo>       also to the hub, private unless private=false; log in with hf auth login or HF_TOKEN
  merge=<model>     (1 - s) times the weights of the first and s times those of the second, in float32; each is a run, a
                    checkpoint or a Hugging Face folder. share=[0,0.5,1] writes out/share_<s> for each"""


@dataclass(frozen=True)
class Export:
    """What is asked for."""

    model: str
    out: Path | None = None
    dtype: str = "bfloat16"
    evaluation: Path | None = None
    push: str | None = None
    private: bool = True
    merge: str | None = None
    share: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        require_choice("dtype", self.dtype, ("bfloat16", "float32"))
        merges = self.merge is not None
        require(merges == bool(self.share), "share", list(self.share), "given with merge=<model>", "write both or none")
        require(all(0 <= s <= 1 for s in self.share), "share", list(self.share), "in [0, 1]", "0.5 is the mean")
        require(self.out is not None or not merges, "out", self.out, "given with merge=<model>", "write out=<folder>")
        alone = self.push is None and self.evaluation is None
        require(alone or not merges, "merge", self.merge, "given without push= and evaluation=", "leave these out")


def export(asked: Export) -> list[Path]:
    """The folders written. Raises ValueError if there is no checkpoint, if something else lies in ``out``, or if the
    evaluation is of another model.
    """
    from mifo_verl.tools.card import card
    from mifo_verl.tools.evaluate.models import find_model
    from mifo_verl.verl.merge import SOURCE

    model, out = Path(asked.model).expanduser(), asked.out
    is_ours = model.is_dir() and not (model / "config.json").exists()
    if asked.merge is None and not is_ours:
        raise ValueError(f"{asked.model} must be the folder of a run or of a checkpoint of ours; correct the path")
    if out is not None and out.exists() and any(out.iterdir()):
        raise ValueError(f"out={out} must be a new or an empty folder; choose another one")
    if out is not None and asked.merge is not None:
        first, second = (find_model(one, "float32").folder for one in (asked.model, asked.merge))
        return merged(first, second, asked, out)
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
    return [folder]


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


def merged(first: Path, second: Path, asked: Export, out: Path) -> list[Path]:
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
        options = [argument for argument in arguments if "=" in argument]
        for folder in export(read(Export, [f"model={places[0]}", *options])):
            print(folder)

    return run(act)
