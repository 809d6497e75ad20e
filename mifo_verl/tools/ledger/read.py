"""The record files of a run as the ledger's account and audit need them, without trusting any line of them."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mifo_verl.run.journal import CONFIG, LEDGER, METRICS, ORIGIN, PROMPTS, SUMMARY, VALIDATION
from mifo_verl.tools.ledger import shapes
from mifo_verl.tools.ledger.shapes import Check, Line


@dataclass
class RunFiles:
    """What was read, and what could not be."""

    folder: Path
    config: dict[str, Any]
    ledger: list[Line]
    rl: list[Line]
    sft: list[Line]
    prompts: list[Line] | None
    """One line an RL step with its prompts and their counts; None where there were RL steps and the run kept none."""
    validation: list[Line]
    summary: dict[str, Any] | None
    """None while the run goes on, and where it was killed."""
    origin: dict[str, Any] | None = None
    """Step, interval and hard prompts that the first line follows, where they are of another run."""
    unreadable: list[str] = field(default_factory=list)
    """Lines that are no JSON or lack a field; they are left out of the lists."""


def read_run(folder: Path) -> RunFiles:
    """The files of a run folder. Raises ValueError where the folder holds no run, or the config cannot be used."""
    if not (folder / CONFIG).is_file():
        raise ValueError(f"run={folder} must be the folder of a run, with a {CONFIG}; give the run_dir of a training")
    config = _config(folder / CONFIG)
    unreadable: list[str] = []
    # A run that goes on writes prompts, metrics, ledger, validation, summary: read backwards, none is ahead of one read
    # later.
    summary = read_table(folder / SUMMARY, shapes.summary_faults, unreadable)
    validation = read_objects(folder / VALIDATION, shapes.validation_faults, unreadable)
    ledger = read_objects(folder / LEDGER, shapes.ledger_faults, unreadable)
    metrics = read_objects(folder / METRICS, shapes.metrics_faults, unreadable)
    prompts = read_objects(folder / PROMPTS, shapes.prompts_faults, unreadable)
    rl = [line for line in metrics if line["phase"] == "rl"]
    return RunFiles(
        folder=folder,
        config=config,
        ledger=ledger,
        rl=rl,
        sft=[line for line in metrics if line["phase"] == "sft"],
        prompts=prompts if not rl or (folder / PROMPTS).exists() else None,
        validation=validation,
        summary=summary if summary is not None and "sft_phases" in summary else None,
        origin=read_table(folder / ORIGIN, shapes.origin_faults, unreadable),
        unreadable=unreadable,
    )


def read_objects(path: Path, faults_of: Check, unreadable: list[str]) -> list[Line]:
    """The objects of a JSON-lines file; those that cannot be used are named in ``unreadable`` and left out.

    A last line without its end is still being written and is left out too.
    """
    if not path.exists():
        return []
    found = []
    text = path.read_text(errors="replace")
    for number, row in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        line = _object(row, faults_of, f"{path.name} line {number}", unreadable)
        found += [] if line is None else [line]
    return found


def read_table(path: Path, faults_of: Check, unreadable: list[str]) -> dict[str, Any] | None:
    """The one object of a JSON file; None where it is absent, or cannot be used and is named in ``unreadable``."""
    return _object(path.read_text(errors="replace"), faults_of, path.name, unreadable) if path.exists() else None


def _object(text: str, faults_of: Check, where: str, unreadable: list[str]) -> Line | None:
    try:
        line = json.loads(text, object_pairs_hook=_without_doubles)
    except ValueError as error:
        unreadable.append(f"{where}: no JSON ({getattr(error, 'msg', error)})")
        return None
    faults = faults_of(line) if isinstance(line, dict) else ["no object"]
    if faults:
        unreadable.append(f"{where}: {'; '.join(faults)}")
    return None if faults else line


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a key that is there twice, JSON would keep the last alone."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)} is there twice")
    return found


def _config(path: Path) -> dict[str, Any]:
    """Raises ValueError where it is no YAML, or lacks a setting that is read."""
    try:
        config = yaml.load(path.read_text(errors="replace"), yaml.CSafeLoader)
        faults = shapes.field_faults(config, shapes.CONFIG)
    except yaml.YAMLError as error:
        faults = [" ".join(str(error).split())]
    if faults:
        raise ValueError(
            f"{path} must be the resolved config of a training ({'; '.join(faults)}); "
            "put back the one that the training wrote"
        )
    return dict(config)
