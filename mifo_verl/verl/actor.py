"""The ranks that hold the policy, as one typed object: what the controller may ask of them.

Every method runs on all ranks and returns when all of them are done. What a rank raises is raised here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from omegaconf import DictConfig
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu

from mifo_verl.probes.step import RowSums, probe_batch, sums_of
from mifo_verl.types import SftExample
from mifo_verl.verl.own_step import log_probs_of, own_batch
from mifo_verl.verl.sft_step import ROWS, SFT_LR, BatchCut, rows_of, sft_batch, tokens_of
from mifo_verl.verl.skipped_updates import MAX_SKIPPED
from mifo_verl.verl.staging import weighted


@dataclass(frozen=True)
class SftUpdate:
    """One SFT update, over all ranks. The lists are in the order of the examples."""

    loss: float
    grad_norm: float
    skipped: int
    """Updates skipped in a row up to this one, itself included: those whose gradient was not finite."""
    kept_tokens: list[int]
    entropy: list[float]
    """Sums over the response tokens, in nats."""
    tokens: list[tuple[np.ndarray, np.ndarray]]
    """(entropies, flags kept) of every response token; empty unless ``mifo.inspect.tokens``."""


@dataclass(frozen=True)
class StagedSft:
    """What an update made of examples that were staged for it, over all ranks."""

    loss: float
    """Not weighted."""
    kept_tokens: list[int]
    """In the order of the examples."""


class Actor:
    """The actor's worker group of a run. ``configure`` comes first, once the model is built."""

    def __init__(self, group: Any, settings: DictConfig, pad_token_id: int) -> None:
        """``settings`` is the config ``actor_rollout_ref.actor``, ``group`` verl's ``actor_rollout_wg``."""
        self._group = group
        self._settings = settings
        self._pad_token_id = pad_token_id

    @property
    def cut(self) -> BatchCut:
        """How SFT batches and probes are cut over the ranks: as the actor's own updates."""
        info = self._group._dispatch_info
        if "actor" not in info:
            info["actor"] = self._group._query_dispatch_info("actor")
        rows = 1 if self._settings.use_dynamic_bsz else int(self._settings.ppo_micro_batch_size_per_gpu)
        return BatchCut(max(info["actor"]) + 1, rows, self._pad_token_id)

    def configure(self, mifo: Mapping[str, Any]) -> None:
        """Hand the node ``mifo`` of the config over."""
        self._group.configure_mifo(mifo)

    # ------------------------------------------------------------------ intervals and SFT phases

    def begin_interval(self) -> None:
        """theta_start = theta, if something needs it."""
        self._group.begin_interval()

    def has_start(self) -> bool:
        """Whether theta_start is kept on every rank."""
        return all(self._group.has_start())

    def begin_sft(self, interval: int) -> dict[str, Any] | None:
        """End the RL phase: the constraint selects what it holds. Its report; None if it selects nothing."""
        report: dict[str, Any] | None = self._group.begin_sft(interval)[0]
        return report

    def update_sft(self, examples: Sequence[SftExample], seeds: Sequence[int], progress: float, lr: float) -> SftUpdate:
        """One SFT update on all examples, at this share of the run and with this learning rate.

        Raises RuntimeError if a row did not come back.
        """
        batch = sft_batch(examples, seeds, self.cut, progress)
        tu.assign_non_tensor(batch, **{SFT_LR: lr})
        metrics = tu.get(self._group.update_sft(batch), "metrics")
        rows = rows_of(metrics)
        if [row for row, _, _ in rows] != list(range(len(examples))):
            raise RuntimeError(f"an SFT update of {len(examples)} demonstrations came back with rows {rows}")
        return SftUpdate(
            loss=metrics["loss"],
            grad_norm=metrics["grad_norm"],
            skipped=max(skipped for rank in metrics[MAX_SKIPPED] for skipped in rank),
            kept_tokens=[kept for _, kept, _ in rows],
            entropy=[entropy for _, _, entropy in rows],
            tokens=[tokens for _, tokens in sorted(tokens_of(metrics).items())],
        )

    def stage_sft(
        self,
        examples: Sequence[SftExample],
        seeds: Sequence[int],
        progress: float,
        weight: float,
        denominator: int | None,
    ) -> None:
        """Let the next RL update that has no second loss yet train on these examples too.

        ``weight`` multiplies their loss, whose sum is divided by ``denominator``, their number if None.
        """
        self._group.stage_sft(weighted(sft_batch(examples, seeds, self.cut, progress), weight, denominator))

    def stage_own(self, examples: Sequence[SftExample], weight: float, compares: bool) -> None:
        """Let the next SFT update train on these own rollouts too, whose mean loss ``weight`` multiplies."""
        self._group.stage_sft(weighted(own_batch(examples, self.cut, compares), weight, None))

    def take_staged(self) -> list[StagedSft]:
        """What came of what was staged, update by update. Raises RuntimeError if an update has not taken its part."""
        ranks = [taken for taken in self._group.take_staged() if taken is not None]
        return [
            StagedSft(
                loss=fmean(taken.loss for taken in update),
                kept_tokens=[kept for _, kept, _ in rows_of({ROWS: [taken.metrics[ROWS] for taken in update]})],
            )
            for update in zip(*ranks, strict=True)
        ]

    def inspect_sft(self) -> dict[str, Any] | None:
        """The mask and both updates of the interval by layer and by kind of matrix; None unless inspected."""
        table: dict[str, Any] | None = self._group.inspect_sft()[0]
        return table

    def enter_sft(self) -> None:
        """Go on with an SFT phase that ``leave_sft`` or a checkpoint left."""
        self._group.enter_sft()

    def leave_sft(self) -> None:
        """Leave an SFT phase as it is, to be saved: the RL phase's optimizer settings are back."""
        self._group.leave_sft()

    def rl_step_factor(self, num_updates: int) -> float:
        """How many times too long RL's next step of a held coordinate is, after an SFT phase of so many updates."""
        return max(self._group.rl_step_factor(num_updates))

    def end_sft(self) -> float | None:
        """Everything is trainable again. The largest change of a coordinate held; None if none was."""
        drifts = [drift for drift in self._group.end_sft() if drift is not None]
        return max(drifts) if drifts else None

    # ------------------------------------------------------------------ measuring

    def probe(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]], with_shift: bool) -> list[RowSums]:
        """Sums over the response of each (prompt, response); ``with_shift`` also under those before the SFT phase."""
        output = self._group.probe(probe_batch(rows, self.cut, with_shift))
        return sums_of(tu.get(output, "metrics"), len(rows))

    def log_probs(self, examples: Sequence[SftExample]) -> list[tuple[float, ...]]:
        """log p of every response token by the policy as it is now, in nats."""
        output = self._group.log_probs(own_batch(examples, self.cut))
        return log_probs_of(tu.get(output, "metrics"), examples)

    def compute_start_log_prob(self, batch: KVBatchMeta) -> None:
        """Put the log-probs under theta_start of a batch's rollouts into the transfer queue."""
        self._group.compute_start_log_prob(batch)

    def num_weights(self) -> int:
        """The weights of the whole model that multiply."""
        return int(self._group.num_weights()[0])

    def peak_memory_gb(self) -> float:
        """The most memory that a rank has held so far, GiB."""
        return float(max(self._group.peak_memory_gb()))

    def weights_sha256(self) -> list[str]:
        """A digest of every rank's shards of the master weights."""
        return list(self._group.weights_sha256())

    # ------------------------------------------------------------------ checkpoints

    def save(self, folder: Path) -> None:
        """Write every rank's part of the interval. Raises OSError if the disk refuses one."""
        self._group.save_interval(str(folder))

    def load(self, folder: Path) -> None:
        """Read every rank's part of the interval back."""
        self._group.load_interval(str(folder))
