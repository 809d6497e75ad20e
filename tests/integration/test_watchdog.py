"""What is late is said with whom it waits for; what has died or takes too long ends the wait with a reason."""

import contextlib
import os
import signal
import threading
import time

import pytest
import ray

from mifo_verl.run import liveness
from mifo_verl.run import watchdog as module
from mifo_verl.run.watchdog import CannotGoOn, Watchdog
from mifo_verl.settings import WatchdogConfig
from mifo_verl.verl import task_runner
from mifo_verl.verl.saving import Stopped
from tests.waiting import wait_until

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@ray.remote(num_cpus=0)
class Actor:
    async def pid(self) -> int:
        return os.getpid()


@ray.remote(num_cpus=0)
class Rank:
    """An actor with one thread, which answers nobody while it works."""

    def pid(self) -> int:
        return os.getpid()

    def work(self, seconds: float, spin: bool) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0 if spin else 0.1)


@pytest.fixture
def watched(monkeypatch):
    """A watchdog over two actors, quick for a test; what it said is in the list."""
    monkeypatch.setattr(liveness, "_PING_SECONDS", 0.4)
    monkeypatch.setattr(module, "_TICK_SECONDS", 0.1)
    monkeypatch.setattr(module, "_LAST_WORDS_SECONDS", 1e9)
    said: list[tuple[str, str]] = []
    made = []

    def make(**settings: float) -> tuple[Watchdog, dict[str, int], list[tuple[str, str]]]:
        actors = {"reward worker 0": Actor.remote(), "rank 1": Rank.remote()}
        pids = {name: ray.get(actor.pid.remote()) for name, actor in actors.items()}
        dog = Watchdog(
            WatchdogConfig(**settings),
            lambda *event: said.append(event),
            lambda stage: "3 prompts: t1, t2, t3" if stage == "rollout" else "",
            lambda: "stacks.txt",
        )
        dog.actors = actors
        dog.watch(actors)
        made.append((dog, pids))
        return dog, pids, said

    yield make
    for dog, pids in made:
        dog.end()
        for pid in pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_a_stage_that_takes_its_usual_time_is_not_reported(watched):
    dog, _, said = watched(factor=2.0, floor_seconds=0.5)
    for _ in range(3):
        with dog.stage("rollout"):
            time.sleep(0.3)
    assert said == [] and dog.failure is None


def test_a_late_stage_names_the_prompts_awaited_and_the_actor_that_does_not_answer(watched):
    dog, pids, said = watched(factor=2.0, floor_seconds=2.0, first_seconds=2.0)
    os.kill(pids["reward worker 0"], signal.SIGSTOP)
    with dog.stage("rollout"):
        wait_until(lambda: said)
    kind, text = said[0]
    assert kind == "late" and text.startswith("LATE: rollout has taken 2 s, its first time")
    assert "waiting for 3 prompts: t1, t2, t3" in text
    assert "busy or stuck: reward worker 0 (" in text and "rank 1" not in text


def test_late_is_measured_against_the_median_of_the_stage_and_told_again_at_twice_the_wait(watched):
    dog, _, said = watched(factor=2.0, floor_seconds=0.8)
    for seconds in (0.5, 0.5, 3.0):
        with dog.stage("RL update"):
            time.sleep(seconds)
    waits = [float(text.split("taken ")[1].split(" s")[0]) for _, text in said]
    assert len(waits) == 2  # over 1 s, then over twice that
    assert all("usually 0 s" in text or "usually 1 s" in text for _, text in said)
    assert "every actor answers" in said[0][1]


def test_a_dead_actor_ends_the_wait_with_its_name(watched):
    dog, pids, said = watched()
    os.kill(pids["rank 1"], signal.SIGKILL)
    wait_until(lambda: dog.failure)
    assert dog.failure.startswith("rank 1 has died") and said[0][0] == "failed"
    with pytest.raises(CannotGoOn, match="rank 1 has died"):
        dog.raise_if_failed()


def test_what_a_dead_actor_left_unfinished_is_not_recorded(watched):
    dog, pids, _ = watched()
    dog.end()
    dog.require_alive()
    os.kill(pids["reward worker 0"], signal.SIGKILL)
    with pytest.raises(CannotGoOn, match="reward worker 0 has died"):
        dog.require_alive()


def test_a_stage_over_its_limit_ends_the_wait_with_what_it_waited_for(watched):
    dog, _, _ = watched(limit_seconds=1.0)
    with dog.stage("validation"):
        wait_until(lambda: dog.failure)
    assert "LATE: validation has taken 1 s" in dog.failure and "mifo.watchdog.limit_seconds is over" in dog.failure


def steps(dog: Watchdog, seconds: float = 1.0) -> None:
    """Let a few steps of so many seconds go by."""
    for _ in range(4):
        dog.step_begins()
        time.sleep(seconds)


def test_a_stopped_actor_is_named_within_two_steps_and_ends_the_run_with_its_name_and_the_stacks(watched):
    dog, pids, said = watched(floor_seconds=1000.0, stopped_seconds=2.0)
    steps(dog)
    assert said == []
    os.kill(pids["reward worker 0"], signal.SIGSTOP)
    stopped = time.monotonic()
    wait_until(lambda: said)
    assert time.monotonic() - stopped < 2.0
    kind, text = said[0]
    assert kind == "stopped" and text.startswith("STOPPED: reward worker 0 has not answered for ")
    assert f"pid {pids['reward worker 0']} on " in text and "in 2 s the run ends" in text
    wait_until(lambda: dog.failure)
    assert dog.failure.startswith("reward worker 0 has not answered")
    assert "mifo.watchdog.stopped_seconds=2 is over" in dog.failure and dog.failure.endswith(
        "all processes: stacks.txt"
    )
    wait_until(lambda: not alive(pids["reward worker 0"]))
    assert alive(pids["rank 1"]) and [kind for kind, _ in said] == ["stopped", "failed"]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_actor_that_is_stopped_and_goes_on_ends_nothing(watched):
    dog, pids, said = watched(stopped_seconds=3.0)
    steps(dog)
    os.kill(pids["rank 1"], signal.SIGSTOP)
    wait_until(lambda: said)
    os.kill(pids["rank 1"], signal.SIGCONT)
    wait_until(lambda: len(said) == 2)
    time.sleep(4)
    assert [kind for kind, _ in said] == ["stopped", "answers"] and dog.failure is None


@pytest.mark.parametrize("spin", [True, False])
def test_an_actor_that_works_or_waits_through_many_steps_is_named_and_never_ended(watched, spin):
    dog, _, said = watched(stopped_seconds=0.5)
    steps(dog, 0.5)
    done = dog.actors["rank 1"].work.remote(6.0, spin)
    ray.get(done)
    wait_until(lambda: said and said[-1][0] == "answers")
    assert dog.failure is None and {kind for kind, _ in said} == {"silent", "answers"}
    assert said[0][1].startswith("SILENT: rank 1 has not answered for ") and "s of CPU" in said[0][1]
    assert ("sleeping" in said[0][1]) or spin


def test_a_first_stage_has_a_time_of_its_own_before_it_is_late(watched):
    dog, _, said = watched(floor_seconds=0.5, first_seconds=2.0)
    with dog.stage("start-up"):
        time.sleep(1.5)
        assert said == []
        wait_until(lambda: said)
    assert said[0][1] == "LATE: start-up has taken 2 s, its first time; every actor answers"


def test_while_a_run_starts_it_says_what_ray_has_free():
    from mifo_verl.verl.watched import waiting_for

    assert waiting_for(None, "start-up: critic") == "what Ray has: 4 of 4 CPU, 0 of 0 GPU free"
    assert waiting_for(None, "weight sync") == ""


@pytest.fixture
def full():
    """A cluster that has no CPU left; the signals are as they were afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    actor = ray.remote(num_cpus=4)(Rank.__ray_metadata__.modified_class).remote()
    ray.get(actor.pid.remote())
    yield
    ray.kill(actor)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_controller_that_ray_has_no_place_for_is_reported_and_ends_the_wait(full, monkeypatch):
    monkeypatch.setattr(task_runner, "_POLL_SECONDS", 0.1)
    said: list[tuple[str, str]] = []
    start = task_runner.TaskRunnerStart(
        WatchdogConfig(floor_seconds=0.4, limit_seconds=1.5), lambda *event: said.append(event)
    )
    with pytest.raises(task_runner.NotStarted, match=r"limit_seconds=1\.5 is over") as raised:
        start.remote()
    ray.kill(start.runner)
    assert not start.ended_on_request(raised.value)
    assert [kind for kind, _ in said] == ["late", "late"]  # after 0.4 s, then after twice that
    assert said[0][1] == "LATE: the controller has not started for 0 s; Ray has 0 of 4 CPU, 0 of 0 GPU free"


def test_a_run_that_is_stopped_while_its_controller_has_no_place_ends_at_once(full, monkeypatch):
    monkeypatch.setattr(task_runner, "_POLL_SECONDS", 0.1)
    start = task_runner.TaskRunnerStart(WatchdogConfig(), lambda *_: None)
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(Stopped) as raised:
        start.remote()
    ray.kill(start.runner)
    assert start.ended_on_request(raised.value)
