"""A run as the report reads it: its record files, whole or torn, and what they lack."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mifo_verl.probes.coupling import change, mean_of
from mifo_verl.run.journal import INSPECTION, MEMORY, RL_STAGES, step_seconds
from mifo_verl.tools.ledger import dataset, shapes
from mifo_verl.tools.ledger.account import Account, account
from mifo_verl.tools.ledger.audit import audit, settled, unproved
from mifo_verl.tools.ledger.read import RunFiles, read_objects, read_run, read_table
from mifo_verl.tools.ledger.shapes import Line
from mifo_verl.tools.report.inspected import inspection_faults

VERSIONS = "versions.json"
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
    def steps(self) -> int:
        """The last step that has a record."""
        return max((line["step"] for line in self.rl + self.sft), default=0)

    @property
    def planned_steps(self) -> int | None:
        """The steps that the config asks for; None where epochs decide."""
        return self.config["trainer"].get("total_training_steps")

    @property
    def is_finished(self) -> bool:
        return self.files.summary is not None

    def validations(self) -> list[tuple[int, float]]:
        """(step, mean accuracy) of every validation, in order; step 0 is the start."""
        summary = self.files.summary or {}
        # the first three are of a run, or a part of one, from before validations had a file of their own
        found = {0: summary.get("accuracy_start")}
        found |= {line["step"]: line.get("validation") for line in self.rl}
        found |= {self.steps: summary["accuracy_end"]} if summary.get("accuracy_end") else {}
        found |= {line["step"]: line["accuracy"] for line in self.files.validation}
        return [(step, mean) for step in sorted(found) if (mean := mean_of(found[step])) is not None]

    def phases(self) -> list[list[Line]]:
        """The records of every SFT phase, in order."""
        found: dict[int, list[Line]] = {}
        for line in self.sft:
            found.setdefault(line["interval"], []).append(line)
        return [found[interval] for interval in sorted(found)]


def load(folder: Path) -> Run:
    """Read a run folder. Raises ValueError where it holds no run."""
    read = read_run(folder)
    files = settled(read)
    try:
        data = dataset.count(dataset.find_files(files.config, folder), _MOST_BYTES)
    except (ValueError, OSError):
        data = None
    left_out: list[str] = []
    return Run(
        label=folder.resolve().name,
        files=files,
        inspection=read_objects(folder / INSPECTION, inspection_faults, left_out),
        memory=read_objects(folder / MEMORY, shapes.memory_faults, left_out),
        account=account(files, data),
        faults=audit(read),
        unproved=unproved(read),
        versions=read_table(folder / VERSIONS, shapes.versions_faults, left_out) or {},
        left_out=left_out,
    )


def load_all(folders: list[Path]) -> list[Run]:
    """Several runs, with labels that differ."""
    runs = [load(folder) for folder in folders]
    names = [run.label for run in runs]
    return [
        run if names.count(run.label) == 1 else replace(run, label=f"{run.label} ({place + 1})")
        for place, run in enumerate(runs)
    ]


def split_seconds(line: Line) -> tuple[float, float]:
    """(seconds of the record's phase itself, seconds of what is measured, validated, synced and saved beside it)."""
    seconds = step_seconds(line)
    own = sum(seconds.get(stage, 0.0) for stage in (*RL_STAGES, "sft"))
    return own, sum(seconds.values()) - own


def probes(run: Run) -> dict[tuple[str, str], list[tuple[int, float, float]]]:
    """(interval, before, after) of every quantity that a record holds as ``<name>_before``, ``<name>_after``, by
    (phase, name).
    """
    found: dict[tuple[str, str], list[tuple[int, float, float]]] = {}
    for line in run.rl + run.sft:
        for key in line:
            name = key.removesuffix("_before")
            if name == key or f"{name}_after" not in line:
                continue
            before, after = mean_of(line[key]), mean_of(line[f"{name}_after"])
            if before is not None and after is not None:
                found.setdefault((line["phase"], name), []).append((line["interval"], before, after))
    return found


def changes(run: Run, phase: str, name: str) -> list[tuple[int, float]]:
    """(interval, what its phase changed of a probed quantity)."""
    return [(interval, change(before, after)) for interval, before, after in probes(run).get((phase, name), [])]
