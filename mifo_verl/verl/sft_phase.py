"""An SFT phase on the ranks, update by update (MIFO section 3, steps 3 to 7)."""

from collections.abc import Callable
from functools import partial
from math import isfinite
from typing import Any

from tqdm import tqdm
from verl.utils.debug import marked_timer

from mifo_verl.loop.events import LedgerLine, UpdateMade
from mifo_verl.loop.loop import Loop
from mifo_verl.loop.state import SftProgress
from mifo_verl.loop.streams import stable_seed
from mifo_verl.loop.tokens import TokenSummary
from mifo_verl.probes.probes import Probes
from mifo_verl.run.compute import sft_flops
from mifo_verl.run.journal import lines_sha256
from mifo_verl.run.watchdog import Watchdog
from mifo_verl.settings import InspectConfig, SftConfig
from mifo_verl.types import BufferEntry
from mifo_verl.verl.actor import Actor
from mifo_verl.verl.own_rollouts import OwnRollouts

MAX_RATIO = 3.0
"""Gradient norm of SFT over RL's, above which moments that both share are mostly SFT's (docs/methods.md)."""
LARGE = (
    "interval {interval}: SFT's gradient norm is {ratio:.1f} times RL's, and both fill the same AdamW moments; "
    "use mifo.sft.optimizer=separate"
)
SPENT = (
    "interval {interval}: KL {kl:.3g} to the policy before the SFT phase after update {update}, above "
    "mifo.sft.max_kl={max_kl:g}: updates not made {left}, demonstrations back in the buffer {kept}"
)


class SftPhase:
    """Runs the phases that the loop asks for, and the probes at their borders."""

    def __init__(
        self,
        loop: Loop,
        actor: Actor,
        probes: Probes,
        inspect: InspectConfig,
        decode: Callable[[int], str],
        seed: int,
        num_weights: int,
        forwards: int,
        watchdog: Watchdog,
        settings: SftConfig,
        event: Callable[[str, str], None],
        own: OwnRollouts,
    ) -> None:
        """``event`` writes to events.jsonl."""
        self._loop = loop
        self._actor = actor
        self._probes = probes
        self._watchdog = watchdog
        self._inspect = inspect
        self._decode = decode
        self._seed = seed
        self._flops = partial(sft_flops, num_weights, forwards=forwards)
        self._settings = settings
        self._event = event
        self._own = own

    def before_rl(self, timing_raw: dict[str, float]) -> None:
        """Measure what an RL phase starts from, if no border before it has given that."""
        if self._probes.is_start_missing:
            self._measure(self._probes.before_rl, timing_raw)

    def begin(self, timing_raw: dict[str, float]) -> None:
        """Let every shard make its mask, and take what the phase trains on out of the buffer."""
        before = None
        if self._probes.is_due:
            before = self._measure(self._probes.before_sft, timing_raw, self._loop.oldest())
        with self._watchdog.stage("mask selection"), marked_timer("sft", timing_raw):
            mask = self._actor.begin_sft(self._loop.state.interval)
            inspect = self._inspect
            tokens = TokenSummary(inspect.examples, inspect.example_tokens) if inspect.tokens else None
            kept = [one.example for one in self._loop.state.own_rollouts]
            self._loop.begin_sft(mask, before, tokens, self._own.begun(kept, self._loop.state.interval))

    def run(self, stopping: Callable[[], bool], timing_raw: dict[str, float]) -> SftProgress:
        """Make the updates that are left and end the phase and its interval, unless it is stopped before; the phase."""
        phase, interval = self._loop.state.sft, self._loop.state.interval
        assert phase is not None
        with marked_timer("sft", timing_raw):
            batches = self._loop.batches()
            for batch in tqdm(batches[len(phase.updates) :], desc=f"SFT phase of interval {interval}", leave=False):
                if phase.updates and self._own.is_spent(phase.updates[-1].own_kl):
                    break
                if stopping():
                    return phase
                update, ledger = self._update(batch, phase.tokens)
                phase.updates.append(update)
                phase.ledger += ledger
            if left := len(batches) - len(phase.updates):
                self._end_early(phase, left)
            tokens = None if phase.tokens is None else phase.tokens.table(self._decode)
            ratio, made = self._loop.grad_norm_ratio, sum(isfinite(update.grad_norm) for update in phase.updates)
            phase.note(
                grad_norm_ratio=ratio,
                rl_step_factor=self._actor.rl_step_factor(made),  # a skipped update counts in no optimizer
                mask=phase.mask,
                rejected_demonstrations=phase.rejected,
                inspection={"mask": self._actor.inspect_sft() if self._inspect.mask else None, "tokens": tokens},
                frozen_drift=self._actor.end_sft(),
                accuracy_before=None,
                accuracy_after=None,
            )
            self._loop.end_sft()
            if self._settings.optimizer == "shared" and ratio is not None and ratio > MAX_RATIO:
                self._event("gradients", LARGE.format(interval=interval, ratio=ratio))
        if self._probes.settings.around_sft:
            phase.note(**self._measure(self._probes.after_sft, timing_raw, phase.before))
        return phase

    def _end_early(self, phase: SftProgress, left: int) -> None:
        """The rest of the phase is not made; a demonstration that it would have been the first use of is kept."""
        last = phase.updates[-1]
        phase.note(updates_left=left)
        kept, max_kl = self._loop.put_back(), self._own.max_kl
        told = {"interval": last.interval, "kl": last.own_kl, "update": last.update, "max_kl": max_kl}
        self._event("max_kl", SPENT.format(**told, left=left, kept=kept))

    def synced(self, timing_raw: dict[str, float]) -> None:
        """The rollout servers have the weights after this step: ask them, if a phase has ended in it."""
        phase = self._loop.ended
        if phase is not None and phase.before is not None:
            phase.note(**self._measure(self._probes.ask_after, timing_raw, phase.before))

    def _measure(self, probe: Callable[..., Any], timing_raw: dict[str, float], *args: Any) -> Any:
        """What a probe returns; its seconds are the record's."""
        with self._watchdog.stage("probe"), marked_timer("probe", timing_raw):
            return probe(*args)

    def _update(self, entries: list[BufferEntry], tokens: TokenSummary | None) -> tuple[UpdateMade, list[LedgerLine]]:
        state = self._loop.state
        assert state.sft is not None
        examples = [entry.example for entry in entries]
        seeds = [stable_seed(self._seed, state.interval, example.prompt_id) for example in examples]
        lr = self._settings.rate(*self._loop.sft_span)
        own = self._own.stage(state.sft.own_rollouts, len(state.sft.updates), len(entries))
        made = self._actor.update_sft(examples, seeds, self._loop.progress.share, lr)
        if tokens is not None:
            for example, (entropy, keep) in zip(examples, made.tokens, strict=True):
                tokens.add(example, entropy.tolist(), keep.tolist())
        step = state.step + 1
        ledger = [
            LedgerLine.of(entry, state.interval, step, k) for entry, k in zip(entries, made.kept_tokens, strict=True)
        ]
        prompt_tokens = sum(len(example.prompt_ids) for example in examples)
        response_tokens = sum(len(example.response_ids) for example in examples)
        update = UpdateMade(
            step=step,
            interval=state.interval,
            update=len(state.sft.updates) + 1,
            entropy=sum(made.entropy) / response_tokens,
            buffer_size=state.sft.buffer_size,
            kept_share=sum(made.kept_tokens) / response_tokens,
            frozen_share=(state.sft.mask or {}).get("frozen_share", 0.0),
            loss=float(made.loss),
            grad_norm=float(made.grad_norm),
            lr=lr,
            demonstrations=len(entries),
            prompt_tokens=prompt_tokens,
            response_tokens=response_tokens,
            kept_tokens=sum(made.kept_tokens),
            ledger_sha256=lines_sha256(line.line() for line in ledger),
            skipped_updates=int(made.skipped),
            own=self._own.used(own),
            own_kl=self._own.kl(state.sft.own_rollouts),
            flops=self._flops(prompt_tokens + response_tokens) + self._own.flops(own, state.sft.own_rollouts),
        )
        return update, ledger
