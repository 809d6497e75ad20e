"""A sweep from its command line to its table."""

import json
import shlex
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mifo_verl.compose import ConfigError
from mifo_verl.errors import require_count
from mifo_verl.run.journal import replace_text
from mifo_verl.run.versions import SOURCES
from mifo_verl.tools.command_line import exit_code as exit_code
from mifo_verl.tools.command_line import pairs, take
from mifo_verl.tools.report.page import render
from mifo_verl.tools.report.run import load_all
from mifo_verl.tools.sweep.definition import Definition, read_definition
from mifo_verl.tools.sweep.numbers import numbers_of
from mifo_verl.tools.sweep.page import Origin, answers, print_table, to_csv, to_markdown
from mifo_verl.tools.sweep.plan import PlannedRun, plan
from mifo_verl.tools.sweep.run import TRAIN, Runner, check_arms, refuse_others
from mifo_verl.tools.sweep.store import SWEEP, StoredRun, is_finished, read_sweep, write_sweep
from mifo_verl.tools.sweep.table import Table, Values, make_table

_DIGEST_SHOWN = 12


@dataclass(frozen=True)
class Settings:
    """The settings of a sweep itself; all others of its command line are those of the runs."""

    sweep: str | None = None
    sweep_dir: Path | None = None
    baseline: str | None = None
    jobs: int = 1

    def __post_init__(self) -> None:
        require_count("jobs", self.jobs, "write jobs=1")


@dataclass(frozen=True)
class Request:
    """What is to be run."""

    definition: Definition
    overrides: list[str]
    sweep_dir: Path
    jobs: int
    only_plan: bool
    command: str
    """The command line that asks for it again."""


def request(arguments: Sequence[str]) -> Request:
    """A command line, taken apart. Raises ValueError on its mistakes."""
    given = [one for one in arguments if one != "--plan"]
    own, overrides = take(Settings, given)
    definition = read_definition(own.sweep) if own.sweep else Definition()
    definition = replace(definition, baseline=own.baseline or definition.baseline)
    sweep_dir = own.sweep_dir or Path("runs") / (own.sweep or "sweep")
    return Request(definition, overrides, sweep_dir, own.jobs, "--plan" in arguments, f"mifo sweep {shlex.join(given)}")


def sweep(asked: Request, train: Sequence[str] = TRAIN) -> int:
    """Check every run, run what is not finished, and make the table; returns the exit code. Raises ConfigError."""
    runs = plan(asked.definition, asked.overrides, asked.sweep_dir)
    refuse_others(runs)
    check_arms(runs)
    if asked.only_plan:
        show_plan(runs)
        return 0
    write_sweep(asked.sweep_dir, asked.definition, asked.command, runs)
    code = Runner(train, asked.jobs).run(runs)
    try:
        finish(asked.sweep_dir)
    except ConfigError as error:
        print(f"no table: {error}", file=sys.stderr)
    return code


def show_plan(runs: Sequence[PlannedRun]) -> None:
    for run in runs:
        print(f"{run.folder}: {shlex.join(run.overrides)}")


def table(arguments: Sequence[str]) -> int:
    """``mifo sweep table <folder> [out=<file>]``. Raises ValueError on mistakes."""
    folders = [one for one in arguments if not one.startswith("out=")]
    if len(folders) != 1:
        raise ValueError(f"table takes the folder of one sweep, which holds a {SWEEP}; see --help")
    out = pairs([one for one in arguments if one not in folders]).get("out")
    finish(Path(folders[0]), Path(out).expanduser() if out else None)
    return 0


def finish(sweep_dir: Path, out: Path | None = None) -> Table:
    """Write and print the table of what is finished; ``out`` is another place for the Markdown, which shows a
    picture of the same name beside it.

    Raises ConfigError if the folder holds no sweep, or no run of it is finished.
    """
    sweep = read_sweep(sweep_dir)
    done = [run for run in sweep.runs if is_finished(sweep_dir / run.name)]
    if not done:
        raise ConfigError(f"sweep_dir={sweep_dir} must hold a finished run; none of its {len(sweep.runs)} is")
    runs = load_all([sweep_dir / run.name for run in done])
    arms: dict[str, Values] = defaultdict(lambda: defaultdict(dict))
    code: dict[str, list[str]] = defaultdict(list)
    for stored, run in zip(done, runs, strict=True):
        for number, value in numbers_of(run).items():
            arms[stored.arm][number][stored.seed] = value
        digests = [digest[:_DIGEST_SHOWN] for digest in run.versions.get(SOURCES, "not recorded").split(", ")]
        code[", ".join(digests)].append(stored.name)  # a run resumed with other sources has several
    table = make_table(arms, sweep.asked)
    origin = Origin(
        title=sweep.title,
        command=sweep.command,
        runs=[run.name for run in done],
        missing=[run.name for run in sweep.runs if run not in done],
        planned=_told([run for run in sweep.runs if not run.added], []),
        added=_told([run for run in sweep.runs if run.added], [run for run in sweep.runs if not run.added]),
        code=dict(code),
    )
    replace_text(sweep_dir / "table.json", json.dumps(asdict(table) | asdict(origin), indent=2) + "\n")
    replace_text(sweep_dir / "table.csv", to_csv(table))
    page = out or sweep_dir / "table.md"
    picture = page.with_suffix(".png")
    replace_text(page, to_markdown(table, origin, picture.name if picture.is_file() else None))
    print_table(table, origin)
    replace_text(
        sweep_dir / "report.html",
        render(runs, {"Answers": answers(table)}, [arm for arm in sweep.arms if arm not in table.arms]),
    )
    ends = {
        stored.name: (run.files.summary or {}).get("weights_sha256") for stored, run in zip(done, runs, strict=True)
    }
    for line in same_ends(ends):
        print(line)
    print(f"{len(done)} of {len(sweep.runs)} runs; table.json, table.csv and report.html are in {sweep_dir}")
    return table


def same_ends(weights: Mapping[str, str | None]) -> list[str]:
    """A line for all runs that have ended with the same weights, by their digests."""
    named: dict[str | None, list[str]] = defaultdict(list)
    for name, digest in weights.items():
        named[digest].append(name)
    why = "what differs between them changed nothing (no SFT phase came?)"
    same = [names for digest, names in named.items() if digest and len(names) > 1]
    return [f"{', '.join(names)} ended with the same weights: {why}" for names in same]


def _told(runs: Sequence[StoredRun], before: Sequence[StoredRun]) -> str:
    """The arms and seeds of runs, without those that were there before; the runs' names if there is nothing new."""
    told = []
    for key in ("arm", "seed"):
        known = {getattr(run, key) for run in before}
        if new := list(dict.fromkeys(str(getattr(run, key)) for run in runs if getattr(run, key) not in known)):
            told.append(f"{key}s {', '.join(new)}")
    return "; ".join(told) or ", ".join(run.name for run in runs)
