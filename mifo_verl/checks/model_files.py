"""A model folder as files: its config.json, its weights' files and its special tokens, without loading a weight."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mifo_verl.errors import is_number

_POINTER = b"version https://git-lfs"
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "*.tiktoken",
    "tekken.json",
)
_SCALED = ("linear", "dynamic", "yarn", "longrope", "llama3")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError, naming the file, where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} must be a JSON file ({error}); download the model again") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} must be a JSON object; download the model again")
    return found


def weight_errors(folder: Path) -> Iterator[str]:
    """What is wrong with the weights' files: none, git-lfs pointers, shards of the index that are missing."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")])
    for index in sorted(folder.glob("*.index.json")):
        named = set(read_json(index).get("weight_map", {}).values())
        for missing in sorted(named - {file.name for file in files}):
            yield f"{index} names {missing}, which must be beside it; download the model again"
        files = files or [index]
    for file in files:
        with file.open("rb") as opened:
            if opened.read(len(_POINTER)) == _POINTER:
                yield f"{file} must be weights, not a git-lfs pointer; run git lfs pull in its folder"
    if not files:
        yield f"{folder} must hold weights (*.safetensors or pytorch_model*.bin); download the model again"


def has_tokenizer(folder: Path) -> bool:
    """Whether the folder holds a vocabulary: without one, transformers makes up an empty tokenizer in silence."""
    return any(True for pattern in _TOKENIZERS for _ in folder.glob(pattern))


def special_tokens(folder: Path) -> list[str]:
    """The tokens that the folder's tokenizer takes for more than text, such as ``<|im_end|>``."""
    found: set[str] = set()
    if (folder / "tokenizer.json").is_file():
        added = read_json(folder / "tokenizer.json").get("added_tokens") or []
        found |= {token["content"] for token in added if token.get("special")}
    if (folder / "tokenizer_config.json").is_file():
        decoder = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
        found |= {token["content"] for token in decoder.values() if token.get("special")}
    return sorted(token for token in found if token.strip())


def rope_errors(config: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the RoPE settings of a config.json, in their old form or the new, or has no effect."""
    old, new = config.get("rope_scaling") or {}, config.get("rope_parameters") or {}
    if old and new and old != new:
        yield (
            f"config.json: rope_scaling={old} must not stand beside rope_parameters={new}, because the model "
            "reads neither the base nor the scaling of the latter then; write all of it into rope_parameters alone"
        )
    rope = old or new
    parts = [part for part in rope.values() if isinstance(part, dict)] or [rope]  # one of each kind of layer
    beside, lives = config.get("rope_theta"), [part["rope_theta"] for part in parts if "rope_theta" in part]
    for theta in lives or [beside]:
        if theta is not None and (not is_number(theta) or theta <= 0):
            yield f"config.json: rope_theta={theta} must be a number above 0; the paper's value is 40000"
    if beside is not None and lives and beside not in lives:
        yield (
            f"config.json: rope_theta={beside} must be rope_parameters.rope_theta={lives[0]}, because the model reads "
            f"that one alone; write {beside} there, in config.json, and leave the other out"
        )
    for part in parts:
        kind, factor = part.get("rope_type", part.get("type")), part.get("factor")
        if kind not in (None, "default", *_SCALED):
            yield f"config.json: rope_type={kind} must be one of default, {', '.join(_SCALED)}; correct it"
        elif kind in _SCALED and not is_number(factor):
            yield f"config.json: rope_type={kind} must have a factor; write it beside, e.g. 4.0"
        elif kind not in _SCALED and factor is not None:
            yield f"config.json: rope_type={kind} must be a scaling to have a factor={factor}; write rope_type=yarn"


def window(config: dict[str, Any]) -> int | None:
    """The longest sequence that the model takes; None where config.json does not say."""
    longest = config.get("max_position_embeddings")
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    original, factor = rope.get("original_max_position_embeddings"), rope.get("factor")
    if isinstance(original, int) and isinstance(factor, int | float):
        longest = max(longest or 0, int(original * factor))
    return longest if isinstance(longest, int) else None
