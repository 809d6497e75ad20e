"""The data report: how many rows of each file are bad, why, the first five of each reason, and what a sample showed."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mifo_verl.data.bad_rows import NUM_SHOWN, Reason, RowScan


@dataclass
class BadRows:
    """The rows of a file that are bad for one reason."""

    reason: str
    rule: str
    num_rows: int
    first: list[dict[str, Any]]
    """``row``, its number from 0, and ``text``, an excerpt."""


@dataclass
class Sample:
    """What some rows of a file, evenly spaced, showed under the run's own tokenizer and reward."""

    rows: int = 0
    demonstrations: int = 0
    verified: int = 0
    wrong: list[int] = field(default_factory=list)
    too_long: list[int] = field(default_factory=list)
    prompt_tokens: int = 0
    """Of the longest prompt of the sample."""
    demonstration_tokens: int = 0
    """Of the longest demonstration of the sample."""


@dataclass
class FileReport:
    """One file of a run."""

    setting: str
    path: str
    num_rows: int
    num_good_rows: int
    num_demonstrations: int
    bad: list[BadRows]
    sample: Sample = field(default_factory=Sample)


def report_of(scan: RowScan, setting: str) -> FileReport:
    """The report of a scanned file, its sample still empty."""
    bad = []
    for reason in Reason:
        rows = [row for row, found in scan.bad.items() if found is reason]
        if rows:
            first = [{"row": row, "text": scan.texts.get(row, "")} for row in sorted(rows)[:NUM_SHOWN]]
            bad.append(BadRows(reason.value, reason.rule, len(rows), first))
    good = scan.num_rows - len(scan.bad)
    return FileReport(setting, str(scan.path), scan.num_rows, good, scan.num_demonstrations(), bad)


def write_report(files: list[FileReport], path: Path) -> None:
    """``data_report.json``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps([asdict(file) for file in files], indent=2, ensure_ascii=False) + "\n")
    temporary.replace(path)
