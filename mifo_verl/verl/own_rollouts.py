"""An SFT phase's own correct rollouts, seen from the controller: log-probs at its begin, a loss in its updates."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from msgspec import UNSET, UnsetType

from mifo_verl.config import MifoConfig
from mifo_verl.loop.events import OwnUsed
from mifo_verl.loop.own_rollouts import turn
from mifo_verl.method.part import OWN_LOG_PROB, OWN_ROLLOUTS
from mifo_verl.method.policy_shift import k3
from mifo_verl.run.compute import FORWARD, sft_flops
from mifo_verl.types import SftExample
from mifo_verl.verl.actor import Actor

NONE = "interval {interval}: no correct rollout of its own is there, so that its SFT phase trains without any"


class OwnRollouts:
    """What the parts of a run need of own rollouts; where they need nothing, nothing is done."""

    def __init__(self, actor: Actor, mifo: MifoConfig, num_weights: int, event: Callable[[str, str], None]) -> None:
        """``event`` writes to events.jsonl."""
        self._actor = actor
        self._constraint = mifo.constraint
        self._batch_size = mifo.sft.batch_size
        self._num_weights = num_weights
        self._is_kept = mifo.keeps_own_rollouts
        self._compares = mifo.compares_own
        self.max_kl = mifo.sft.max_kl
        self._event = event

    def begun(self, examples: Sequence[SftExample], interval: int) -> list[SftExample]:
        """Those that a phase which begins now goes on with: the policy's log-probs with them, if they are needed."""
        if self._is_kept and not examples:
            self._event("own_rollouts", NONE.format(interval=interval))
        if not examples or (self.max_kl is None and OWN_LOG_PROB not in self._constraint.needs):
            return list(examples)
        found = self._actor.log_probs(examples)
        return [replace(one, teacher_log_probs=values) for one, values in zip(examples, found, strict=True)]

    def stage(self, examples: Sequence[SftExample], update: int, number: int) -> list[SftExample]:
        """Put as many as the update has demonstrations beside these, whose ``number`` it is; the rollouts.

        ``update`` counts from 0; the updates of a phase take turns at what is there.
        """
        if not examples or OWN_ROLLOUTS not in self._constraint.needs:
            return []
        rows = turn(examples, update * self._batch_size, number)
        self._actor.stage_own(rows, self._constraint.own_weight, self._compares)
        return rows

    def used(self, rows: Sequence[SftExample]) -> OwnUsed | UnsetType:
        """What the update has made of them."""
        if not rows:
            return UNSET
        (staged,) = self._actor.take_staged()
        return OwnUsed(rollouts=len(rows), tokens=sum(staged.kept_tokens), loss=staged.loss)

    def kl(self, examples: Sequence[SftExample]) -> float | UnsetType:
        """KL(policy before the phase || policy now), mean of k3 over their tokens; unset if nothing limits it."""
        if self.max_kl is None or not examples:
            return UNSET
        now = [value for values in self._actor.log_probs(examples) for value in values]
        before = [value for one in examples for value in one.teacher_log_probs]
        return float(k3(torch.tensor(before), torch.tensor(now)).mean())

    def is_spent(self, kl: float | UnsetType) -> bool:
        """Whether a phase ends with the update behind which it has this KL: past ``max_kl``, or no number."""
        return self.max_kl is not None and kl is not UNSET and not kl <= self.max_kl

    def flops(self, rows: Sequence[SftExample], examples: Sequence[SftExample]) -> int:
        """Of the ``rows`` in an update, each with a pass under the policy before if that is needed, and of the KL."""
        in_loss, measured = (sum(len(e.prompt_ids) + len(e.response_ids) for e in each) for each in (rows, examples))
        of_kl = 0 if self.max_kl is None else FORWARD * self._num_weights * measured
        return of_kl + sft_flops(self._num_weights, in_loss, len(self._constraint.needs - {OWN_ROLLOUTS}))
