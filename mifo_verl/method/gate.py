"""What becomes of a question once its rollouts are scored? Hard prompts: acc(q) <= p.

MIFO section 3, step 2; the text's <=, not the pseudocode's <.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from mifo_verl.errors import exact_share, require_whole
from mifo_verl.method.part import Part
from mifo_verl.method.registry import Registry
from mifo_verl.types import Problem, PromptGroup, RunFacts, Share, Use


class Gate(Part):
    """``gate(group) -> Use``: for RL, SFT later, SFT now, or several of them, from integer counts alone."""

    def __call__(self, group: PromptGroup) -> Use:
        raise NotImplementedError

    trains_now: bool = False
    """Whether a question's demonstration may count in this step's update (``Use.SFT_NOW``)."""

    def expected_share(self, hard_share: float) -> float:
        """The share of the questions whose demonstration it takes, if ``hard_share`` of them are hard."""
        return hard_share

    def accepts(self, num_correct: int, num_rollouts: int) -> bool:
        """Whether a question with these rollouts may be trained on by its demonstration: what a ledger promises."""
        use = self(PromptGroup("", num_correct, num_rollouts, step=0))
        return bool(use & (Use.SFT_LATER | Use.SFT_NOW))


GATES: Registry[Gate] = Registry("mifo/gate", Gate)


@GATES.register("max_accuracy")
@dataclass(frozen=True)
class MaxAccuracy(Gate):
    """num_correct / num_rollouts <= p, compared as integers. p = 0 is ReLIFT's rule: no rollout is correct."""

    max_accuracy: Share = "1/8"

    def __post_init__(self) -> None:
        exact_share("max_accuracy", self.max_accuracy)

    def __call__(self, group: PromptGroup) -> Use:
        p = exact_share("max_accuracy", self.max_accuracy)
        is_hard = group.num_correct * p.denominator <= p.numerator * group.num_rollouts
        return Use.RL | Use.SFT_LATER if is_hard else Use.RL

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        p, num_rollouts = exact_share("max_accuracy", self.max_accuracy), facts.num_rollouts
        if facts.has_sft_phases and 0 < p * num_rollouts < 1:
            rule = f"is below one rollout of {num_rollouts} and acts as 0: hard is a prompt without any correct rollout"
            yield self.problem("max_accuracy", rule, f"write '1/{num_rollouts}' for one, or 0", is_error=False)
        if facts.has_sft_phases and p == 1:
            yield self.problem(
                "max_accuracy", "takes every prompt for hard", "use mifo/gate=any for that", is_error=False
            )

    def describe(self) -> str:
        return f"prompts of which at most {self.max_accuracy} of the rollouts are correct"


@GATES.register("any")
@dataclass(frozen=True)
class AnyPrompt(Gate):
    """Every prompt, whatever its accuracy."""

    def __call__(self, group: PromptGroup) -> Use:
        return Use.RL | Use.SFT_LATER

    def expected_share(self, hard_share: float) -> float:
        return 1.0

    def describe(self) -> str:
        return "every prompt"


@GATES.register("now")
@dataclass(frozen=True)
class Now(Gate):
    """Every question's rollouts and its demonstration, in the same update (CHORD, SRFT)."""

    trains_now = True

    def __call__(self, group: PromptGroup) -> Use:
        return Use.RL | Use.SFT_NOW

    def expected_share(self, hard_share: float) -> float:
        return 1.0

    def describe(self) -> str:
        return "every question, beside its rollouts"


@GATES.register("random")
@dataclass(frozen=True)
class RandomGate(Gate):
    """A share of the questions of each step, drawn at random: the demonstration instead of the rollouts, now.

    Data mixing, as The Synergy Dilemma has it (arXiv 2507.07562). The draw follows from seed, step and question.
    """

    share: Share = "1/4"
    seed: int = 0

    trains_now = True

    def __post_init__(self) -> None:
        exact_share("share", self.share)
        require_whole("seed", self.seed, "the run's seed is the default")

    def __call__(self, group: PromptGroup) -> Use:
        drawn = random.Random(f"{self.seed}/gate/{group.step}/{group.prompt_id}").random()
        return Use.SFT_NOW if drawn < exact_share("share", self.share) else Use.RL

    def expected_share(self, hard_share: float) -> float:
        return float(exact_share("share", self.share))

    def accepts(self, num_correct: int, num_rollouts: int) -> bool:
        return exact_share("share", self.share) > 0

    def describe(self) -> str:
        return f"SFT instead of RL on {self.share} of the questions, drawn at random"


@GATES.register("hpt")
@dataclass(frozen=True)
class Hpt(Gate):
    """acc(q) <= gamma: the demonstration instead of the rollouts, now; else the rollouts (HPT, arXiv 2509.04419).

    Compared as integers. gamma = 0 for Qwen, 2/8 for Llama; a negative one leaves every question to RL.
    """

    threshold: Share = 0

    trains_now = True

    def __post_init__(self) -> None:
        threshold = str(self.threshold).removeprefix("-")  # below 0 is allowed, and is RL
        exact_share("threshold", threshold)

    def __call__(self, group: PromptGroup) -> Use:
        gamma = Fraction(str(self.threshold))
        is_gated = group.num_correct * gamma.denominator <= gamma.numerator * group.num_rollouts
        return Use.SFT_NOW if is_gated else Use.RL

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if facts.filters_groups:
            rule = "without algorithm.filter_groups, which discards the questions that nobody solves before the gate"
            yield self.problem("threshold", rule, "choose rl=dr_grpo")

    def describe(self) -> str:
        return f"SFT instead of RL on questions of which at most {self.threshold} of the rollouts are correct"
