"""Which rollouts of a question begin with tokens of its demonstration, and with how many.

A plan gives every session (0 .. n-1) of a question a number of tokens: 0 is a rollout as ever, all of them the
demonstration itself, to which nothing is sampled. A question without a verified demonstration has rollouts alone.
"""

import random as random_numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from math import cos, pi

from mifo_verl.errors import exact_share, require, require_choice, require_count, require_whole
from mifo_verl.method.part import Part
from mifo_verl.method.registry import Registry
from mifo_verl.types import Problem, Progress, RunFacts, Share

_REACH = Fraction(3, 10)
"""How far behind a share the end of its step may lie, as a share: TRAPO's code."""


@dataclass(frozen=True)
class Session:
    """One session of a question, with what a plan may know of it."""

    number: int
    n: int
    """Sessions of the question."""
    length: int
    """Tokens of its demonstration, the end token among them."""
    step_ends: tuple[int, ...]
    """Tokens up to the end of each of its steps (lines); the last is ``length``."""
    progress: Progress
    seed: int
    """The question's own, the same for all its sessions: a plan keeps no state, so a resumed run draws the same."""

    def cut(self, share: Fraction, by: str = "token") -> int:
        """floor(share * length); by ``step``, the end of the step in which the share lies, if that is near."""
        if by == "step" and share:
            end = next(end for end in self.step_ends if end >= share * self.length)
            if end <= (share + _REACH) * self.length:
                return end
        return int(share * self.length)


class Prefix(Part):
    """``prefix(session, num_correct) -> int``: the tokens of the demonstration that a session begins with.

    ``num_correct`` counts the correct ones of the sessions that it ``waits_for``; one that has failed is not correct.
    """

    is_whole: bool = False
    """Whether a session that begins with given tokens has no others."""

    def __call__(self, session: Session, num_correct: int) -> int:
        raise NotImplementedError

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"demonstrations"})

    def num_members(self, n: int) -> int:
        """The sessions of a question, of ``n``, that may begin with given tokens."""
        return n

    def waits_for(self, number: int, n: int) -> int:
        """How many sessions, from the first on, have to be scored before this one begins."""
        return 0

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        """What verl computes of tokens that nobody sampled has to be none."""
        setting = self.setting("name")
        if facts.corrects_rollouts:
            rule = "none under algorithm.rollout_correction: no server has log-probabilities of given tokens"
            yield Problem(setting, self.name, rule, "remove algorithm.rollout_correction")
        if facts.colocates_rewards:
            rule = "none beside a reward model on the rollout's own devices, which scores when all rollouts are made"
            cure = "give it its own with reward.reward_model.enable_resource_pool=true"
            yield Problem(setting, self.name, rule, cure)
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


@PREFIXES.register("none")
@dataclass(frozen=True)
class NoPrefix(Prefix):
    """Rollouts alone."""

    needs = frozenset()

    def __call__(self, session: Session, num_correct: int) -> int:
        return 0

    def num_members(self, n: int) -> int:
        return 0

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        return ()

    def describe(self) -> str:
        return "the policy's own rollouts"


class OfTheLast(Prefix):
    """A plan for the last ``members`` sessions of a question; the others are rollouts as ever."""

    members: int

    def __post_init__(self) -> None:
        require_count("members", self.members, "use mifo/prefix=none for rollouts alone")

    def __call__(self, session: Session, num_correct: int) -> int:
        return self.of_member(session) if session.number >= session.n - self.members else 0

    def of_member(self, session: Session) -> int:
        """The tokens of one of the last sessions."""
        raise NotImplementedError

    def num_members(self, n: int) -> int:
        return min(self.members, n)

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if self.members >= facts.num_rollouts:
            rule = f"below the {facts.num_rollouts} rollouts of a question, of which some are the policy's own"
            yield self.problem("members", rule, "write a smaller number, or a larger actor_rollout_ref.rollout.n")
        yield from super().problems(facts)


@PREFIXES.register("whole")
@dataclass(frozen=True)
class Whole(OfTheLast):
    """The last ``members`` sessions of a question are its demonstration (LUFFY: 1 of 8)."""

    members: int = 1
    is_whole = True

    def of_member(self, session: Session) -> int:
        return session.length

    def describe(self) -> str:
        return f"the demonstration as {self.members} of a question's rollouts"


@PREFIXES.register("random")
@dataclass(frozen=True)
class Random(OfTheLast):
    """The last ``members`` sessions begin with a random share u ~ U(low, high) (Prefix-RFT, arXiv 2507.01679).

    ``low`` falls from ``high`` to its value over ``decay`` steps by a cosine; 0 leaves the decay out.
    """

    members: int = 1
    low: Share = 0.05
    high: Share = 0.95
    decay: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = exact_share("low", self.low), exact_share("high", self.high)
        require(low <= high, "low", self.low, f"at most high={self.high}", "swap them")
        require_whole("decay", self.decay, "it counts steps, and 0 leaves it out")

    def low_at(self, step: int) -> float:
        """The lower end of the draw after ``step`` finished steps."""
        low, high = float(exact_share("low", self.low)), float(exact_share("high", self.high))
        return low if step >= self.decay else cosine(high, low, step / self.decay)

    def of_member(self, session: Session) -> int:
        draw = random_numbers.Random(f"{session.seed}/{session.number}")
        return session.cut(
            Fraction(draw.uniform(self.low_at(session.progress.step), float(exact_share("high", self.high))))
        )

    def describe(self) -> str:
        return f"{self.members} of a question's rollouts begin with {self.low} to {self.high} of the demonstration"


@PREFIXES.register("staged")
@dataclass(frozen=True)
class Staged(Prefix):
    """Micro-groups in order; one begins with its share only if the mean correctness so far is below its threshold.

    TRAPO (arXiv 2512.17636) has the defaults. BREAD (2506.17211) has groups of 4 and 4, the second with a short prefix
    if the first has no success. At thresholds of 0 or less it is RL.
    """

    groups: tuple[int, ...] = (4, 2, 1, 1)
    ratios: tuple[Share, ...] = (0, 0.2, 0.5, 1)
    thresholds: tuple[float, ...] = (-1, 0.5, 0.7, 0.9)
    cut: str = "step"
    """``token``: at the share; ``step``: at the end of the step in which it lies."""

    def __post_init__(self) -> None:
        for name in ("groups", "ratios", "thresholds"):
            value = getattr(self, name)
            is_list = isinstance(value, Sequence) and not isinstance(value, str) and bool(value)
            require(is_list, name, value, "a list", "TRAPO has 4 entries in each")
            object.__setattr__(self, name, tuple(value))
            rule = f"as long as groups, which has {len(self.groups)} entries"
            require(len(value) == len(self.groups), name, value, rule, "write one entry a micro-group")
        for size, ratio, threshold in zip(self.groups, self.ratios, self.thresholds, strict=True):
            require_count("groups", size, "it counts the sessions of a micro-group")
            exact_share("ratios", ratio)
            is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
            require(is_number, "thresholds", threshold, "a number", "-1 is never, and above 1 always")
        require_choice("cut", self.cut, ("token", "step"))

    def __call__(self, session: Session, num_correct: int) -> int:
        group, earlier = self._group(session.number), self.waits_for(session.number, session.n)
        is_below = num_correct < Fraction(str(self.thresholds[group])) * max(1, earlier)
        return session.cut(exact_share("ratios", self.ratios[group]), self.cut) if is_below else 0

    def num_members(self, n: int) -> int:
        rows = zip(self.groups, self.ratios, self.thresholds, strict=True)
        return sum(size for size, ratio, threshold in rows if exact_share("ratios", ratio) and threshold > 0)

    def waits_for(self, number: int, n: int) -> int:
        return sum(self.groups[: self._group(number)])

    def _group(self, number: int) -> int:
        return next(group for group, end in enumerate(accumulate(self.groups)) if number < end)

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if sum(self.groups) != facts.num_rollouts:
            rule = f"micro-groups that add up to the {facts.num_rollouts} rollouts of a question"
            yield self.problem("groups", rule, f"set actor_rollout_ref.rollout.n={sum(self.groups)}, or other groups")
        yield from super().problems(facts)

    def describe(self) -> str:
        return f"micro-groups of {self.groups} begin with {self.ratios} of the demonstration below {self.thresholds}"


def cosine(start: float, end: float, share: float) -> float:
    """From ``start`` at 0 to ``end`` at 1."""
    return end + (start - end) * 0.5 * (1 + cos(pi * share))
