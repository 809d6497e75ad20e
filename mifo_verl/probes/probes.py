"""The coupling probes: what an RL phase does to SFT's objective, and an SFT phase to RL's (docs/results.md).

What is measured at a border counts for both phases that meet there. Nothing is drawn on the controller: prompts are
asked under the streams of validation, whose draws depend on the prompt alone, and the rest are forward passes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from mifo_verl.loop.state import Accuracies, Answer, Before, LoopState
from mifo_verl.method.policy_shift import reward_margin
from mifo_verl.probes.held_out import HeldOut, Row, spread
from mifo_verl.probes.step import RowSums
from mifo_verl.settings import ProbeConfig
from mifo_verl.types import BufferEntry

TokenIds = tuple[Sequence[int], Sequence[int]]
"""A prompt and a response."""
SHIFT = ("kl_to_before", "policy_entropy_before", "policy_entropy_after", "reward_margin_before", "reward_margin_after")


@dataclass(frozen=True)
class Asked:
    """The answers to a prompt; one that failed on the way counts as wrong and is not among them."""

    source: str
    num_rollouts: int
    answers: list[Answer]

    @property
    def accuracy(self) -> float:
        return sum(answer.is_correct for answer in self.answers) / self.num_rollouts


@dataclass(frozen=True)
class Policy:
    """How the policy in training is measured."""

    forward: Callable[[list[TokenIds], bool], list[RowSums]]
    """The sums by row of one forward pass over (prompt, response) tokens; with the shift since the phase's start."""
    ask: Callable[[list[Row]], list[Asked]]
    """The answers of the policy that the rollout servers hold."""
    wake: Callable[[], None]
    """Give the rollout servers the weights."""
    sleep: Callable[[], None]
    """Free the memory that the rollout servers hold."""


class Probes:
    """Measures at the borders of phases; what it has to remember from one to the next is in the loop's state."""

    def __init__(self, settings: ProbeConfig, held_out: HeldOut, policy: Policy, state: LoopState) -> None:
        self.settings = settings
        self._held_out = held_out
        self._policy = policy
        self._state = state

    def go_on(self, measured_on: str, say: Callable[[str, str], None]) -> None:
        """Drop what was measured before a resume on other data or with other settings than ``measured_on`` is of."""
        state = self._state
        has_before = state.sft is not None and state.sft.before is not None
        if state.measured_on != measured_on:
            if has_before or state.cross_entropy_start is not None:
                text = (
                    "the probes measure on other data or settings than before the resume: what they measured there at "
                )
                say("probe", text + "the last border is dropped, and what needs it is null")
            state.cross_entropy_start = None
            if state.sft is not None:
                state.sft.before = None
        state.measured_on = measured_on

    @property
    def is_due(self) -> bool:
        """Whether the borders of this interval are measured."""
        return self.settings.is_due(self._state.interval)

    @property
    def is_start_missing(self) -> bool:
        """Whether no border before this interval has given the cross-entropy that its RL phase starts from."""
        state, measured = self._state, self.is_due and bool(self._held_out.demonstrations)
        return measured and state.rl_steps == 0 and state.cross_entropy_start is None

    def before_rl(self) -> None:
        """The cross-entropy at the start of an RL phase."""
        self._state.cross_entropy_start, tokens = self._cross_entropy()
        self._state.uncounted_tokens += tokens

    def before_sft(self, entries: Iterable[BufferEntry]) -> Before:
        """What is measured before an SFT phase on these entries, the oldest first.

        Solved and hard prompts are asked anew. They were chosen by how their rollouts came out, so that these rollouts
        overstate how right or wrong the policy is on them: any second sample would fall back to the mean, and a phase
        that changes nothing would seem to forget what is solved. Both samples here are drawn alike, after the choice.
        """
        state = self._state
        cross_entropy, tokens = self._cross_entropy()
        hard = [entry.example.prompt_id for entry in entries if entry.group is not None]
        before = Before(state.cross_entropy_start, cross_entropy, list(state.solved), hard[: self.settings.hard])
        tokens += state.uncounted_tokens
        state.uncounted_tokens = 0
        before.sizes = {"demonstrations": len(self._held_out.demonstrations), "forward_tokens": tokens}
        self._policy.wake()
        before.accuracies, held_out = self._accuracies(before)
        self._policy.sleep()
        answered = [one.answers[0] for one in held_out if one.answers and one.answers[0].response_ids]
        before.rollouts = spread(answered, self.settings.rollouts)
        before.sizes["rollouts"] = len(before.rollouts)
        return before

    def after_sft(self, before: Before | None) -> dict[str, Any]:
        """The forward passes after a phase, as fields of its record; the interval that has begun starts from them."""
        state = self._state
        state.cross_entropy_start, tokens = None, 0
        if before is not None or self.is_due:
            state.cross_entropy_start, tokens = self._cross_entropy()
        if before is None:
            state.uncounted_tokens += tokens
            return {}
        before.sizes["forward_tokens"] += tokens
        found = {"cross_entropy_before": before.cross_entropy, "cross_entropy_after": state.cross_entropy_start}
        return found | self._shift(before)

    def ask_after(self, before: Before) -> dict[str, Any]:
        """The accuracies before and after the phase as fields of its record."""
        after, _ = self._accuracies(before)
        found: dict[str, Any] = {}
        for name, prefix in (("held_out", ""), ("solved", "solved_"), ("hard", "hard_")):
            found[f"{prefix}accuracy_before"] = getattr(before.accuracies, name)
            found[f"{prefix}accuracy_after"] = getattr(after, name)
        return found | {"probe": dict(sorted(before.sizes.items()))}

    def _accuracies(self, before: Before) -> tuple[Accuracies, list[Asked]]:
        """The three sets asked in one go; the answers to the held-out prompts."""
        sets = [list(self._held_out.rows), self._training_rows(before.solved), self._training_rows(before.hard)]
        asked = self._policy.ask([row for rows in sets for row in rows])
        sizes = before.sizes
        sizes |= dict(zip(("held_out", "solved", "hard"), map(len, sets), strict=True))
        generated = sum(len(answer.response_ids) for one in asked for answer in one.answers)
        sizes["generated_tokens"] = sizes.get("generated_tokens", 0) + generated
        held_out, rest = asked[: len(sets[0])], asked[len(sets[0]) :]
        solved, hard = rest[: len(sets[1])], rest[len(sets[1]) :]
        by_source = mean_by_source([(one.source, one.accuracy) for one in held_out]) or None
        return Accuracies(by_source, _mean(solved), _mean(hard)), held_out

    def _training_rows(self, prompt_ids: list[str]) -> list[Row]:
        rows = map(self._held_out.training_row, prompt_ids)
        return [row for row in rows if row is not None]

    def _cross_entropy(self) -> tuple[float | None, int]:
        """(mean over all response tokens of the held-out demonstrations of -log pi, in nats; how many they are)."""
        examples = self._held_out.demonstrations
        if not examples:
            return None, 0
        sums = self._policy.forward([(one.prompt_ids, one.response_ids) for one in examples], False)
        tokens = sum(row.tokens for row in sums)
        return -sum(row.log_probs for row in sums) / tokens, tokens

    def _shift(self, before: Before) -> dict[str, Any]:
        """How the phase moved the policy on the rollouts made before it: the same tokens before and after.

        The KL of a position is exact over the vocabulary. The positions are those that the policy before came to by
        itself: this is how much its own behaviour has changed, a mean over positions. It is not the KL of whole
        answers, whose expectation needs answers of the policy after.
        """
        if not before.rollouts:
            return dict.fromkeys(SHIFT)
        sums = self._policy.forward([(one.prompt_ids, one.response_ids) for one in before.rollouts], True)
        tokens = sum(row.tokens for row in sums)
        before.sizes["forward_tokens"] += 2 * tokens
        is_correct = [one.is_correct for one in before.rollouts]
        values = (
            sum(row.kl for row in sums) / tokens,
            sum(row.start_entropy for row in sums) / tokens,
            sum(row.entropy for row in sums) / tokens,
            reward_margin([row.start_log_probs / row.tokens for row in sums], is_correct),
            reward_margin([row.log_probs / row.tokens for row in sums], is_correct),
        )
        return dict(zip(SHIFT, values, strict=True))


def _mean(asked: list[Asked]) -> float | None:
    return fmean(one.accuracy for one in asked) if asked else None


def mean_by_source(accuracies: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The mean accuracy of every data source, of (data source, accuracy) pairs, and their ``mean``; empty of none."""
    found: dict[str, list[float]] = {}
    for source, accuracy in accuracies:
        found.setdefault(source, []).append(accuracy)
    by_source = {source: fmean(found[source]) for source in sorted(found)}  # a sum depends on the order
    return {**by_source, "mean": sum(by_source.values()) / len(by_source)} if by_source else {}
