"""Which lines of ``inspection.jsonl`` can be drawn: columns of numbers, each as long as the others of its table."""

from types import NoneType
from typing import Any

from mifo_verl.probes.columns import COUNTS, NORMS
from mifo_verl.tools.ledger.shapes import NUMBER, Line, field_faults, is_of

_YOUNGER = {"frozen_rl_visible"}
"""Columns that older runs lack."""
_COLUMNS = {*COUNTS, *NORMS} - _YOUNGER
_SHAPE = {"interval": (int,), "mask": (dict, NoneType), "tokens": (dict, NoneType)}
_MASK = {"by_layer": (dict,), "by_kind": (dict,)}
_TOKENS = dict.fromkeys(("edges", "entropy", "entropy_kept", "position", "position_kept"), (list,)) | {
    "threshold": (dict, NoneType),
    "top_tokens": (list,),
    "examples": (list,),
}
_THRESHOLD = dict.fromkeys(("min", "median", "max"), NUMBER)
_EXAMPLE = {"prompt_id": (str,), "prompt": (str,), "tokens": (list,), "entropy": (list,), "kept": (list,)} | {
    "num_tokens": (int,)
}


def inspection_faults(line: Line) -> list[str]:
    """What is wrong with one line, in words; what is not finite is null in it, and cannot be drawn."""
    faults = field_faults(line, _SHAPE)
    if faults:
        return faults
    mask, tokens = line["mask"], line["tokens"]
    faults += [] if mask is None else _mask_faults(mask)
    return faults + ([] if tokens is None else _tokens_faults(tokens))


def _mask_faults(mask: Line) -> list[str]:
    faults = _inside("mask", field_faults(mask, _MASK))
    for by in () if faults else ("layer", "kind"):
        table, where = mask[f"by_{by}"], f"mask.by_{by}"
        missing = sorted(({by} | _COLUMNS) - table.keys())
        if missing:
            faults.append(f"{where}.{missing[0]} is missing")
            continue
        names = table[by]
        faults += _column(f"{where}.{by}", names, (str,), len(names) if isinstance(names, list) else 0)
        for key in table.keys() - {by} if not faults else ():
            faults += _column(f"{where}.{key}", table[key], NUMBER, len(names))
    return faults


def _tokens_faults(tokens: Line) -> list[str]:
    faults = _inside("tokens", field_faults(tokens, _TOKENS))
    if faults:
        return faults
    bins, places = len(tokens["edges"]) + 1, len(tokens["position"])
    lengths = {"edges": max(1, len(tokens["edges"])), "entropy": bins, "entropy_kept": bins, "position": places}
    for key, length in (lengths | {"position_kept": places}).items():
        faults += _column(f"tokens.{key}", tokens[key], NUMBER, length)
    if tokens["threshold"] is not None:
        faults += _inside("tokens.threshold", field_faults(tokens["threshold"], _THRESHOLD))
    if not all(_is_top_token(one) for one in tokens["top_tokens"]):
        faults.append("tokens.top_tokens are not [text, kept, of so many]")
    for number, example in enumerate(tokens["examples"]):
        faults += _inside(f"tokens.examples.{number}", _example_faults(example))
    return faults


def _example_faults(example: Any) -> list[str]:
    if not isinstance(example, dict):
        return ["no object"]
    faults = field_faults(example, _EXAMPLE)
    for key, types in (("tokens", (str,)), ("entropy", NUMBER), ("kept", (int,))) if not faults else ():
        faults += _column(key, example[key], types, len(example["tokens"]))
    return faults


def _column(where: str, column: Any, types: tuple[type, ...], length: int) -> list[str]:
    if isinstance(column, list) and len(column) == length and all(is_of(one, types) for one in column):
        return []
    return [f"{where} is no list of {length} {'texts' if types == (str,) else 'numbers'}"]


def _is_top_token(one: Any) -> bool:
    return isinstance(one, list) and len(one) == 3 and all(map(is_of, one, [(str,), NUMBER, NUMBER]))


def _inside(where: str, faults: list[str]) -> list[str]:
    return [f"{where}.{fault}" for fault in faults]
