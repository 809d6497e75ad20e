"""A model folder as files: its config.json, its weights' files and its special tokens, without loading a weight."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    """What is wrong with the RoPE settings of a config.json, in their old form or the new."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = rope.get("rope_theta", config.get("rope_theta"))
    if theta is not None and (isinstance(theta, bool | str) or theta <= 0):
        yield f"config.json: rope_theta={theta} must be a number above 0; the paper's value is 40000"
    dead, live = config.get("rope_theta"), (config.get("rope_parameters") or {}).get("rope_theta")
    if dead is not None and live is not None and dead != live:
        yield (
            f"config.json: rope_theta={dead} must be rope_parameters.rope_theta={live}, because the model reads that "
            f"one alone; write {dead} there, in config.json, and leave the other out"
        )
    kind = rope.get("rope_type", rope.get("type"))
    if kind in _SCALED and not isinstance(rope.get("factor"), int | float):
        yield f"config.json: rope_type={kind} must have a factor; write it beside, e.g. 4.0"


def window(config: dict[str, Any]) -> int | None:
    """The longest sequence that the model takes; None where config.json does not say."""
    longest = config.get("max_position_embeddings")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    original, factor = rope.get("original_max_position_embeddings"), rope.get("factor")
    if isinstance(original, int) and isinstance(factor, int | float):
        longest = max(longest or 0, int(original * factor))
    return longest if isinstance(longest, int) else None
