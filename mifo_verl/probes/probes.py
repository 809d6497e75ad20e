"""The coupling probes: what an RL phase does to SFT's objective, and an SFT phase to RL's (docs/probes.md).

What is measured at a border counts for both phases that meet there. Nothing is drawn on the controller: prompts are
asked under the streams of validation, whose draws depend on the prompt alone, and the rest are forward passes.
"""

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Any

from mifo_verl.config import ProbeConfig
from mifo_verl.method.policy_shift import reward_margin
from mifo_verl.method.solved import SolvedPrompts
from mifo_verl.probes.held_out import spread
from mifo_verl.probes.step import RowSums
from mifo_verl.probes.types import Accuracies, Asked, Before, HeldOut, Row
from mifo_verl.types import BufferEntry
from mifo_verl.verl.step_metrics import mean_by_source

TokenIds = tuple[Sequence[int], Sequence[int]]
"""A prompt and a response."""
SHIFT = ("kl_to_before", "policy_entropy_before", "policy_entropy_after", "reward_margin_before", "reward_margin_after")


class Probes:
    """Measures. From one border to the next it remembers ``solved``, ``cross_entropy_start`` and what that cost.

    ``forward(rows, with_shift)`` gives the sums by row of one forward pass, ``ask(rows)`` the answers of the policy
    that the rollout servers hold.
    """

    def __init__(
        self,
        settings: ProbeConfig,
        held_out: HeldOut,
        forward: Callable[[list[TokenIds], bool], list[RowSums]],
        ask: Callable[[list[Row]], list[Asked]],
    ) -> None:
        self.settings = settings
        self.solved = SolvedPrompts(settings.solved, settings.solved_accuracy)
        self.cross_entropy_start: float | None = None
        self.uncounted_tokens = 0
        """Response tokens passed forward for the interval's start, until the record of its SFT phase counts them."""
        self._held_out = held_out
        self._forward = forward
        self._ask = ask

    def is_start_missing(self, interval: int) -> bool:
        """Whether no border before this interval has given the cross-entropy that its RL phase starts from."""
        measured = self.settings.is_due(interval) and bool(self._held_out.demonstrations)
        return measured and self.cross_entropy_start is None

    def before_rl(self) -> None:
        """The cross-entropy at the start of an RL phase."""
        self.cross_entropy_start, tokens = self._cross_entropy()
        self.uncounted_tokens += tokens

    def before_sft(self, entries: Iterable[BufferEntry]) -> Before:
        """The forward passes before an SFT phase on these entries, the oldest first."""
        cross_entropy, tokens = self._cross_entropy()
        hard = [entry.example.prompt_id for entry in entries if entry.group is not None]
        before = Before(self.cross_entropy_start, cross_entropy, list(self.solved.ids), hard[: self.settings.hard])
        tokens += self.uncounted_tokens
        self.uncounted_tokens = 0
        before.sizes = {"demonstrations": len(self._held_out.demonstrations), "forward_tokens": tokens}
        return before

    def ask_before(self, before: Before) -> None:
        """The accuracies before the phase, and the rollouts that its policy is measured on.

        Solved and hard prompts are asked anew. They were chosen by how their rollouts came out, so that these rollouts
        overstate how right or wrong the policy is on them: any second sample would fall back to the mean, and a phase
        that changes nothing would seem to forget what is solved. Both samples here are drawn alike, after the choice.
        """
        before.accuracies, held_out = self._accuracies(before)
        answered = [one.answers[0] for one in held_out if one.answers and one.answers[0].response_ids]
        before.rollouts = spread(answered, self.settings.rollouts)
        before.sizes["rollouts"] = len(before.rollouts)

    def after_sft(self, interval: int, before: Before | None) -> dict[str, Any]:
        """The forward passes after a phase, as fields of its record; the next RL phase starts from them."""
        self.cross_entropy_start, tokens = None, 0
        if before is not None or self.settings.is_due(interval + 1):
            self.cross_entropy_start, tokens = self._cross_entropy()
        if before is None:
            self.uncounted_tokens += tokens
            return {}
        before.sizes["forward_tokens"] += tokens
        found = {"cross_entropy_before": before.cross_entropy, "cross_entropy_after": self.cross_entropy_start}
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
        asked = self._ask([row for rows in sets for row in rows])
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
        sums = self._forward([(one.prompt_ids, one.response_ids) for one in examples], False)
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
        sums = self._forward([(one.prompt_ids, one.response_ids) for one in before.rollouts], True)
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
