"""Kill a run again and again, and compare its end with that of a run that was never killed.

``python -m tests.faults kills=100 seed=0 out=runs/faults [points=rl_update:2,driver]``

One chain is one run folder: it is launched, killed at a point or at a random moment, launched again, and so on, until a
launch comes to its end. Its weights, ``metrics.jsonl`` without times and ``ledger.jsonl`` have to be those of the run
never killed, byte for byte. Prints point x outcome and writes it to ``<out>/table.json``; exit code 1 where a chain
differs or hangs.
"""

import contextlib
import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from mifo_verl.bridge.faults import DRIVER, ROLES, kill

REPOSITORY = Path(__file__).parents[2]
RUN = [
    "experiment=quickstart",
    "trainer.total_training_steps=6",
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "buffer_size=2",
    "mifo.sft.batch_size=2",
    "data.val_max_samples=20",
    *(f"mifo.probe.{name}=4" for name in ("prompts", "solved", "hard", "demonstrations", "rollouts", "kl_rollouts")),
    "trainer.test_freq=2",
    "trainer.save_freq=1",
    "trainer.resume_mode=auto",
    f"reward.custom_reward_function.path={Path(__file__).parent / 'reward.py'}",
    "trainer.logger=[]",
    "mifo.watchdog.stopped_seconds=10",
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
    "driver",
    *ROLES,
]
"""A name with a number is a point of ``mifo_verl.bridge.faults``; a name without is a role, killed at a random moment.
What gets STOP and not KILL is what the watchdog has to find and end.
"""

LIMIT_SECONDS = 300


@dataclass
class Launch:
    """One process of a run: how it was to die, and how it ended."""

    plan: str | None
    outcome: str
    seconds: float


def launch(folder: Path, plan: str | None, chance: random.Random) -> Launch:
    """Start the run, kill it as planned, and wait until nothing of it is left."""
    fault = [f"+env.MIFO_FAULT={plan}"] if plan and ":" in plan else []
    command = [sys.executable, "-m", "mifo_verl.train", *RUN, f"run_dir={folder}", *fault]
    began = time.monotonic()
    with open(folder.with_suffix(".log"), "a") as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True)
        if plan and ":" not in plan:
            _kill_later(process, plan, chance.uniform(20, 60))
        try:
            code = process.wait(LIMIT_SECONDS)
            outcome = "finished" if code == 0 else "died"
        except subprocess.TimeoutExpired:
            outcome = "HUNG"
        _end_all(process)
    return Launch(plan, outcome, time.monotonic() - began)


def _kill_later(process: subprocess.Popen[bytes], role: str, delay: float) -> None:
    """Kill a role after so many seconds; where none of it is there yet, as soon as there is."""
    time.sleep(delay)
    while process.poll() is None:
        if kill(process.pid, role):
            return
        time.sleep(0.2)


def _end_all(process: subprocess.Popen[bytes]) -> None:
    """Wait for the processes of a run to end by themselves; what is left after that is reported and ended."""
    deadline = time.monotonic() + 90
    while left := [p for p in psutil.process_iter() if _is_of_run(p, process.pid)]:
        if time.monotonic() > deadline:
            print(f"left behind after 90 s: {[' '.join(p.cmdline())[:60] for p in left]}", flush=True)
            for p in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    p.kill()
        time.sleep(0.5)


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
        "ledger": (folder / "ledger.jsonl").read_text(),
    }


def difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """The parts that differ, empty where none does."""
    return ", ".join(part for part in expected if found[part] != expected[part])


def run_chain(folder: Path, plans: list[str], chance: random.Random) -> list[Launch]:
    """One run from its first launch to its end, killed as the plans say, which are taken from the front."""
    shutil.rmtree(folder, ignore_errors=True)
    launches: list[Launch] = []
    while True:
        plan = plans.pop(0) if plans else None
        launches.append(launch(folder, plan, chance))
        last = launches[-1]
        print(f"{folder.name}: {plan or 'to the end'}: {last.outcome}, {last.seconds:.0f} s", flush=True)
        if last.outcome == "finished":
            if plan and len(launches) > 1:
                plans.append(plan)  # the run ended before its point came; it has another chance in a run from the start
            return launches


def main(arguments: list[str]) -> int:
    settings = {"kills": "100", "seed": "0", "out": "runs/faults", "points": ",".join(POINTS)}
    settings |= dict(argument.split("=", 1) for argument in arguments)
    out = Path(settings["out"]).absolute()
    chance = random.Random(settings["seed"])
    out.mkdir(parents=True, exist_ok=True)
    reference = out / "never_killed"
    if not (reference / "summary.json").exists():
        assert launch(reference, None, chance).outcome == "finished", "the run that is not killed has failed"
    expected = trace(reference)
    points = settings["points"].split(",")
    plans = [points[number % len(points)] for number in range(int(settings["kills"]))]
    chance.shuffle(plans)
    table: Counter[tuple[str, str]] = Counter()
    number = 0
    while plans:
        launches = run_chain(out / f"chain_{number}", plans, chance)
        differs = difference(trace(out / f"chain_{number}"), expected)
        for one in launches[:-1]:
            verdict = f"differs in {differs}" if differs else "bit-identical"
            table[one.plan or "", verdict if one.outcome == "died" else one.outcome] += 1
        _show(table, out)
        number += 1
    return 0 if {outcome for _, outcome in table} <= {"bit-identical"} else 1


def _show(table: Counter[tuple[str, str]], out: Path) -> None:
    outcomes = sorted({outcome for _, outcome in table})
    shown = Table("killed at", *outcomes)
    for point in sorted({point for point, _ in table}):
        shown.add_row(point, *(str(table[point, outcome] or "") for outcome in outcomes))
    Console().print(shown)
    rows = [{"point": point, "outcome": outcome, "count": count} for (point, outcome), count in sorted(table.items())]
    (out / "table.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
