"""The record files of a run as the ledger's account and audit need them, without trusting any line of them."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mifo_verl.bridge.records import CONFIG, LEDGER, METRICS, PROMPTS, SUMMARY

Line = dict[str, Any]


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
    summary: dict[str, Any] | None
    """None while the run goes on, and where it was killed."""
    unreadable: list[str] = field(default_factory=list)


def read_run(folder: Path) -> RunFiles:
    """The files of a run folder. Raises ValueError where the folder holds no run."""
    if not (folder / CONFIG).is_file():
        raise ValueError(f"run={folder} must be the folder of a run, with a {CONFIG}; give the run_dir of a training")
    unreadable: list[str] = []
    metrics = _objects(folder / METRICS, unreadable)
    rl = [line for line in metrics if line.get("phase") == "rl"]
    summary = _table(folder / SUMMARY, unreadable)
    return RunFiles(
        folder=folder,
        config=yaml.load((folder / CONFIG).read_text(), yaml.CSafeLoader),
        ledger=_objects(folder / LEDGER, unreadable),
        rl=rl,
        sft=[line for line in metrics if line.get("phase") == "sft"],
        prompts=_objects(folder / PROMPTS, unreadable) if not rl or (folder / PROMPTS).exists() else None,
        summary=summary if summary is not None and "sft_phases" in summary else None,
        unreadable=unreadable,
    )


def _objects(path: Path, unreadable: list[str]) -> list[Line]:
    """The objects of a JSON-lines file; a last line without its end is still being written and is left out."""
    if not path.exists():
        return []
    found = []
    text = path.read_text(errors="replace")
    for number, row in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            line = json.loads(row)
        except json.JSONDecodeError as error:
            unreadable.append(f"{path.name} line {number}: no JSON ({error.msg})")
            continue
        if isinstance(line, dict):
            found.append(line)
        else:
            unreadable.append(f"{path.name} line {number}: no object")
    return found


def _table(path: Path, unreadable: list[str]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        table: dict[str, Any] = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        unreadable.append(f"{path.name}: no JSON ({error.msg})")
        return None
    return table
