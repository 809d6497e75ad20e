"""A run as the report reads it: its files, whole or torn, what they lack, and frames of what is drawn."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from mifo_verl.loop.events import Noted, RolloutSeen
from mifo_verl.probes.coupling import change, mean_of
from mifo_verl.run.journal import ENDED, EVENTS, INSPECTION, MEMORY, RL_STAGES, SAMPLES, START_UP, step_seconds
from mifo_verl.run.versions import VERSIONS
from mifo_verl.tools.ledger.account import Account, account, count, find_files
from mifo_verl.tools.ledger.audit import audit, settled, unproved
from mifo_verl.tools.records import Inspection, Line, Memory
from mifo_verl.tools.run_files import RunFiles, read_lines, read_run, read_table

_MOST_BYTES = 64 << 20
"""Of larger data sets the demonstrations are not counted: a report is made in seconds."""


@dataclass(frozen=True)
class Run:
    """One run: its files without what is not written whole yet, what was inspected of every SFT phase, memory, its
    data, and the faults of its ledger."""

    label: str
    files: RunFiles
    inspection: list[Line]
    memory: list[Line]
    account: Account
    faults: list[str]
    unproved: list[str]
    versions: dict[str, str]
    events: list[Line]
    samples: list[Line]
    """Rollouts to read."""
    left_out: list[str]
    """Lines of the other files that cannot be used."""

    @property
    def config(self) -> dict[str, Any]:
        return self.files.config

    @property
    def rl(self) -> list[Line]:
        return self.files.rl

    @property
    def sft(self) -> list[Line]:
        return self.files.sft

    @property
    def is_finished(self) -> bool:
        return self.files.summary is not None

    @property
    def state(self) -> str:
        """What became of it, in words."""
        if self.is_finished:
            return "Finished"
        last = next((line for line in reversed(self.events) if line["kind"] in _ENDS), None)
        if last is None or last["kind"] == "resumed":
            return "No summary yet: the run goes on, or was killed"
        return "Stopped on request" if last["kind"] == ENDED else f"Ended by a failure ({last['text']})"

    @property
    def steps(self) -> int:
        """The last step that has a record."""
        return max((line["step"] for line in self.rl + self.sft), default=0)

    @property
    def phases(self) -> list[list[Line]]:
        """The records of every SFT phase, in order."""
        return [lines for _, lines in sorted(self.files.updates.items())]

    @property
    def sft_steps(self) -> list[int]:
        """The step of every SFT phase."""
        return [lines[0]["step"] for lines in self.phases]

    @cached_property
    def validations(self) -> dict[int, float]:
        """Mean accuracy by step, in order; step 0 is the start."""
        summary = self.files.summary or {}
        # the first three are of a run, or a part of one, from before validations had a file of their own
        found = {0: summary.get("accuracy_start")}
        found |= {line["step"]: line.get("validation") for line in self.rl}
        found |= {self.steps: summary["accuracy_end"]} if summary.get("accuracy_end") else {}
        found |= {line["step"]: line["accuracy"] for line in self.files.validation}
        return {step: mean for step in sorted(found) if (mean := mean_of(found[step])) is not None}

    def signal(self, name: str) -> dict[int, float]:
        """One number of the RL records by step, or ``validation``."""
        if name == "validation":
            return self.validations
        return {line["step"]: value for line in self.rl if (value := mean_of(line.get(name))) is not None}

    @cached_property
    def probes(self) -> pd.DataFrame:
        """Every quantity that a record holds as ``<name>_before`` and ``<name>_after``.

        Columns: phase, name, interval, before, after, change.
        """
        rows = [
            (line["phase"], name, line["interval"], before, after, change(before, after))
            for line in self.rl + self.sft
            for name in (key.removesuffix("_before") for key in line if key.endswith("_before"))
            if (before := mean_of(line[f"{name}_before"])) is not None
            and (after := mean_of(line.get(f"{name}_after"))) is not None
        ]
        return pd.DataFrame(rows, columns=["phase", "name", "interval", "before", "after", "change"])

    @cached_property
    def seconds(self) -> pd.DataFrame:
        """Columns: step, phase, stage, seconds, and block: start-up, RL, SFT, or beside for what is neither's own.

        They add up to the run's seconds, where it has ended.
        """
        rows = [
            (line["step"], line["phase"], stage, seconds, _BLOCKS.get(stage, "beside"))
            for line in self.rl + self.sft
            for stage, seconds in step_seconds(line).items()
        ]
        if self.files.summary is not None:
            rest = self.files.summary["seconds"]["total"] - sum(row[3] for row in rows)
            rows += [(self.steps, "", "not in a record", rest, "beside")] if rest > 0 else []
        return pd.DataFrame(rows, columns=["step", "phase", "stage", "seconds", "block"])

    @cached_property
    def layers(self) -> pd.DataFrame:
        """The inspected masks and updates, one row an interval and layer."""
        return self._masks("layer")

    @cached_property
    def kinds(self) -> pd.DataFrame:
        """The same, one row an interval and kind of matrix."""
        return self._masks("kind")

    def _masks(self, by: str) -> pd.DataFrame:
        tables = [(line["interval"], line["mask"][f"by_{by}"]) for line in self.inspection if line["mask"]]
        columns: dict[str, list[Any]] = {"interval": [at for at, table in tables for _ in table[by]]}
        for name in dict.fromkeys(name for _, table in tables for name in table):
            columns[name] = [value for _, table in tables for value in table.get(name, [None] * len(table[by]))]
        return pd.DataFrame(columns)

    @cached_property
    def tokens(self) -> list[tuple[int, Line]]:
        """(interval, what was inspected of its tokens)."""
        return [(line["interval"], line["tokens"]) for line in self.inspection if line["tokens"]]


_ENDS = (ENDED, "failed", "restart", "resumed")
"""Events that say what became of a run, or that it goes on."""
_BLOCKS = dict.fromkeys(RL_STAGES, "RL") | {"sft": "SFT", START_UP: "start-up"}


def load(folder: Path) -> Run:
    """Read a run folder. Raises ValueError if it holds no run."""
    read = read_run(folder)
    files = settled(read)
    try:
        data = count(find_files(files.config, folder), _MOST_BYTES)
    except (ValueError, OSError):
        data = None
    left_out: list[str] = []
    return Run(
        label=folder.resolve().name,
        files=files,
        inspection=read_lines(folder / INSPECTION, Inspection, left_out),
        memory=read_lines(folder / MEMORY, Memory, left_out),
        account=account(files, data),
        faults=audit(read),
        unproved=unproved(read),
        versions=read_table(folder / VERSIONS, dict[str, str], left_out) or {},
        events=read_lines(folder / EVENTS, Noted, left_out),
        samples=read_lines(folder / SAMPLES, RolloutSeen, left_out),
        left_out=left_out,
    )


def load_all(folders: Iterable[Path]) -> list[Run]:
    """Several runs, with labels that differ."""
    runs = [load(folder) for folder in folders]
    return [replace(run, label=label) for run, label in zip(runs, distinct([run.label for run in runs]), strict=True)]


def distinct(labels: list[str]) -> Iterator[str]:
    """The labels; one that is there several times with its place."""
    for place, label in enumerate(labels, start=1):
        yield label if labels.count(label) == 1 else f"{label} ({place})"
