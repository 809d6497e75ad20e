"""The files of a run, each read once and checked line by line.

Runs on disk are of every version, and may still be written or damaged: a line that cannot be used is named and left
out.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import yaml

from mifo_verl.run.journal import CONFIG, LEDGER, METRICS, ORIGIN, PROMPTS, SUMMARY, VALIDATION
from mifo_verl.tools.records import LedgerLine, Line, Origin, PromptsLine, RlRecord, SftRecord, Summary, Validation

_CONFIG: Mapping[str, Any] = {
    "data.train_files": str | list[str],
    "actor_rollout_ref.rollout.n": int,
    "mifo.sft.passes": int,
    "mifo.schedule": dict,
    "trainer": dict,
}

_RENAMED = {"prompt_selector": "gate", "freeze": "constraint"}
"""Groups of ``mifo`` by the names that older runs have for them."""


@dataclass
class RunFiles:
    """What was read of one run, and what could not be."""

    folder: Path
    config: dict[str, Any]
    """The resolved config, its groups by their names of now."""
    ledger: list[Line]
    rl: list[Line]
    sft: list[Line]
    prompts: list[Line] | None
    """One line an RL step with its prompts and their counts; None if there were RL steps and the run kept none."""
    validation: list[Line]
    summary: Line | None
    """None while the run goes on, and if it was killed."""
    origin: Line | None = None
    """Step, interval and hard prompts that the first line follows, if they are of another run."""
    unreadable: list[str] = field(default_factory=list)

    @cached_property
    def updates(self) -> dict[int, list[Line]]:
        """The SFT updates of every interval."""
        return by_interval(self.sft)

    @cached_property
    def members(self) -> list[Line]:
        """The lines of the ledger for demonstrations among the rollouts."""
        return [line for line in self.ledger if line.get("kind") == "rollout"]

    @cached_property
    def in_loss(self) -> list[Line]:
        """The lines of the ledger for demonstrations in an SFT loss."""
        return [line for line in self.ledger if line.get("kind") != "rollout"]

    @cached_property
    def uses(self) -> dict[int, list[Line]]:
        """These lines, of every interval."""
        return by_interval(self.in_loss)

    @cached_property
    def staged(self) -> list[Line]:
        """The RL records of steps that trained on demonstrations in their updates.

        Without the last one of a run without its end, if its ledger lines are not there yet.
        """
        found = [line for line in self.rl if line.get("staged")]
        if found and self.summary is None and not any(line["step"] == found[-1]["step"] for line in self.in_loss):
            del found[-1]
        return found

    @cached_property
    def pending_interval(self) -> int | None:
        """The last SFT phase of a run without its end, if its records or its ledger lines are not there yet.

        RL in a later interval begins when both are written.
        """
        last = max({*self.updates, *self.uses}, default=0)
        num_staged = sum(line["staged"]["demonstrations"] for line in self.staged if line["interval"] == last)
        has_uses = len(self.uses.get(last, [])) > num_staged
        if self.summary is not None or (last in self.updates) == has_uses:
            return None
        return None if any(line["interval"] > last for line in self.rl) else last

    @cached_property
    def pending_step(self) -> int | None:
        """The last step of a run without its end, if its prompts are there and its record is not yet."""
        last = max((line["step"] for line in self.prompts or []), default=0)
        recorded = max((line["step"] for line in self.rl + self.sft), default=0)
        return last if self.summary is None and last > recorded else None


def read_run(folder: Path) -> RunFiles:
    """The files of a run folder. Raises ValueError if the folder holds no run, or the config cannot be used."""
    if not (folder / CONFIG).is_file():
        raise ValueError(f"run={folder} must be the folder of a run, with a {CONFIG}; give the run_dir of a training")
    bad: list[str] = []
    config = read_config(folder / CONFIG)
    # A run that goes on writes prompts, metrics, ledger, validation, summary: read backwards, none is ahead of one read
    # later.
    summary = read_table(folder / SUMMARY, _summary, bad)
    validation = read_lines(folder / VALIDATION, Validation, bad)
    ledger = read_lines(folder / LEDGER, LedgerLine, bad)
    metrics = read_lines(folder / METRICS, RlRecord | SftRecord, bad)
    prompts = read_lines(folder / PROMPTS, PromptsLine, bad)
    rl, sft = ([line for line in metrics if line["phase"] == phase] for phase in ("rl", "sft"))
    return RunFiles(
        folder=folder,
        config=config,
        ledger=ledger,
        rl=rl,
        sft=sft,
        prompts=prompts if not rl or (folder / PROMPTS).exists() else None,
        validation=validation,
        summary=summary if summary and "sft_phases" in summary else None,
        origin=read_table(folder / ORIGIN, Origin, bad),
        unreadable=bad,
    )


def read_lines(path: Path, kind: Any, bad: list[str]) -> list[Line]:
    """The objects of a JSON-lines file; those that are not of this ``kind`` are named in ``bad`` and left out.

    ``kind`` is a type of msgspec's, or a function that raises ValueError. A last line without its end is still being
    written and is left out too. None are there if the file is absent.
    """
    if not path.exists():
        return []
    text = path.read_text(errors="replace")
    rows = text[: text.rfind("\n") + 1].splitlines()
    found = (_object(row, kind, f"{path.name} line {number}", bad) for number, row in enumerate(rows, start=1))
    return [line for line in found if line is not None]


def read_table(path: Path, kind: Any, bad: list[str]) -> Line | None:
    """The one object of a JSON file; None if it is absent, or cannot be used and is named in ``bad``."""
    return _object(path.read_text(errors="replace"), kind, path.name, bad) if path.exists() else None


def read_config(path: Path) -> dict[str, Any]:
    """A resolved config. Raises ValueError if it is no YAML, or lacks a setting that is read."""
    try:
        config = yaml.load(path.read_text(errors="replace"), yaml.CSafeLoader)
        for key, kind in _CONFIG.items():
            _require(key, lookup(config, key), kind)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(
            f"{path} must be the resolved config of a training ({' '.join(str(error).split())}); "
            "put back the one that the training wrote"
        ) from None
    return with_new_names(config)


def with_new_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the groups of ``mifo`` by their names of now."""
    return {**config, "mifo": {_RENAMED.get(name, name): node for name, node in config["mifo"].items()}}


def lookup(table: Any, key: str) -> Any:
    """The value at a dotted key; None if there is none."""
    for part in key.split("."):
        table = table.get(part) if isinstance(table, Mapping) else None
    return table


def by_interval(lines: list[Line]) -> dict[int, list[Line]]:
    """The lines of every interval, in their order."""
    found: dict[int, list[Line]] = {}
    for line in lines:
        found.setdefault(line["interval"], []).append(line)
    return found


def _require(key: str, value: Any, kind: Any) -> None:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{key}: {error}") from None


def _summary(table: Any) -> None:
    msgspec.convert(table, Summary if not isinstance(table, dict) or "sft_phases" in table else dict)


def _object(text: str, kind: Any, where: str, bad: list[str]) -> Line | None:
    try:
        line = json.loads(text, object_pairs_hook=_without_doubles)
    except ValueError as error:
        bad.append(f"{where}: no JSON ({getattr(error, 'msg', error)})")
        return None
    try:
        _check(line, kind)
    except ValueError as error:
        bad.append(f"{where}: {error}")
        return None
    return dict(line)


def _check(line: Any, kind: type | Callable[[Any], None]) -> None:
    msgspec.convert(line, kind) if not callable(kind) or isinstance(kind, type) else kind(line)


def _without_doubles(pairs: list[tuple[str, Any]]) -> Line:
    """Of a key that is there twice, JSON would keep the last alone."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)} is there twice")
    return found
