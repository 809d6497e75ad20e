"""An SFT phase on the ranks, update by update (MIFO section 3, steps 3 to 7)."""

from collections.abc import Callable

from tqdm import tqdm

from mifo_verl.config import InspectConfig
from mifo_verl.loop.events import LedgerLine, UpdateMade
from mifo_verl.loop.loop import Loop
from mifo_verl.loop.state import Before, SftProgress
from mifo_verl.loop.streams import stable_seed
from mifo_verl.loop.tokens import TokenSummary
from mifo_verl.run.compute import sft_flops
from mifo_verl.run.journal import lines_sha256
from mifo_verl.types import BufferEntry
from mifo_verl.verl.actor import Actor


class SftPhase:
    """Runs the phases that the loop asks for."""

    def __init__(
        self,
        loop: Loop,
        actor: Actor,
        inspect: InspectConfig,
        decode: Callable[[int], str],
        seed: int,
        num_weights: int,
    ) -> None:
        self._loop = loop
        self._actor = actor
        self._inspect = inspect
        self._decode = decode
        self._seed = seed
        self._num_weights = num_weights

    def begin(self, before: Before | None) -> None:
        """Let every shard make its mask, and take what the phase trains on out of the buffer."""
        mask = self._actor.begin_sft(self._loop.state.interval)
        inspect = self._inspect
        tokens = TokenSummary(inspect.examples, inspect.example_tokens) if inspect.tokens else None
        self._loop.begin_sft(mask, before, tokens)

    def run(self, stopping: Callable[[], bool]) -> SftProgress:
        """Make the updates that are left and end the phase and its interval, unless it is stopped before; the phase."""
        phase, interval = self._loop.state.sft, self._loop.state.interval
        assert phase is not None
        batches = self._loop.batches()
        for batch in tqdm(batches[len(phase.updates) :], desc=f"SFT phase of interval {interval}", leave=False):
            if stopping():
                return phase
            update, ledger = self._update(batch, phase.tokens)
            phase.updates.append(update)
            phase.ledger += ledger
        tokens = None if phase.tokens is None else phase.tokens.table(self._decode)
        inspection = {"mask": self._actor.inspect_sft() if self._inspect.mask else None, "tokens": tokens}
        phase.note(
            mask=phase.mask,
            rejected_demonstrations=phase.rejected,
            frozen_drift=self._actor.end_sft(),
            inspection=inspection,
            accuracy_before=None,
            accuracy_after=None,
        )
        return self._loop.end_sft()

    def _update(self, entries: list[BufferEntry], tokens: TokenSummary | None) -> tuple[UpdateMade, list[LedgerLine]]:
        state = self._loop.state
        assert state.sft is not None
        examples = [entry.example for entry in entries]
        seeds = [stable_seed(self._seed, state.interval, example.prompt_id) for example in examples]
        made = self._actor.update_sft(examples, seeds)
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
            demonstrations=len(entries),
            prompt_tokens=prompt_tokens,
            response_tokens=response_tokens,
            kept_tokens=sum(made.kept_tokens),
            ledger_sha256=lines_sha256(line.line() for line in ledger),
            skipped_updates=int(made.skipped),
            flops=sft_flops(self._num_weights, prompt_tokens + response_tokens),
        )
        return update, ledger
