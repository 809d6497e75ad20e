"""A stage's seconds are its own; what is in no stage belongs to the outermost one."""

from types import SimpleNamespace

import pytest

from mifo_verl.run import watchdog as module
from mifo_verl.run.watchdog import Stages
from mifo_verl.settings import WatchdogConfig


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""

    class Clock:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def test_the_seconds_of_a_stage_are_those_outside_of_the_stages_inside_it(clock):
    stages = Stages()
    with stages.stage("SFT phase"):
        clock.now += 3
        with stages.stage("probe"):
            clock.now += 10
            with stages.stage("rollout"):
                clock.now += 20
            assert stages.current().name == "probe" and stages.current().own(clock.now) == 10
        assert stages.current().name == "SFT phase" and stages.current().own(clock.now) == 3
        clock.now += 1
    assert [stages.usual(name) for name in ("SFT phase", "probe", "rollout")] == [4, 10, 20]
    assert stages.current() is None and stages.usual("validation") is None


def test_what_is_in_no_stage_is_the_rest_of_its_step(clock):
    stages = Stages()
    stages.begins("start-up")
    clock.now += 7
    assert stages.current().name == "start-up"
    for rest in (2, 4, 6):
        stages.step_begins()
        with stages.stage("rollout"):
            clock.now += 50
        clock.now += rest
        assert stages.current().name == "the rest of the step" and stages.current().own(clock.now) == rest
    stages.begins("the end")
    assert stages.usual("start-up") == 7 and stages.usual("the rest of the step") == 4
    assert stages.usual_step() == 53  # 52 and 54 have ended
    assert stages.current().own(clock.now) == 0


def test_a_stage_that_raises_has_ended(clock):
    stages = Stages()
    stages.begins("start-up")
    with pytest.raises(OSError), stages.stage("validation"):
        clock.now += 5
        raise OSError
    assert stages.current().name == "start-up" and stages.usual("validation") == 5


def test_what_was_told_of_a_stage_is_told_again_by_its_own_seconds_alone(clock):
    stages = Stages()
    with stages.stage("SFT phase"):
        stages.current().reported = 40.0
        with stages.stage("probe"):
            assert stages.current().reported == 0
        assert stages.current().reported == 40.0


def test_the_usual_time_is_that_of_the_newest_ends_and_the_sums_are_of_all(clock):
    stages = Stages()
    for seconds in [1.0] * 200 + [5.0] * 60:
        with stages.stage("rollout"):
            clock.now += seconds
    assert stages.usual("rollout") == 5.0 and stages.seconds["rollout"] == 500.0


def test_a_first_stage_that_gets_on_is_not_late_and_one_that_stands_still_is(clock, monkeypatch):
    monkeypatch.setattr(module.threading, "Thread", lambda **_: SimpleNamespace(start=lambda: None))
    said, shown, done = [], [], [0]
    dog = module.Watchdog(
        WatchdogConfig(first_seconds=600, limit_seconds=36000),
        lambda *event: said.append(event),
        done=lambda stage: f"{done[0]} of 16 prompts" if stage == "rollout" else "",
        show=lambda text, since: shown.append(text),
    )
    clock.time = lambda: 0.0
    dog.begins("start-up: actor and reference")
    with dog.stage("rollout"):
        for _ in range(8):
            clock.now += 500
            done[0] += 1
            dog._tick(clock.now)
        assert said == [] and shown[-1] == "rollout, 8 of 16 prompts"
        clock.now += 601
        dog._tick(clock.now)
    assert [kind for kind, _ in said] == ["late"]


@pytest.mark.parametrize(
    ("settings", "late_after", "ends_after"),
    [
        ({}, (50.0, 250.0), 400.0),
        ({"factor": 3.0}, (50.0, 350.0), 400.0),
        ({"floor_seconds": 300.0}, (350.0, 350.0), 400.0),
        ({"first_seconds": 150.0}, (200.0, 250.0), 400.0),
        ({"limit_seconds": 320.0}, (50.0, 250.0), 350.0),
    ],
    ids=str,
)
def test_each_patience_says_when_a_stage_is_late(clock, monkeypatch, settings, late_after, ends_after):
    """A stage that has not ended yet, and one that usually takes 100 s, looked at every 50 s."""
    monkeypatch.setattr(module.threading, "Thread", lambda **_: SimpleNamespace(start=lambda: None))
    clock.time = lambda: 0.0
    patience = {"factor": 2.0, "floor_seconds": 30.0, "first_seconds": 40.0, "limit_seconds": 380.0} | settings

    def watched(usual: float | None) -> tuple[float, float]:
        said: list[tuple[str, float]] = []
        began = clock.now
        dog = module.Watchdog(WatchdogConfig(**patience), lambda kind, _: said.append((kind, clock.now - began)))
        if usual is not None:
            with dog.stage("rollout"):
                clock.now += usual
        began = clock.now
        with dog.stage("rollout"):
            while dog.failure is None:
                clock.now += 50
                dog._tick(clock.now)
        return dict(reversed(said))["late"], dict(said)["failed"]

    (first, ends), (usual, ends_too) = watched(None), watched(100.0)
    assert ((first, usual), ends, ends_too) == (late_after, ends_after, ends_after)
