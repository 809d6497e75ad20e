"""Check a run before anything starts: ``mifo check experiment=quickstart [any setting] [--json] [--all]``.

Errors first, then what only this machine lacks, then warnings, each with its cure; the memory and disk that the run
will take. No Ray, no GPU, no network, no weights. Exit code 2 if there is an error, 0 otherwise: a run for a cluster
can be checked on a laptop, where only ``mifo train`` refuses what is not there.
"""

import json
import os
import shutil
import sys
import textwrap
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from mifo_verl.checks.findings import Finding, Findings, Status
from mifo_verl.checks.memory import size
from mifo_verl.checks.memory_plan import PHASES, Component, Place, total
from mifo_verl.checks.preflight import Checked, check_run, compose_checked, prepare_data
from mifo_verl.compose import ConfigError

USAGE = """usage: mifo check experiment=<name> [setting=value ...] [--all] [--json]

  the same settings as mifo train; nothing is started and nothing is trained
  --all                          every check, bad rows, and the memory by component, as tables
  --json                         findings, data report and memory as JSON
"""
_COLOURS = {Status.OK: "green", Status.SKIPPED: "dim", Status.WARNING: "yellow"}
_COLOURS |= {Status.MACHINE: "yellow", Status.ERROR: "red"}
_PLACES: tuple[tuple[Place, str], ...] = (("device", "a rank"), ("host", "a node"), ("disk", "in all"))


def main(arguments: list[str]) -> int:
    """Check a run; returns the exit code."""
    if not arguments or "--help" in arguments or "-h" in arguments:
        print(USAGE)
        return 0 if arguments else 2
    overrides = [argument for argument in arguments if argument not in ("--json", "--all")]
    found, checked = Findings(), None
    try:
        config = compose_checked(overrides)
        os.environ.update(config.environment())
        prepare_data(config.node)
        checked = check_run(config.node, overrides)
        found = checked.found
    except ConfigError as error:
        with found.of("overrides"):
            for line in error.errors:
                found.error(line)
    if "--json" in arguments:
        print(to_json(found, checked))
    else:
        _print_lines(found)
        if checked is not None:
            _print_details(checked, everything="--all" in arguments)
    return 2 if _of(found, Status.ERROR) else 0


def to_json(found: Findings, checked: Checked | None = None) -> str:
    """Findings, data report and prediction for machines; the findings alone where there is no config to check."""
    said: dict[str, Any] = {"findings": [asdict(one) | {"status": one.status.value} for one in found.all]}
    if checked is not None:
        said["data"] = [asdict(report) for report in checked.reports]
        said["memory"] = [asdict(component) for component in checked.components]
        said["seconds"] = round(checked.seconds, 2)
    return json.dumps(said, indent=2)


def _print_lines(found: Findings) -> None:
    """Errors, what this machine lacks, and warnings, each as one paragraph of the terminal's width."""
    for finding in _of(found, Status.ERROR) + _of(found, Status.MACHINE) + found.warnings():
        print(_filled(f"{finding.status.value}: {finding}"))


def _of(found: Findings, status: Status) -> list[Finding]:
    return [finding for finding in found.all if finding.status is status]


def _filled(text: str) -> str:
    width = min(shutil.get_terminal_size().columns, 80)
    text = text.replace(" ", "\0", 1)  # the first word stays beside a second one of any length
    filled = textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return filled.replace("\0", " ", 1)


def _print_details(checked: Checked, everything: bool) -> None:
    console, found = Console(highlight=False), checked.found
    if everything:
        console.print(_findings(found))
        if (bad := _bad_rows(checked)).row_count:
            console.print(bad)
    if checked.components and everything:
        console.print(_components(checked.components))
    elif checked.components:
        for place, per in _PLACES:
            sums = {phase: size(total(checked.components, place, phase)) for phase in PHASES}
            text = sums["rl"] if len(set(sums.values())) == 1 else ", ".join(f"{v} in {k}" for k, v in sums.items())
            print(f"{place}, {per}: {text}")
    if checked.run.pair:
        print(_filled("a training pair begins: " + " ".join(map(repr, checked.run.pair))))
    errors, lacks, warnings = len(_of(found, Status.ERROR)), len(_of(found, Status.MACHINE)), len(found.warnings())
    here = f", and {lacks} of this machine, where mifo train refuses them," if lacks else ""
    rest = "" if everything else "; --all shows every check"
    print(_filled(f"{errors} errors, {warnings} warnings{here} in {checked.seconds:.1f} s{rest}"))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column in PHASES else "left")
    return table


def _findings(found: Findings) -> Table:
    table = _table("Checks", "check", "status", "finding", "cure")
    for finding in found.all:
        row = (finding.check, finding.status.value, finding.message, finding.cure)
        table.add_row(*map(_plain, row), style=_COLOURS[finding.status] if finding.cure else None)
    return table


def _bad_rows(checked: Checked) -> Table:
    """The bad rows by reason, with the first five of each."""
    table = _table("Bad rows", "file", "reason", "rows", "the first five")
    for report in checked.reports:
        for bad in report.bad:
            first = "\n".join(f"{shown['row']}: {shown['text']}" for shown in bad.first)
            table.add_row(_plain(report.path), bad.reason, str(bad.num_rows), _plain(first))
    return table


def _components(components: list[Component]) -> Table:
    table = _table("Memory and disk, predicted", "where", "component", *PHASES, "formula")
    for component in components:
        cells = [size(component.num_bytes) if phase in component.phases else "" for phase in PHASES]
        table.add_row(component.place, component.name, *cells, component.formula)
    for place, per in _PLACES:
        sums = [size(total(components, place, phase)) for phase in PHASES]
        table.add_row(place, f"sum, {per}", *sums, "", style="bold")
    return table


def _plain(text: str) -> str:
    return text.replace("[", r"\[")  # rich would read it as a style


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
