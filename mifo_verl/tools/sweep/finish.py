"""What a sweep ends with: table.json, table.csv, table.md and report.html, from the records of its finished runs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mifo_verl.compose import ConfigError
from mifo_verl.run.journal import replace_text
from mifo_verl.run.versions import SOURCES
from mifo_verl.tools.report.page import render
from mifo_verl.tools.report.run import Run, load_all
from mifo_verl.tools.sweep.definition import Question
from mifo_verl.tools.sweep.differences import Values
from mifo_verl.tools.sweep.figures import answers
from mifo_verl.tools.sweep.identity import is_finished
from mifo_verl.tools.sweep.numbers import ACCURACY, numbers_of
from mifo_verl.tools.sweep.page import to_markdown
from mifo_verl.tools.sweep.show import print_table, to_csv
from mifo_verl.tools.sweep.store import read_sweep
from mifo_verl.tools.sweep.table import make_table

_DIGEST_SHOWN = 12


def finish(sweep_dir: Path, out: Path | None = None) -> dict[str, Any]:
    """Write and print the table of what is finished; ``out`` is another place for the Markdown, which shows a
    picture of the same name beside it. Returns the table.

    Raises ConfigError where the folder holds no sweep, or no run of it is finished.
    """
    plan = read_sweep(sweep_dir)
    done = [run for run in plan["runs"] if is_finished(sweep_dir / run["name"])]
    if not done:
        raise ConfigError(f"sweep_dir={sweep_dir} must hold a finished run; none of its {len(plan['runs'])} is")
    runs = load_all([sweep_dir / run["name"] for run in done])
    arms: dict[str, Values] = {}
    for planned, run in zip(done, runs, strict=True):
        for number, value in numbers_of(run).items():
            arms.setdefault(planned["arm"], {}).setdefault(number, {})[planned["seed"]] = value
    questions = [
        Question(one["ask"], [(a, b) for a, b in one["pairs"]], one.get("numbers", [ACCURACY]), one.get("late", False))
        for one in plan["questions"]
    ]
    all_arms = list(dict.fromkeys(run["arm"] for run in plan["runs"]))
    table = make_table(arms, plan["baseline"], plan.get("numbers", [ACCURACY]), questions, all_arms)
    table |= {"runs": [run["name"] for run in done], "code": _by_code(done, runs)} | _planned(plan["runs"])
    table["missing"] = [run["name"] for run in plan["runs"] if run not in done]
    replace_text(sweep_dir / "table.json", json.dumps(table, indent=2) + "\n")
    replace_text(sweep_dir / "table.csv", to_csv(table))
    page = out or sweep_dir / "table.md"
    picture = page.with_suffix(".png")
    shown = picture.name if picture.is_file() else None
    replace_text(page, to_markdown(table, plan["title"], plan["command"], shown))
    print_table(table)
    replace_text(sweep_dir / "report.html", render(runs, {"Answers": answers(table)}))
    print(f"{len(done)} of {len(plan['runs'])} runs; table.json, table.csv and report.html are in {sweep_dir}")
    return table


def _by_code(done: Sequence[dict[str, Any]], runs: Sequence[Run]) -> dict[str, list[str]]:
    """The names of the runs by the digests of their sources, shortened; a run resumed with others has several."""
    found: dict[str, list[str]] = {}
    for planned, run in zip(done, runs, strict=True):
        digests = [digest[:_DIGEST_SHOWN] for digest in run.versions.get(SOURCES, "not recorded").split(", ")]
        found.setdefault(", ".join(digests), []).append(planned["name"])
    return found


def _planned(runs: Sequence[dict[str, Any]]) -> dict[str, str]:
    """``planned``: arms and seeds asked for before a run had started; ``added``: those that came later."""
    first, later = ([run for run in runs if run.get("added", False) is added] for added in (False, True))
    names = {key: list(dict.fromkeys(run[key] for run in first)) for key in ("arm", "seed")}
    new = {key: list(dict.fromkeys(run[key] for run in later if run[key] not in names[key])) for key in names}
    told = {"planned": _words(names), "added": _words(new)}
    if later and not told["added"]:  # of arms and seeds that other runs had already
        told["added"] = ", ".join(run["name"] for run in later)
    return told


def _words(held: dict[str, list[Any]]) -> str:
    return "; ".join(f"{key}s {', '.join(map(str, values))}" for key, values in held.items() if values)
