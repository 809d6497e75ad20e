"""What a sweep ends with: table.json, table.csv, table.md and report.html, from the records of its finished runs."""

import json
from pathlib import Path
from typing import Any

from mifo_verl.bridge.compose import ConfigError
from mifo_verl.bridge.records import replace_text
from mifo_verl.report.page import render
from mifo_verl.report.run import load_all
from mifo_verl.sweep.definition import Question
from mifo_verl.sweep.identity import is_finished
from mifo_verl.sweep.numbers import ACCURACY, numbers_of
from mifo_verl.sweep.show import print_table, to_csv, to_markdown
from mifo_verl.sweep.store import read_sweep
from mifo_verl.sweep.table import Values, make_table


def finish(sweep_dir: Path, out: Path | None = None) -> dict[str, Any]:
    """Write and print the table of what is finished; ``out`` is another place for the Markdown. Returns the table.

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
        Question(one["ask"], [(a, b) for a, b in one["pairs"]], one.get("numbers", [ACCURACY]))
        for one in plan["questions"]
    ]
    table = make_table(arms, plan["baseline"], plan.get("numbers", [ACCURACY]), questions)
    table |= {"runs": [run["name"] for run in done]}
    table["missing"] = [run["name"] for run in plan["runs"] if run not in done]
    replace_text(sweep_dir / "table.json", json.dumps(table, indent=2) + "\n")
    replace_text(sweep_dir / "table.csv", to_csv(table))
    replace_text(out or sweep_dir / "table.md", to_markdown(table, plan["title"], plan["command"]))
    replace_text(sweep_dir / "report.html", render(runs))
    print_table(table)
    print(f"{len(done)} of {len(plan['runs'])} runs; table.json, table.csv and report.html are in {sweep_dir}")
    return table
