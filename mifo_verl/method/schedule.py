"""RL or SFT next? (MIFO section 3: an RL phase has no fixed length, it ends when |B| >= S.)

A schedule is asked after every RL step, with the buffer as it is then, and before every step, when the buffer of a
new interval may be empty. SFT before any RL step of an interval takes its prompts from the data set.
"""

from dataclasses import dataclass
from typing import Protocol

from mifo_verl.registry import Registry
from mifo_verl.types import Phase, Progress, require_count


class Schedule(Protocol):
    """The phase that comes next."""

    def __call__(self, progress: Progress, buffer_size: int) -> Phase: ...


SCHEDULES: Registry[Schedule] = Registry("mifo/schedule")


@SCHEDULES.register("when_full")
@dataclass(frozen=True)
class WhenFull:
    """SFT as soon as the buffer holds S prompts (MIFO; S = 64)."""

    size: int = 64

    def __post_init__(self) -> None:
        require_count("size", self.size, "use mifo/schedule=never for RL alone")

    def __call__(self, progress: Progress, buffer_size: int) -> Phase:
        # what a phase left over may fill the buffer, but an interval has an RL phase, whose changes make its mask
        return Phase.SFT if progress.rl_steps >= 1 and buffer_size >= self.size else Phase.RL


@SCHEDULES.register("every")
@dataclass(frozen=True)
class Every:
    """SFT after each ``rl_steps`` RL steps, once the buffer holds ``min_size`` prompts."""

    rl_steps: int
    min_size: int = 1

    def __post_init__(self) -> None:
        require_count("rl_steps", self.rl_steps, "use mifo/schedule=always for SFT alone")
        require_count("min_size", self.min_size, "an SFT phase needs a prompt")

    def __call__(self, progress: Progress, buffer_size: int) -> Phase:
        due = progress.rl_steps >= self.rl_steps and buffer_size >= self.min_size
        return Phase.SFT if due else Phase.RL


@SCHEDULES.register("never")
@dataclass(frozen=True)
class Never:
    """RL alone."""

    def __call__(self, progress: Progress, buffer_size: int) -> Phase:
        return Phase.RL


@SCHEDULES.register("always")
@dataclass(frozen=True)
class Always:
    """SFT alone: every step trains on the data set's own demonstrations, without rollouts."""

    def __call__(self, progress: Progress, buffer_size: int) -> Phase:
        return Phase.SFT


@SCHEDULES.register("sft_then_rl")
@dataclass(frozen=True)
class SftThenRl:
    """SFT for the first ``sft_steps`` steps, then RL alone: the classic two-stage recipe."""

    sft_steps: int

    def __post_init__(self) -> None:
        require_count("sft_steps", self.sft_steps, "use mifo/schedule=never for RL alone")

    def __call__(self, progress: Progress, buffer_size: int) -> Phase:
        return Phase.SFT if progress.step < self.sft_steps else Phase.RL
