"""What a sweep ends with: table.json, table.csv, table.md and report.html, from the records of its finished runs."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mifo_verl.compose import ConfigError
from mifo_verl.run.journal import replace_text
from mifo_verl.run.versions import SOURCES
from mifo_verl.tools.report.page import render
from mifo_verl.tools.report.run import load_all
from mifo_verl.tools.sweep.figures import answers
from mifo_verl.tools.sweep.numbers import numbers_of
from mifo_verl.tools.sweep.page import Origin, print_table, to_csv, to_markdown
from mifo_verl.tools.sweep.store import StoredRun, is_finished, read_sweep
from mifo_verl.tools.sweep.table import Table, Values, make_table

_DIGEST_SHOWN = 12


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
    replace_text(sweep_dir / "report.html", render(runs, {"Answers": answers(table)}))
    print(f"{len(done)} of {len(sweep.runs)} runs; table.json, table.csv and report.html are in {sweep_dir}")
    return table


def _told(runs: Sequence[StoredRun], before: Sequence[StoredRun]) -> str:
    """The arms and seeds of runs, without those that were there before; the runs' names if there is nothing new."""
    told = []
    for key in ("arm", "seed"):
        known = {getattr(run, key) for run in before}
        if new := list(dict.fromkeys(str(getattr(run, key)) for run in runs if getattr(run, key) not in known)):
            told.append(f"{key}s {', '.join(new)}")
    return "; ".join(told) or ", ".join(run.name for run in runs)
