"""Which rollouts of a question begin with tokens of its demonstration, and with how many.

A plan gives every session (0 .. n-1) of a question a share of the demonstration: 0 is a rollout as ever, 1 is the
demonstration itself, to which nothing is sampled. A question without a verified demonstration has rollouts alone.
"""

import random as random_numbers
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import cos, pi

from mifo_verl.errors import exact_share, require, require_count, require_whole
from mifo_verl.method.part import Part
from mifo_verl.method.registry import Registry
from mifo_verl.types import Problem, Progress, RunFacts, Share


class Prefix(Part):
    """``prefix(session, n, progress, seed) -> Fraction``: the share of the demonstration that a session begins with.

    In [0, 1]. ``seed`` is the session's own, so that a plan keeps no state and a resumed run draws what it would have.
    """

    members: int = 0
    """The sessions of a question that may begin with given tokens."""
    is_whole: bool = False
    """Whether a session that begins with given tokens has no others."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"demonstrations"})

    def __call__(self, session: int, n: int, progress: Progress, seed: int) -> Fraction:
        raise NotImplementedError

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        """What verl computes of tokens that nobody sampled has to be none."""
        setting = self.setting("name")
        if self.members >= facts.num_rollouts:
            rule = f"below the {facts.num_rollouts} rollouts of a question, of which some are the policy's own"
            yield self.problem("members", rule, "write a smaller number, or a larger actor_rollout_ref.rollout.n")
        if facts.corrects_rollouts:
            rule = "none under algorithm.rollout_correction: no server has log-probabilities of given tokens"
            yield Problem(setting, self.name, rule, "remove algorithm.rollout_correction")
        if facts.has_critic:
            rule = "none beside a critic, whose values would be of rollouts that the policy has not made"
            yield Problem(setting, self.name, rule, "choose rl=dr_grpo or rl=grpo")
        if facts.algorithm.startswith("reinforce_plus_plus"):
            rule = f"none under {facts.algorithm}, which whitens advantages over the given tokens too"
            yield Problem(setting, self.name, rule, "choose rl=dr_grpo or rl=grpo")
        if facts.loss_aggregation == "seq-mean-token-mean" and not self.is_whole:
            rule = "whole demonstrations under loss_agg_mode=seq-mean-token-mean: two parts have two lengths"
            yield Problem(setting, self.name, rule, "choose rl=dr_grpo, or mifo/prefix=whole")


PREFIXES: Registry[Prefix] = Registry("mifo/prefix", Prefix)


def num_tokens(share: Fraction, length: int) -> int:
    """floor(share * length): the tokens of a demonstration of ``length`` that a session begins with."""
    return int(share * length)


@PREFIXES.register("none")
@dataclass(frozen=True)
class NoPrefix(Prefix):
    """Rollouts alone."""

    needs = frozenset()

    def __call__(self, session: int, n: int, progress: Progress, seed: int) -> Fraction:
        return Fraction(0)

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        return ()

    def describe(self) -> str:
        return "the policy's own rollouts"


@PREFIXES.register("whole")
@dataclass(frozen=True)
class Whole(Prefix):
    """The last ``members`` sessions of a question are its demonstration (LUFFY: 1 of 8)."""

    members: int = 1
    is_whole = True

    def __post_init__(self) -> None:
        require_count("members", self.members, "use mifo/prefix=none for rollouts alone")

    def __call__(self, session: int, n: int, progress: Progress, seed: int) -> Fraction:
        return Fraction(1 if session >= n - self.members else 0)

    def describe(self) -> str:
        return f"the demonstration as {self.members} of a question's rollouts"


@PREFIXES.register("random")
@dataclass(frozen=True)
class Random(Prefix):
    """The last ``members`` sessions begin with a random share u ~ U(low, high) (Prefix-RFT, arXiv 2507.01679).

    ``low`` falls from ``high`` to its value over ``decay`` steps by a cosine; 0 leaves the decay out.
    """

    members: int = 1
    low: Share = 0.05
    high: Share = 0.95
    decay: int = 0

    def __post_init__(self) -> None:
        require_count("members", self.members, "use mifo/prefix=none for rollouts alone")
        low, high = exact_share("low", self.low), exact_share("high", self.high)
        require(low <= high, "low", self.low, f"at most high={self.high}", "swap them")
        require_whole("decay", self.decay, "it counts steps, and 0 leaves it out")

    def low_at(self, step: int) -> float:
        """The lower end of the draw after ``step`` finished steps."""
        low, high = float(exact_share("low", self.low)), float(exact_share("high", self.high))
        if step >= self.decay:
            return low
        return low + (high - low) * 0.5 * (1 + cos(pi * step / self.decay))

    def __call__(self, session: int, n: int, progress: Progress, seed: int) -> Fraction:
        if session < n - self.members:
            return Fraction(0)
        high = float(exact_share("high", self.high))
        return Fraction(random_numbers.Random(seed).uniform(self.low_at(progress.step), high))

    def describe(self) -> str:
        return f"{self.members} of a question's rollouts begin with {self.low} to {self.high} of the demonstration"
