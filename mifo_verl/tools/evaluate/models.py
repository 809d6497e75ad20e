"""The model to evaluate: a Hugging Face folder, a run of ours or a checkpoint of one, or a name on the hub."""

import hashlib
import json
import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from mifo_verl.run.checkpoints import MANIFEST, STOPPED, CheckpointStore, verify
from mifo_verl.verl.merge import merged_folder

_CONTENT = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")


@dataclass(frozen=True)
class Model:
    """A model on disk. ``name`` is for tables, ``digest`` (64 hex digits) is what the model is."""

    name: str
    folder: Path
    digest: str


def find_model(model: str, dtype: str) -> Model:
    """The model of a path or hub name; a checkpoint is converted first, once, to a folder beside it.

    ``runs/<name>`` stands for its newest checkpoint. Raises ValueError if nothing like a model is there.
    """
    path = Path(model).expanduser()
    if (path / "config.json").is_file():
        return Model(path.resolve().name, path, digest_of(path))
    checkpoint = checkpoint_of(path)
    if checkpoint is not None:
        folder = merged_folder(checkpoint, dtype)
        return Model(checkpoint_name(checkpoint.resolve()), folder, digest_of(folder))
    if path.exists() or not re.fullmatch(r"[\w-]+/[\w.-]+", model) or os.environ.get("HF_HUB_OFFLINE") == "1":
        raise ValueError(
            f"model={model} must be a Hugging Face folder with a config.json, a run (runs/<name>) with a checkpoint, "
            "a checkpoint (runs/<name>/checkpoints/global_step_<n>), or a name on the hub; check the path"
        )
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(model))
    return Model(path.name, folder, digest_of(folder))


def digest_of(folder: Path) -> str:
    """sha256 over the names and contents of what makes the model: weights, config, tokenizer, chat template."""
    total = hashlib.sha256()
    for file in sorted({file for pattern in _CONTENT for file in folder.glob(pattern)}):
        with open(file, "rb") as opened:
            total.update(f"{file.name}\0{hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def checkpoint_of(path: Path) -> Path | None:
    """The folder global_step_<n> that the path means; of a run, its newest that is whole.

    Raises ValueError if files of it are not those that were saved.
    """
    if path.name == "actor":
        path = path.parent
    if (path / "actor").is_dir():
        if (path / MANIFEST).is_file():  # verl's own checkpoints have none
            verify(path)
        return path
    for folder in (path / "checkpoints", path):
        if any(folder.glob("global_step_*")) or any(folder.glob(f"{STOPPED}/global_step_*")):
            newest = CheckpointStore(folder, keep_last=1, keep_best=0).newest(print)
            return newest.folder if newest else None
    return None


def checkpoint_name(checkpoint: Path) -> str:
    """``<run>/<step>``, such as ``mifo/global_step_200``."""
    run = next(folder for folder in checkpoint.parents if folder.name not in ("checkpoints", STOPPED))
    return f"{run.name}/{checkpoint.name}"


def distinct_names(models: list[Model]) -> list[Model]:
    """The models, with the start of the digest behind names that would appear twice. Raises ValueError on one twice."""
    if len({model.digest for model in models}) < len(models):
        names = json.dumps([model.name for model in models])
        raise ValueError(f"model={names} must be different models; two of them have the same weights and tokenizer")
    count = Counter(model.name for model in models)
    return [
        model if count[model.name] == 1 else replace(model, name=f"{model.name}-{model.digest[:6]}") for model in models
    ]
