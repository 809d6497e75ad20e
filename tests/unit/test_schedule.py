"""RL or SFT next: method.md part 1 steps 2 and 6."""

import pytest

from mifo_verl.method.schedule import SCHEDULES, Always, Every, Never, SftThenRl, WhenFull
from mifo_verl.types import Phase, Progress

RL, SFT = Phase.RL, Phase.SFT


def at(step: int = 5, interval: int = 1, rl_steps: int = 5) -> Progress:
    return Progress(step, interval, rl_steps)


@pytest.mark.parametrize(("buffer_size", "phase"), [(0, RL), (63, RL), (64, SFT), (65, SFT), (1000, SFT)])
def test_when_full_is_sft_from_exactly_64_prompts(buffer_size, phase):
    assert WhenFull()(at(), buffer_size) is phase


def test_when_full_has_no_fixed_length():
    assert WhenFull(64)(at(step=10_000, rl_steps=10_000), 63) is RL
    assert WhenFull(1)(at(step=1, rl_steps=1), 1) is SFT


def test_when_full_begins_every_interval_with_rl_even_where_a_surplus_fills_the_buffer():
    assert WhenFull(8)(Progress(step=4, interval=2, rl_steps=0), 20) is RL
    assert WhenFull(8)(Progress(step=5, interval=2, rl_steps=1), 20) is SFT


@pytest.mark.parametrize(("rl_steps", "buffer_size", "phase"), [(2, 9, RL), (3, 9, SFT), (4, 9, SFT), (3, 0, RL)])
def test_every_is_sft_after_rl_steps_of_the_interval_where_the_buffer_is_not_empty(rl_steps, buffer_size, phase):
    assert Every(rl_steps=3)(at(step=100, rl_steps=rl_steps), buffer_size) is phase


def test_every_waits_for_its_smallest_buffer():
    schedule = Every(rl_steps=2, min_size=8)
    assert schedule(at(rl_steps=50), 7) is RL
    assert schedule(at(rl_steps=50), 8) is SFT


def test_never_is_rl_and_always_is_sft():
    assert Never()(at(), 10**6) is RL
    assert Always()(Progress(0, 1, 0), 0) is SFT


@pytest.mark.parametrize(("step", "phase"), [(0, SFT), (9, SFT), (10, RL), (11, RL)])
def test_sft_then_rl_is_sft_for_the_first_steps_alone(step, phase):
    assert SftThenRl(sft_steps=10)(at(step=step), 500) is phase


def test_the_members_are_these():
    assert SCHEDULES.names() == ["always", "every", "never", "sft_then_rl", "when_full"]


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            {"name": "when_full", "size": 0},
            "mifo.schedule.size=0 must be a whole number of at least 1; use mifo/schedule=never for RL alone",
        ),
        (
            {"name": "every", "rl_steps": 0},
            "mifo.schedule.rl_steps=0 must be a whole number of at least 1; use mifo/schedule=always for SFT alone",
        ),
        (
            {"name": "every", "rl_steps": 1, "min_size": 0},
            "mifo.schedule.min_size=0 must be a whole number of at least 1; an SFT phase needs a prompt",
        ),
        (
            {"name": "sft_then_rl", "sft_steps": 0},
            "mifo.schedule.sft_steps=0 must be a whole number of at least 1; use mifo/schedule=never for RL alone",
        ),
        ({"name": "every"}, "mifo.schedule.rl_steps must be set for every; write mifo.schedule.rl_steps=<value>"),
        (
            {"name": "never", "size": 64},
            "mifo.schedule.size=64 must be a setting of never; never takes no setting, "
            "and mifo/schedule=<name> chooses another member",
        ),
    ],
)
def test_a_bad_setting_is_refused_with_its_full_name(node, message):
    with pytest.raises(ValueError) as error:
        SCHEDULES.build(node)
    assert str(error.value) == message
