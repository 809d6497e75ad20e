"""Kill a run again and again, and compare its end with that of a run that was never killed.

``python -m tests.faults kills=100 seed=0 out=runs/faults [points=rl_update:2,driver] [run="method=bridge ..."]``

Half of the kills are at named points, half are of a role at a random moment; with ``points`` all are at those. ``run`` are
further overrides; with others take another ``out``. One chain
is one run folder: it is launched, killed, launched again, and so on, until a launch comes to its end. Its weights,
``metrics.jsonl`` without times, ``ledger.jsonl`` and ``validation.jsonl`` have to be those of the run never killed, byte for byte.

Prints point x outcome and writes it with commit and seed to ``<out>/table.json``, to which runs with other seeds add.
Exit code 1 where a kill of this run has another outcome than ``bit-identical``.
"""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from tests.faults.points import DRIVER, ROLES, kill
from tests.faults.points import environment as with_points
from tests.forks import REPOSITORY, Training

RUN = [
    "experiment=quickstart",
    "trainer.total_training_steps=6",
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "buffer_size=2",
    "mifo.sft.batch_size=1",
    "data.val_max_samples=20",
    *(f"mifo.probe.{name}=4" for name in ("prompts", "solved", "hard", "demonstrations", "rollouts", "kl_rollouts")),
    "trainer.test_freq=2",
    "trainer.save_freq=1",
    "trainer.resume_mode=auto",
    f"reward.custom_reward_function.path={Path(__file__).parent / 'reward.py'}",
    "trainer.logger=[]",
    "mifo.watchdog.stopped_seconds=10",
    "mifo.inspect.rollouts=3",
]
POINTS = [
    "rollout:20",
    "reward:5",
    "reward:40::STOP",
    "rl_update:1",
    "rl_update:2",
    "hard_prompts:1",
    "hard_prompts:2",
    "threshold:1",
    "sft_forward:1",
    "sft_forward:2",
    "sft_forward:1:driver:TERM",
    "mask_release:1",
    "weight_sync:1",
    "weight_sync:3",
    "checkpoint_file:1",
    "checkpoint_file:2",
    "checkpoint_file:3",
    "checkpoint_file:4",
    "checkpoint_commit:1",
    "checkpoint_commit:2",
    "validation:1",
    "exit:1",
]
"""Points of ``tests.faults.points``. What gets STOP is what the watchdog has to find and end; TERM asks for a stop."""

AT_RANDOM = ["driver", *ROLES]
"""Roles, one process of which is killed at a random moment."""

LIMIT_SECONDS = 300
Process = Training | subprocess.Popen[bytes]
KILLS_A_CHAIN = 10
"""After so many a run is left alone until its end."""
UNASKED = 3
"""Launches that a chain may need after its last kill."""
NOT_REACHED = "point not reached"
UNPLANNED = "died, not of its kill"


@dataclass
class Launch:
    """One process of a run: how it was to die, and how it ended."""

    plan: str | None
    outcome: str
    seconds: float


def launch(folder: Path, plan: str | None, chance: random.Random, is_fork: bool = True) -> Launch:
    """Start the run, kill it as planned, and wait until nothing of it is left.

    ``is_fork``: not as a user starts it, but faster.
    """
    which = chance.randrange(1000)
    mark = folder.with_suffix(".reached")
    mark.unlink(missing_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != DRIVER}
    environment |= with_points()
    if plan and ":" in plan:
        environment |= {"MIFO_FAULT": _with(plan, which), "MIFO_FAULT_MARK": str(mark)}
    began = time.monotonic()
    process = (Training if is_fork else _command)([*RUN, f"run_dir={folder}"], folder.with_suffix(".log"), environment)
    if plan and ":" not in plan and _kill_later(process, plan, chance.uniform(20, 60), which):
        mark.touch()
    try:
        code = process.wait(LIMIT_SECONDS)
        outcome = "finished" if code == 0 else "died" if mark.exists() else UNPLANNED
    except subprocess.TimeoutExpired:
        outcome = "HUNG"
    _end_all(process.pid)
    return Launch(plan, outcome, time.monotonic() - began)


def _command(overrides: list[str], log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mifo_verl.train", *overrides]
    with open(log, "a") as said:
        return subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=said, stderr=said, start_new_session=True
        )


def _with(plan: str, which: int) -> str:
    """A plan that also says which process of its role is meant."""
    return ":".join([*(plan + "::").split(":")[:4], str(which)])


def _kill_later(process: Process, role: str, delay: float, which: int) -> bool:
    """Kill a role after so many seconds; where none of it is there yet, as soon as there is. Whether it was."""
    time.sleep(delay)
    while process.poll() is None:
        if kill(process.pid, role, which=which):
            return True
        time.sleep(0.2)
    return False


def _end_all(driver: int) -> None:
    """Wait for the processes of a run to end by themselves; what is left after that is reported and ended."""
    deadline = time.monotonic() + 90
    while left := [p for p in psutil.process_iter() if _is_of_run(p, driver)]:
        if time.monotonic() > deadline:
            print(f"left behind after 90 s: {[_name(p) for p in left]}", flush=True)
            for p in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    p.kill()
            psutil.wait_procs(left, timeout=30)
            return
        time.sleep(0.5)


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:60]
    except psutil.Error:
        return str(process.pid)


def _is_of_run(process: psutil.Process, driver: int) -> bool:
    try:
        return process.pid == driver or process.environ().get(DRIVER) == str(driver)
    except psutil.Error:
        return False


def trace(folder: Path) -> dict[str, Any]:
    """What has to be the same, whatever happened to the run."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": json.loads((folder / "summary.json").read_text())["weights_sha256"],
        "metrics": [{key: value for key, value in line.items() if key != "seconds"} for line in lines],
        **{name: (folder / f"{name}.jsonl").read_text() for name in ("ledger", "validation")},
    }


def difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """The parts that differ, empty where none does."""
    return ", ".join(part for part in expected if found[part] != expected[part])


def run_chain(folder: Path, plans: list[str], chance: random.Random) -> list[Launch]:
    """One run from its first launch to its end, killed as the plans say, which are taken from the front.

    A plan whose point did not come before the end goes back to the front: it has another chance in a run from the start.
    """
    shutil.rmtree(folder, ignore_errors=True)
    launches: list[Launch] = []
    while len([one for one in launches if one.plan is None]) < UNASKED:
        plan = plans.pop(0) if plans and len(launches) < KILLS_A_CHAIN else None
        launches.append(launch(folder, plan, chance))
        last = launches[-1]
        if last.outcome == "finished" and plan and len(launches) == 1:
            last.outcome = NOT_REACHED
        print(f"{folder.name}: {plan or 'to the end'}: {last.outcome}, {last.seconds:.0f} s", flush=True)
        if last.outcome == "finished" and plan:
            plans.insert(0, plan)
        if last.outcome in ("finished", NOT_REACHED):
            break
    return launches


def judged(launches: list[Launch], differs: Callable[[], str]) -> Counter[tuple[str, str]]:
    """How many kills of a chain ended how, by plan; ``differs`` compares its end with that of the run never killed."""
    found: Counter[tuple[str, str]] = Counter()
    ended = launches[-1].outcome in ("finished", NOT_REACHED)
    verdict = "dies always"
    if ended:
        parts = differs()
        verdict = f"differs in {parts}" if parts else "bit-identical"
    for one in launches:
        outcome = verdict if one.outcome == "died" else one.outcome
        if one.outcome == NOT_REACHED and verdict != "bit-identical":
            outcome = verdict
        if one.outcome != "finished":
            found[one.plan or "to the end", outcome] += 1
    return found


def planned(kills: int, points: list[str] | None, chance: random.Random) -> list[str]:
    """What is killed, in an order by chance: every point as often as the others."""
    at_points = kills if points else kills // 2
    order = chance.sample(points or POINTS, len(points or POINTS))
    plans = [order[number % len(order)] for number in range(at_points)]
    plans += [chance.choice(AT_RANDOM) for _ in range(kills - at_points)]
    chance.shuffle(plans)
    return plans


def main(arguments: list[str]) -> int:
    settings = {"kills": "100", "seed": "0", "out": "runs/faults", "points": "", "run": ""}
    settings |= dict(argument.split("=", 1) for argument in arguments)
    RUN.extend(settings["run"].split())
    out, seed, commit = Path(settings["out"]).absolute(), settings["seed"], _commit()
    chance = random.Random(seed)
    expected = trace(never_killed(out))
    plans = planned(int(settings["kills"]), [point for point in settings["points"].split(",") if point], chance)
    before = [row for row in _rows(out) if (row["commit"], row["seed"]) != (commit, seed)]
    table: Counter[tuple[str, str]] = Counter()
    number = 0
    while plans:
        folder = out / f"chain_{seed}_{number}"
        table += judged(run_chain(folder, plans, chance), lambda folder=folder: difference(trace(folder), expected))
        rows = [
            {"point": point, "outcome": outcome, "count": count, "commit": commit, "seed": seed}
            for (point, outcome), count in sorted(table.items())
        ]
        (out / "table.json").write_text(json.dumps(before + rows, indent=1) + "\n")
        _show(before + rows)
        number += 1
    return 0 if {outcome for _, outcome in table} <= {"bit-identical"} else 1


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def never_killed(out: Path) -> Path:
    """The folder of the run that all are compared with, made by this very code."""
    commit = _commit()
    folder = out / f"never_killed_{commit}"
    out.mkdir(parents=True, exist_ok=True)
    if commit == "unknown" or commit.endswith("-dirty"):
        shutil.rmtree(folder, ignore_errors=True)
    if not (folder / "summary.json").exists():
        made = launch(folder, None, random.Random(), is_fork=False)
        assert made.outcome == "finished", "the run that is not killed has failed"
    return folder


def _rows(out: Path) -> list[dict[str, Any]]:
    file = out / "table.json"
    return json.loads(file.read_text()) if file.exists() else []


def _show(rows: list[dict[str, Any]]) -> None:
    table: Counter[tuple[str, str]] = Counter()
    for row in rows:
        table[row["point"], row["outcome"]] += row["count"]
    outcomes = sorted({outcome for _, outcome in table})
    shown = Table("killed at", *outcomes)
    for point in sorted({point for point, _ in table}):
        shown.add_row(point, *(str(table[point, outcome] or "") for outcome in outcomes))
    Console().print(shown)
    print(f"{sum(table.values())} kills, commits {sorted({row['commit'] for row in rows})}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
