"""Which fields the files of a run must hold: a record that lacks one is named and left out, and nothing fails on it."""

from collections.abc import Callable, Mapping
from functools import partial
from types import NoneType
from typing import Any

Line = dict[str, Any]
Shape = Mapping[str, tuple[type, ...]]
"""A field, dotted where it is inside another, and the types that it may have; a bool is no number.

A field with a question mark is asked for only where the outermost one is there and not null.
"""
Check = Callable[[Line], list[str]]
"""What is wrong with one object, in words."""

NUMBER = (int, float)
_OR_NULL = (int, float, NoneType)
LEDGER: Shape = {
    "interval": (int,),
    "step": (int,),
    "prompt_id": (str,),
    "num_correct": (int, NoneType),
    "num_rollouts": (int, NoneType),
    "demonstration_sha256": (str,),
    "source": (str,),
    "response_tokens": (int,),
    "kept_tokens": (int,),
}
_RECORD: Shape = {"step": (int,), "interval": (int,), "update": (int,), "buffer_size": (int,), "seconds": (dict,)}
METRICS: Mapping[str, Shape] = {
    "rl": {**_RECORD, "rollouts": (int,), "kl_tokens?": NUMBER}
    | dict.fromkeys(("reward", "accuracy", "response_length"), _OR_NULL),
    "sft": {**_RECORD, "frozen_share": NUMBER, "seconds.sft": NUMBER, "probe?": (dict,)}
    | dict.fromkeys(("demonstrations", "response_tokens", "kept_tokens"), (int,))
    | dict.fromkeys(("loss", "grad_norm", "mask.threshold?"), _OR_NULL)
    | dict.fromkeys(("mask.num_frozen?", "mask.num_coordinates?"), (int,))
    | dict.fromkeys(("frozen_drift?", "kl_to_before?"), NUMBER),
}
"""The records of both phases."""
PROMPTS: Shape = {"interval": (int,), "step": (int,), "prompts": (list,)}
MEMORY: Shape = {"step": (int,)}
VALIDATION: Shape = {"step": (int,), "accuracy": (dict,)}
ORIGIN: Shape = {"checkpoint": (str,), "step": (int,), "interval": (int,), "prompts": (list,)}
SUMMARY: Shape = {"sft_phases": (list,), "seconds.total": NUMBER}
PHASE: Shape = dict.fromkeys(("interval", "demonstrations", "response_tokens", "kept_tokens"), (int,))
"""A row of the summary's ``sft_phases``."""
CONFIG: Shape = {
    "data.train_files": (str, list),
    "actor_rollout_ref.rollout.n": (int,),
    "mifo.sft.passes": (int,),
    "mifo.gate.name": (str,),
    "mifo.token_selector.name": (str,),
    "mifo.schedule.name": (str,),
    "trainer": (dict,),
}


def lookup(table: Any, key: str, missing: Any = None) -> Any:
    """The value at a dotted key; ``missing`` where there is none."""
    for part in key.split("."):
        if not isinstance(table, Mapping) or part not in table:
            return missing
        table = table[part]
    return table


def field_faults(line: Line, shape: Shape) -> list[str]:
    """Fields that are missing or of a wrong type."""
    found = []
    for name, types in shape.items():
        key = name.removesuffix("?")
        if key != name and lookup(line, key.split(".")[0]) is None:
            continue
        value = lookup(line, key, missing=_MISSING)
        if value is _MISSING:
            found.append(f"{key} is missing")
        elif not is_of(value, types):
            found.append(f"{key}={value!r} has a wrong type")
    return found


def ledger_faults(line: Line) -> list[str]:
    """Older runs name no source; a field that is unknown is a fault too."""
    return field_faults({"source": ""} | line, LEDGER) + [f"{key} is unknown" for key in line if key not in LEDGER]


def metrics_faults(line: Line) -> list[str]:
    """By the phase of a record; every stage's seconds and every size of a probe are a number."""
    phase = line.get("phase")
    if phase not in ("rl", "sft"):
        return [f"phase={phase!r} is neither rl nor sft"]
    faults = field_faults(line, METRICS[phase])
    return faults or [*_values(line["seconds"], NUMBER), *_values(line.get("probe") or {}, NUMBER)]


def prompts_faults(line: Line) -> list[str]:
    """Every prompt is [prompt id, correct rollouts, rollouts]."""
    return _prompt_faults(line, PROMPTS)


def origin_faults(table: Line) -> list[str]:
    """Its prompts are as those of a step."""
    return _prompt_faults(table, ORIGIN)


def summary_faults(table: Line) -> list[str]:
    """Of a finished run; until then the summary holds less."""
    faults = field_faults(table, SUMMARY) if "sft_phases" in table else []
    rows = table.get("sft_phases", []) if not faults else []
    return faults + [f"sft_phases: {fault}" for row in rows for fault in field_faults(row, PHASE)]


def versions_faults(table: Line) -> list[str]:
    """Every version is a text."""
    return _values(table, (str,))


memory_faults: Check = partial(field_faults, shape=MEMORY)
validation_faults: Check = partial(field_faults, shape=VALIDATION)

_MISSING = object()


def is_of(value: object, types: tuple[type, ...]) -> bool:
    """Whether it has one of these types; a bool is no number."""
    return isinstance(value, types) and not isinstance(value, bool)


def _values(table: Line, types: tuple[type, ...]) -> list[str]:
    return [f"{key}={value!r} has a wrong type" for key, value in table.items() if not is_of(value, types)]


def _prompt_faults(line: Line, shape: Shape) -> list[str]:
    faults = field_faults(line, shape)
    wrong = [one for one in line["prompts"] if not _is_prompt(one)] if not faults else []
    return faults + [f"{one!r} is not [prompt id, correct rollouts, rollouts]" for one in wrong]


def _is_prompt(one: object) -> bool:
    types: list[tuple[type, ...]] = [(str,), (int,), (int,)]
    return isinstance(one, list) and len(one) == 3 and all(map(is_of, one, types))
