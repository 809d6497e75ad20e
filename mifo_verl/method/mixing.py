"""The weights of the RL and the SFT loss in one update (CHORD, arXiv 2508.11408; SRFT, arXiv 2506.19767).

L = w_rl * L_RL + w_sft * L_SFT. L_SFT is of what the gate takes of this step's questions, or of the data set.
A weight of exactly 0 leaves its loss out, a weight of exactly 1 multiplies nothing: at (1, 0) an update is RL's, to
the bit.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from mifo_verl.errors import is_number, require, require_choice, require_number, require_whole
from mifo_verl.method.part import Part
from mifo_verl.method.registry import Registry
from mifo_verl.types import Problem, Progress, RunFacts

PER = ("demonstration", "question")
DEMONSTRATIONS = ("questions", "dataset")


class Weights(NamedTuple):
    """What multiplies the two losses of an update."""

    rl: float
    sft: float


class Update(Protocol):
    """One update of an engine, as far as a mixing may ask for it. Gradients are of losses: minus those of J.

    What is asked beside ``both_losses`` the mixing has to need: ``trainable_base`` or ``second_policy``.
    """

    def both_losses(self) -> None:
        """The gradients of the weighted sum of both losses, at the policy."""
        ...

    def adapter_gradients(self) -> list[Tensor]:
        """The gradients of the adapter so far, to be written to."""
        ...

    def rl_at_second_policy(self, is_own_anchor: bool) -> list[Tensor]:
        """The adapter's gradient of the RL loss beside the second policy's base weights.

        The gradient that these have from the same pass stays, for their own step in the same update.
        """
        ...

    def rl_one_step_ahead(self, is_own_anchor: bool) -> list[Tensor]:
        """The adapter's gradient of the RL loss beside the base weights that a step of RL alone would give now."""
        ...


class Mixing(Part):
    """``mixing(progress) -> Weights``: the weights at this point of the run."""

    per: str = "demonstration"
    """L_SFT is a mean over the demonstrations of an update, or over the questions of its mini-batch (``question``)."""
    demonstrations: str = "questions"
    """Which demonstrations L_SFT trains on: those that the gate takes of the step's ``questions``, or as many as the
    step has questions from a stream of its own over the ``dataset``."""
    adapter_lr: float | None = None
    """The learning rate of the LoRA adapter beside trainable base weights; theirs if None."""
    offload: bool = False
    """Whether a second policy waits in host memory."""

    def __call__(self, progress: Progress) -> Weights:
        raise NotImplementedError

    def gradients(self, update: Update, rl_weight: float) -> None:
        """Ask the engine for the gradients of one update, in which the RL loss has this weight."""
        update.both_losses()

    @property
    def extra_trainings(self) -> int:
        """Passes with gradient over a step's rollouts, beside those of RL; none in a step of weight 0 of RL."""
        return 0

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        """A second loss needs demonstrations in RL steps, and no SFT phase beside it."""
        setting = self.setting("name")
        if not facts.trains_now:
            rule = "beside a gate that trains on demonstrations in RL steps, and mifo.gate has none for them"
            yield Problem(setting, self.name, rule, "choose mifo/gate=now or mifo/gate=hpt, or mifo/mixing=none")
        if facts.has_sft_phases:
            rule = "the only place of the SFT loss, and mifo.schedule has SFT phases"
            yield Problem(setting, self.name, rule, "choose mifo/schedule=never, or mifo/mixing=none")


MIXINGS: Registry[Mixing] = Registry("mifo/mixing", Mixing)


@MIXINGS.register("none")
@dataclass(frozen=True)
class NoMixing(Mixing):
    """RL alone in every RL step."""

    def __call__(self, progress: Progress) -> Weights:
        return Weights(rl=1.0, sft=0.0)

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if facts.trains_now:
            rule = "a mixing with a weight for SFT, since mifo.gate trains on demonstrations in RL steps"
            yield Problem(self.setting("name"), self.name, rule, "choose mifo/mixing=constant or chord")

    def describe(self) -> str:
        return "one loss an update"


@MIXINGS.register("constant")
@dataclass(frozen=True)
class Constant(Mixing):
    """The same weights in every step: HPT (1, 1, per question), SRFT (1, 1)."""

    sft: float = 1.0
    rl: float = 1.0
    per: str = "demonstration"

    def __post_init__(self) -> None:
        require_number("sft", self.sft, 0, "0 leaves this loss out")
        require_number("rl", self.rl, 0, "0 leaves this loss out")
        require_choice("per", self.per, PER)

    def __call__(self, progress: Progress) -> Weights:
        return Weights(rl=float(self.rl), sft=float(self.sft))

    def describe(self) -> str:
        return f"{self.rl:g} RL + {self.sft:g} SFT in every update"


@MIXINGS.register("chord")
@dataclass(frozen=True)
class Chord(Mixing):
    """(1 - mu, mu): mu rises from 0 to ``peak`` over ``warmup`` steps, then falls to ``valley`` by a cosine.

    CHORD-mu: warmup 0, decay 200, peak 0.9, valley 0.05. CHORD-phi: peak = valley = 0.1. The paper's demonstrations
    come from a stream of their own: ``demonstrations=dataset``.
    """

    warmup: int = 0
    decay: int = 200
    peak: float = 0.9
    valley: float = 0.05
    per: str = "demonstration"
    demonstrations: str = "questions"

    def __post_init__(self) -> None:
        for name in ("warmup", "decay"):
            require_whole(name, getattr(self, name), "it counts steps, and 0 leaves it out")
        for name in ("peak", "valley"):
            value = getattr(self, name)
            require(is_number(value) and 0 <= value <= 1, name, value, "in [0, 1]", "mu is the share of the SFT loss")
        require_choice("per", self.per, PER)
        require_choice("demonstrations", self.demonstrations, DEMONSTRATIONS)

    def __call__(self, progress: Progress) -> Weights:
        mu = self.mu(progress.step)
        return Weights(rl=1.0 - mu, sft=mu)

    def mu(self, step: int) -> float:
        """The share of the SFT loss after ``step`` finished steps."""
        if step < self.warmup:
            return step / self.warmup * self.peak
        if step >= self.warmup + self.decay:
            return float(self.valley)
        falls = 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / self.decay))
        return self.valley + (self.peak - self.valley) * falls

    def describe(self) -> str:
        return f"(1 - mu) RL + mu SFT in every update, mu from {self.peak:g} to {self.valley:g}"


@MIXINGS.register("progressive")
@dataclass(frozen=True)
class Progressive(Mixing):
    """(1 - mu, mu), mu constant in each of as many equal parts of the run as ``stages`` has values.

    The progressive recipe of The Synergy Dilemma (arXiv 2507.07562): SFT's share falls from stage to stage.
    """

    stages: Sequence[float] = (0.9, 0.5, 0.1)
    per: str = "demonstration"

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        is_list = bool(self.stages) and all(is_number(mu) and 0 <= mu <= 1 for mu in self.stages)
        require(is_list, "stages", list(self.stages), "a list of numbers in [0, 1]", "each is SFT's weight of a stage")
        require_choice("per", self.per, PER)

    @property
    def follows_length(self) -> bool:
        return len(set(self.stages)) > 1

    def __call__(self, progress: Progress) -> Weights:
        mu = float(self.stages[progress.stage(len(self.stages))])
        return Weights(rl=1.0 - mu, sft=mu)

    def describe(self) -> str:
        return f"(1 - mu) RL + mu SFT in every update, mu {', '.join(f'{mu:g}' for mu in self.stages)} by stage"
