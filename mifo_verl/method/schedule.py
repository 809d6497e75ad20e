"""When is SFT's turn? (MIFO section 3: an RL phase has no fixed length, it ends when |B| >= S.)

A schedule is asked after every RL step, with the buffer as it is then, and before every step, when the buffer of a
new interval may be empty. SFT before any RL step of an interval takes its prompts from the data set.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from mifo_verl.errors import require_count
from mifo_verl.method.part import Part
from mifo_verl.method.registry import Registry
from mifo_verl.types import Phase, Problem, Progress, RunFacts


@dataclass(frozen=True)
class ExpectedPhases:
    """The phases of a whole run, foretold."""

    rl_steps: float
    sft_phases: float
    demonstrations: int
    """Of an SFT phase."""


class Schedule(Part):
    """``schedule(progress, buffer_size) -> Phase``: the phase that comes next."""

    def __call__(self, progress: Progress, buffer_size: int) -> Phase:
        raise NotImplementedError

    @property
    def has_sft_phases(self) -> bool:
        """Whether an SFT phase ever comes."""
        return True

    @property
    def starts_with_sft(self) -> bool:
        """Whether an interval may begin with SFT, which then takes its prompts from the data set."""
        return self(Progress(step=0, interval=1, rl_steps=0), buffer_size=0) is Phase.SFT

    @property
    def buffer_limit(self) -> int | None:
        """S, the size at which the buffer is full; None if the schedule knows no such size."""
        return None

    sft_stage_is_run: bool = False
    """Whether SFT's stage is the whole run (``sft_share``), and a rate spread over it depends on its length."""

    def num_rl_steps(self, steps: int) -> int:
        """Steps of ``steps`` that are RL steps: what the RL phase's learning-rate schedule is spread over."""
        return steps

    def sft_share(self, progress: Progress, within: float) -> float:
        """The share of SFT's stage that is over at this share of a phase; a phase is a stage by itself.

        The learning rate of SFT is spread over a stage, as that of RL is over ``num_rl_steps``.
        """
        return within

    def expected(self, facts: RunFacts, hard_share: float) -> ExpectedPhases:
        """The phases to come, if ``hard_share`` of the prompts drawn join the buffer.

        A schedule that foretells nothing is taken to have an SFT phase after every step, on that step's hard prompts.
        """
        return ExpectedPhases(facts.steps, facts.steps, max(1, round(facts.prompts * hard_share)))


SCHEDULES: Registry[Schedule] = Registry("mifo/schedule", Schedule)


@SCHEDULES.register("when_full")
@dataclass(frozen=True)
class WhenFull(Schedule):
    """SFT as soon as the buffer holds S prompts (MIFO; S = 64)."""

    size: int = 64

    def __post_init__(self) -> None:
        require_count("size", self.size, "use mifo/schedule=never for RL alone")

    def __call__(self, progress: Progress, buffer_size: int) -> Phase:
        # what a phase left over may fill the buffer, but an interval has an RL phase, whose changes make its mask
        return Phase.SFT if progress.rl_steps >= 1 and buffer_size >= self.size else Phase.RL

    @property
    def buffer_limit(self) -> int:
        return self.size

    def expected(self, facts: RunFacts, hard_share: float) -> ExpectedPhases:
        phases = facts.steps * min(1, facts.prompts * hard_share / self.size)
        return ExpectedPhases(facts.steps, phases, self.size)

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        drawn = facts.steps * facts.prompts
        if self.size > drawn:
            rule = f"is more than the {drawn} prompts of the whole run: no SFT phase ever comes"
            yield self.problem("size", rule, "make it smaller, or the run longer", is_error=False)
        yield from _more_than_the_demonstrations(self, "size", facts)

    def describe(self) -> str:
        return f"when the buffer holds {self.size} hard prompts"


@SCHEDULES.register("every")
@dataclass(frozen=True)
class Every(Schedule):
    """SFT after each ``rl_steps`` RL steps, once the buffer holds ``min_size`` prompts."""

    rl_steps: int
    min_size: int = 1

    def __post_init__(self) -> None:
        require_count("rl_steps", self.rl_steps, "use mifo/schedule=always for SFT alone")
        require_count("min_size", self.min_size, "an SFT phase needs a prompt")

    def __call__(self, progress: Progress, buffer_size: int) -> Phase:
        due = progress.rl_steps >= self.rl_steps and buffer_size >= self.min_size
        return Phase.SFT if due else Phase.RL

    def expected(self, facts: RunFacts, hard_share: float) -> ExpectedPhases:
        hard = max(self.min_size, round(self.rl_steps * facts.prompts * hard_share))
        return ExpectedPhases(facts.steps, facts.steps / self.rl_steps, hard)

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if self.rl_steps > facts.steps:
            rule = f"is more than the run's {facts.steps} steps: no SFT phase ever comes"
            yield self.problem("rl_steps", rule, "make it smaller, or the run longer", is_error=False)
        yield from _more_than_the_demonstrations(self, "min_size", facts)

    def describe(self) -> str:
        least = f", once the buffer holds {self.min_size} prompts" if self.min_size > 1 else ""
        return f"after every {self.rl_steps} RL steps{least}"


@SCHEDULES.register("never")
@dataclass(frozen=True)
class Never(Schedule):
    """RL alone."""

    def __call__(self, progress: Progress, buffer_size: int) -> Phase:
        return Phase.RL

    @property
    def has_sft_phases(self) -> bool:
        return False

    def expected(self, facts: RunFacts, hard_share: float) -> ExpectedPhases:
        return ExpectedPhases(facts.steps, 0, 0)

    def describe(self) -> str:
        return "never"


@SCHEDULES.register("always")
@dataclass(frozen=True)
class Always(Schedule):
    """SFT alone: every step trains on the data set's own demonstrations, without rollouts."""

    sft_stage_is_run = True

    def __call__(self, progress: Progress, buffer_size: int) -> Phase:
        return Phase.SFT

    def num_rl_steps(self, steps: int) -> int:
        return 0

    def sft_share(self, progress: Progress, within: float) -> float:
        return min(1.0, max((progress.step + within) / progress.steps, progress.spent))

    def expected(self, facts: RunFacts, hard_share: float) -> ExpectedPhases:
        return ExpectedPhases(0, facts.steps, facts.prompts)

    def describe(self) -> str:
        return "in every step, without RL"


@SCHEDULES.register("sft_then_rl")
@dataclass(frozen=True)
class SftThenRl(Schedule):
    """SFT for the first ``sft_steps`` steps, then RL alone: the classic two-stage recipe."""

    sft_steps: int

    def __post_init__(self) -> None:
        require_count("sft_steps", self.sft_steps, "use mifo/schedule=never for RL alone")

    def __call__(self, progress: Progress, buffer_size: int) -> Phase:
        return Phase.SFT if progress.step < self.sft_steps else Phase.RL

    def num_rl_steps(self, steps: int) -> int:
        return max(0, steps - self.sft_steps)

    def sft_share(self, progress: Progress, within: float) -> float:
        return (progress.step + within) / self.sft_steps

    def expected(self, facts: RunFacts, hard_share: float) -> ExpectedPhases:
        return ExpectedPhases(facts.steps - self.sft_steps, self.sft_steps, facts.prompts)

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if self.sft_steps >= facts.steps:
            rule = (
                f"is no less than the run's {facts.steps} steps (trainer.total_training_steps): no RL step ever comes"
            )
            yield self.problem("sft_steps", rule, "make it smaller, or the run longer", is_error=False)

    def describe(self) -> str:
        return f"in the first {self.sft_steps} steps, before any RL"


def _more_than_the_demonstrations(schedule: WhenFull | Every, field: str, facts: RunFacts) -> Iterable[Problem]:
    if facts.demonstrations and getattr(schedule, field) > facts.demonstrations:
        rule = f"at most the {facts.demonstrations} demonstrations of data.train_files"
        yield schedule.problem(field, rule, "make it smaller, or no SFT phase ever comes")
