"""The kill test counts every kill once, ends whatever the runs do, and adds up over several starts."""

import json
import os
import random
import subprocess
import sys
from collections import Counter

import psutil
import pytest

from tests.faults import __main__ as kills
from tests.faults import points as faults
from tests.faults.__main__ import AT_RANDOM, POINTS, UNPLANNED, Launch, judged, main, planned, run_chain


@pytest.fixture
def runs(monkeypatch):
    """Launches that end as the test says by plan (None: without one), without a run."""

    def ends(outcomes: dict[str | None, list[str]]) -> list[str | None]:
        made: list[str | None] = []

        def launch(folder, plan, chance, is_fork=True) -> Launch:
            made.append(plan)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "summary.json").write_text("{}")
            return Launch(plan, (outcomes[plan] if len(outcomes[plan]) == 1 else outcomes.pop(plan))[0], 1.0)

        monkeypatch.setattr(kills, "launch", launch)
        return made

    monkeypatch.setattr(kills, "trace", lambda folder: {"weights": "same"})
    monkeypatch.setattr(kills, "_commit", lambda: "abc")
    return ends


def rows(out) -> Counter:
    return Counter({(r["point"], r["outcome"]): r["count"] for r in json.loads((out / "table.json").read_text())})


def test_a_run_that_dies_whatever_is_done_ends_the_chain(runs, tmp_path):
    made = runs({"driver": ["died"], None: [UNPLANNED]})
    launches = run_chain(tmp_path / "chain", ["driver", "driver"], random.Random(0))
    assert made == ["driver", "driver", None, None, None]
    found = judged(launches, lambda: pytest.fail("it has no end to compare"))
    assert found == {("driver", "dies always"): 2, ("to the end", UNPLANNED): 3}


def test_a_run_that_hangs_once_and_dies_once_by_itself_is_told_of(runs, tmp_path):
    launches = [Launch("driver", "HUNG", 1), Launch("rank", "died", 1), Launch(None, UNPLANNED, 1)]
    found = judged([*launches, Launch(None, "finished", 1)], lambda: "")
    assert found == {("driver", "HUNG"): 1, ("rank", "bit-identical"): 1, ("to the end", UNPLANNED): 1}
    assert judged([launches[1], Launch(None, "finished", 1)], lambda: "weights") == {("rank", "differs in weights"): 1}


def test_a_point_that_a_whole_run_does_not_come_to_is_counted(runs, tmp_path):
    made = runs({"exit:9": ["finished"], "driver": ["died"], None: ["finished"]})
    assert main(["kills=2", f"out={tmp_path}", "points=exit:9,driver", "seed=0"]) == 1
    assert rows(tmp_path) == {("exit:9", "point not reached"): 1, ("driver", "bit-identical"): 1}
    assert made.count("exit:9") in (1, 2) and made.count("driver") == 1


def test_a_point_that_comes_after_the_end_has_another_chance_in_a_run_from_the_start(runs, tmp_path):
    made = runs({"driver": ["died"], "exit:9": ["finished"], None: ["finished"]})
    plans = ["driver", "exit:9", "driver"]
    run_chain(tmp_path / "chain", plans, random.Random(0))
    assert made == ["driver", "exit:9"] and plans == ["exit:9", "driver"]


def test_a_chain_is_left_alone_after_ten_kills(runs, tmp_path):
    made = runs({"driver": ["died"], None: ["finished"]})
    plans = ["driver"] * 12
    run_chain(tmp_path / "chain", plans, random.Random(0))
    assert made == ["driver"] * 10 + [None] and plans == ["driver"] * 2


def test_half_of_the_kills_are_at_points_and_half_at_random_moments_by_the_seed():
    plans = planned(60, None, random.Random(3))
    at_points = Counter(plan for plan in plans if ":" in plan)
    assert at_points.total() == 30 and at_points.keys() == set(POINTS) and max(at_points.values()) == 2
    assert {plan for plan in plans if ":" not in plan} == set(AT_RANDOM)
    assert plans == planned(60, None, random.Random(3)) != planned(60, None, random.Random(4))
    assert sorted(planned(3, ["rl_update:1", "rank"], random.Random(0)))[1:] in (
        ["rank", "rl_update:1"],
        ["rl_update:1", "rl_update:1"],
    )


def test_other_seeds_add_to_the_table_and_the_same_seed_replaces_its_own(runs, tmp_path, monkeypatch):
    runs({"driver": ["died"], None: ["finished"]})
    for seed in ("0", "1", "1"):
        assert main(["kills=2", f"seed={seed}", f"out={tmp_path}", "points=driver"]) == 0
    monkeypatch.setattr(kills, "_commit", lambda: "def")
    assert main(["kills=3", "seed=1", f"out={tmp_path}", "points=driver"]) == 0
    table = json.loads((tmp_path / "table.json").read_text())
    assert [(row["commit"], row["seed"], row["count"]) for row in table] == [
        ("abc", "0", 2),
        ("abc", "1", 2),
        ("def", "1", 3),
    ]
    assert {path.name for path in tmp_path.glob("never_killed_*")} == {"never_killed_abc", "never_killed_def"}


def test_every_place_is_wrapped_when_its_module_is_loaded_in_a_process_of_a_run():
    code = (
        "import functools, importlib, mifo_verl.cpu.rollout; from tests.faults.points import PLACES; "
        "of = lambda name, path: functools.reduce(getattr, path.split('.'), importlib.import_module(name)); "
        "print([p for n, paths in PLACES.items() for p in paths if not hasattr(of(n, p), '__wrapped__')])"
    )
    told = os.environ | faults.environment()
    done = subprocess.run([sys.executable, "-c", code], env=told, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr[-2000:]


def test_one_of_several_processes_of_a_role_is_killed_by_number_and_the_plan_names_it():
    assert kills._with("reward:40::STOP", 7) == "reward:40::STOP:7"
    assert kills._with("rl_update:1", 7) == "rl_update:1:::7"
    code = "import time; time.sleep(100)"
    started = [subprocess.Popen([sys.executable, "-c", code, "ray::WorkerDict"]) for _ in range(3)]
    try:
        pids = sorted(process.pid for process in started)
        while len([p for p in psutil.Process().children() if "ray::WorkerDict" in p.cmdline()]) < 3:
            pass
        assert faults.kill(os.getpid(), "rank", which=4)
        killed = next(process for process in started if process.pid == pids[1])
        assert killed.wait(10) == -9
        assert [process.poll() for process in started if process is not killed] == [None, None]
    finally:
        for process in started:
            process.kill()
            process.wait()
