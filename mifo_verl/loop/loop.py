"""The loop: which prompts are hard, which phase comes next, what an SFT phase trains on and in which order.

rollouts -> groups -> gate -> buffer -> schedule -> SFT phase -> next interval. No torch, no verl.
"""

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from math import isfinite
from statistics import fmean
from typing import Any, TypeVar

from mifo_verl.loop.events import LedgerLine, RolloutSeen
from mifo_verl.loop.inputs import Build, Others, Parts, Rollout, Row, Tokens, no_others, no_tokens
from mifo_verl.loop.mixed import Given, Mixed, Trained, give, mix
from mifo_verl.loop.own_rollouts import sample
from mifo_verl.loop.state import Before, LoopState, SftProgress
from mifo_verl.loop.streams import stable_seed
from mifo_verl.loop.tokens import TokenSummary
from mifo_verl.method.accuracy import count_correct
from mifo_verl.method.solved import SolvedPrompts
from mifo_verl.types import BufferEntry, Phase, Progress, PromptGroup, Rejection, SftExample, Use

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Loop:
    """Moves a ``LoopState``; beside it, what it holds of the step that goes on is never saved."""

    def __init__(
        self,
        parts: Parts,
        state: LoopState,
        build: Build,
        others: Others = no_others,
        spent: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """``spent`` says what share of the run's budget is spent."""
        self.state = state
        self._parts = parts
        self._build = build
        self._spent = spent
        self._others = others
        self._solved = SolvedPrompts(parts.solved, parts.solved_accuracy, state.solved)
        self._forget()

    def _forget(self) -> None:
        self._rows: dict[str, tuple[str, Row]] = {}
        self.groups: dict[str, PromptGroup] = {}
        """The prompts of this step whose rollouts are counted, by uid."""
        self.rejected: Counter[str] = Counter()
        """Prompts of this step that could not be judged or have no usable demonstration, by reason."""
        self.num_fallbacks = 0
        """Rollouts of this step whose verdict is a fallback."""
        self.ended: SftProgress | None = None
        """The SFT phase that has ended in this step."""
        self.samples: list[RolloutSeen] = []
        """Rollouts of this step that are kept to read."""
        self.members: dict[tuple[str, int], int] = {}
        """Sessions of this step that begin with given tokens, by uid and number, and how many they begin with."""
        self.correct: dict[tuple[str, int], bool] = {}
        """Whether the answer of each session of this step is right, by uid and number."""
        self.mixed: Mixed | None = None
        """The demonstrations in this step's RL updates; None before them."""
        self.trained: Trained | None = None
        """What came of those; None if there were none."""
        self.sampling: dict[str, float] = {}
        """``temperature`` and ``max_tokens`` of this step's rollouts, if they are not the run's own."""
        self._given: dict[str, SftExample] = {}
        self._now: dict[str, tuple[PromptGroup, Row, Sequence[int]]] = {}

    # ------------------------------------------------------------------ a step

    def begin_step(self) -> None:
        """Forget the prompts of the step before."""
        self._forget()
        asked = {"temperature": self.state.temperature, "max_tokens": self._parts.sampling.max_tokens(self.progress)}
        self.sampling = {name: value for name, value in asked.items() if value is not None}

    def draw(self, rows: Iterable[tuple[str, Row]]) -> list[str]:
        """The uids of prompts (id, row) that are drawn now; the same in every run."""
        uids = []
        for drawn in rows:
            uids.append(f"t{self.state.drawn:010d}")
            self._rows[uids[-1]] = drawn
            self.state.drawn += 1
        return uids

    def plan(
        self,
        uids: Iterable[str],
        render: Callable[[Row], Sequence[int]],
        step_ends: Callable[[Sequence[int]], Sequence[int]],
    ) -> list[Given] | None:
        """What the rollouts of prompts just drawn begin with; None in a run where no rollout begins with anything."""
        parts = self._parts
        if "demonstrations" not in parts.prefix.needs:
            return None
        given = []
        for uid in uids:
            _, row = self._rows[uid]
            built = self._build(row, render(row))
            if not isinstance(built, Rejection):
                self._given[uid] = built
            example, n = self._given.get(uid), parts.num_rollouts
            given.append(give(parts.prefix, example, step_ends, n, self.progress, parts.seed, uid))
        return given

    def count(
        self, rollouts: Iterable[Rollout], prompt_ids: Mapping[str, Sequence[int]], tokens: Tokens = no_tokens
    ) -> None:
        """Take finished rollouts in: acc(q), hard prompts into the buffer, solved ones noted (MIFO step 2).

        ``prompt_ids`` are the tokens of every prompt as its rollouts had them, by uid. The newest accuracy of a prompt
        decides. ``tokens`` reads the rollouts that are kept. Raises ValueError if a correctness is neither 0 nor 1.
        """
        last: dict[tuple[str, int], Rollout] = {}
        for rollout in rollouts:
            key = rollout.uid, rollout.session
            if not rollout.is_padding and (key not in last or last[key].index < rollout.index):
                last[key] = rollout
        self.members |= {key: rollout.prefix_tokens for key, rollout in last.items() if rollout.prefix_tokens}
        self.correct |= {key: rollout.correct == 1 for key, rollout in last.items()}
        members = Counter(uid for uid, _ in self.members)
        counts = count_correct((r.uid, r.correct, False) for r in last.values() if not r.prefix_tokens)
        self.num_fallbacks += sum(r.is_fallback for r in last.values() if not r.prefix_tokens)
        for uid, (num_correct, num_rollouts) in counts.items():
            prompt_id, row = self._rows[uid]
            group = PromptGroup(prompt_id, num_correct, num_rollouts, self.state.step + 1)
            self.groups[uid] = group
            if num_rollouts + members[uid] < self._parts.num_rollouts:
                self.rejected["incomplete"] += 1  # some have failed: what is left is no accuracy over N
            else:
                self._solved.see([group])
                self._judge(uid, group, row, prompt_ids[uid])
        self._keep([r for r in last.values() if r.correct == 1 and not r.prefix_tokens], tokens)

    def _keep(self, correct: Iterable[Rollout], tokens: Tokens) -> None:
        """A sample of the interval's own correct rollouts, drawn by seed, interval, uid and session."""
        state, seed = self.state, self._parts.seed
        drawn = {stable_seed(seed, "own", state.interval, one.uid, one.session): one for one in correct}

        def read(orders: list[int]) -> Iterator[SftExample | None]:
            chosen = [drawn[order] for order in orders]
            for one, found in zip(chosen, tokens(chosen) if chosen else (), strict=True):
                prompt_id, _ = self._rows[one.uid]
                yield None if found is None else SftExample(prompt_id, tuple(found[0]), tuple(found[1]), "", "rollout")

        if self._parts.own_rollouts:
            state.own_rollouts = sample(state.own_rollouts, drawn, self._parts.own_rollouts, read)

    def _judge(self, uid: str, group: PromptGroup, row: Row, prompt_ids: Sequence[int]) -> None:
        use = self._parts.gate(group)
        if Use.SFT_NOW in use:
            self._now[uid] = group, row, prompt_ids
        if Use.SFT_LATER not in use or not self._parts.schedule.has_sft_phases:
            self.state.buffer.discard(group.prompt_id)
        elif (example := self._example(row, prompt_ids)) is not None:
            self.state.buffer.put(BufferEntry(group, example))

    def take_all(self, render: Callable[[Row], Sequence[int]]) -> None:
        """Put every prompt drawn in this step into the buffer, without rollouts: SFT on the data set's own."""
        for _, row in self._rows.values():
            if (example := self._example(row, render(row))) is not None:
                self.state.buffer.put(BufferEntry(None, example))

    def _example(self, row: Row, prompt_ids: Sequence[int]) -> SftExample | None:
        built = self._build(row, prompt_ids)
        if isinstance(built, Rejection):
            self.rejected[built.value] += 1
            return None
        return built

    def mix(self, uids: Iterable[str]) -> Mixed:
        """The demonstrations in the RL updates of this step, which train on the rollouts of these prompts."""
        uids = self.groups.keys() & set(uids)
        groups = {uid: self._now[uid][0] for uid in uids if uid in self._now}
        parts = self._parts

        def others() -> Iterator[SftExample]:
            found = (self._example(*drawn) for drawn in self._others(self.state.step, len(uids)))
            return (example for example in found if example is not None)

        self.mixed = mix(
            parts.gate, parts.mixing, self.progress, groups, lambda uid: self._example(*self._now[uid][1:]), others
        )
        return self.mixed

    @property
    def unasked_tokens(self) -> int:
        """Tokens of this step's prompts and whole demonstrations that stand in the place of rollouts."""
        given = ((self._given[uid], number) for (uid, _), number in self.members.items())
        whole = (example for example, number in given if number == len(example.response_ids))
        return sum(len(example.prompt_ids) + len(example.response_ids) for example in whole)

    @property
    def rl_lines(self) -> list[LedgerLine]:
        """The uses of demonstrations in this RL step, in the order of the ledger."""
        return self.member_lines + self.update_lines

    @property
    def member_lines(self) -> list[LedgerLine]:
        """The uses of demonstrations as this step's rollouts, by question and session."""
        return self._lines(
            "rollout",
            (
                (BufferEntry(self.groups.get(uid), self._given[uid]), num_tokens)
                for (uid, _), num_tokens in sorted(self.members.items())
            ),
        )

    @property
    def update_lines(self) -> list[LedgerLine]:
        """The uses of demonstrations in this step's RL updates."""
        return self._lines("update", [] if self.trained is None else self.trained.uses)

    def _lines(self, kind: str, uses: Iterable[tuple[BufferEntry, int]]) -> list[LedgerLine]:
        interval = self.state.interval - (self.ended is not None)
        return [LedgerLine.of(entry, interval, self.state.step + 1, number, kind) for entry, number in uses]

    @property
    def num_rollouts(self) -> int:
        """Rollouts of this step that are counted."""
        return sum(group.num_rollouts for group in self.groups.values())

    @property
    def accuracy(self) -> float | None:
        """Share of them that are correct; None if there are none."""
        right = sum(group.num_correct for group in self.groups.values())
        return right / self.num_rollouts if self.groups else None

    def next_phase(self) -> Phase:
        """What the schedule says, asked before a step and after its RL updates."""
        return self._parts.schedule(self.progress, len(self.state.buffer))

    @property
    def progress(self) -> Progress:
        """Where the run stands."""
        return Progress(self.state.step, self.state.interval, self.state.rl_steps, self._parts.steps, self._spent())

    def rl_ended(self, grad_norm: float | None = None, entropy: float | None = None) -> None:
        """An RL step of this interval is trained, on rollouts of this mean entropy."""
        now = self._parts.temperature if self.state.temperature is None else self.state.temperature
        after = now if entropy is None else self._parts.sampling.next_temperature(now, entropy)
        self.state.temperature = self.state.temperature if after == now else after
        self.state.rl_steps += 1
        if grad_norm is not None and isfinite(grad_norm):
            self.state.rl_grad_norms = [*self.state.rl_grad_norms, float(grad_norm)]

    def end_step(self) -> None:
        """A step is trained and recorded."""
        self.state.step += 1

    # ------------------------------------------------------------------ an SFT phase

    def has_demonstrations(self) -> bool:
        """Whether there is something to train on; a warning if there is not."""
        if not len(self.state.buffer):
            rejected = dict(sorted(self.rejected.items()))
            logger.warning(f"step {self.state.step + 1}: no prompt has a usable demonstration {rejected}")
        return bool(len(self.state.buffer))

    def oldest(self) -> list[BufferEntry]:
        """What a phase that begins now trains on."""
        return self.state.buffer.oldest(self._parts.limit)

    def begin_sft(
        self,
        mask: dict[str, Any] | None,
        before: Before | None,
        tokens: TokenSummary | None,
        own: Iterable[SftExample] = (),
    ) -> None:
        """Take out of the buffer what a phase trains on (MIFO step 6), beside these own rollouts of the interval."""
        size = len(self.state.buffer)
        entries = self.state.buffer.take(self._parts.limit)
        rejected = dict(sorted(self.rejected.items()))
        self.state.sft = SftProgress(entries, size, mask, rejected, before, tokens=tokens, own_rollouts=list(own))
        self.state.own_rollouts = []

    def batches(self) -> list[list[BufferEntry]]:
        """The updates of the phase that goes on: every pass in an order of its own, fixed by seed and interval."""
        assert self.state.sft is not None
        found: list[list[BufferEntry]] = []
        for number in range(self._parts.passes):
            order = self.state.sft.entries[:]
            random.Random(f"{self._parts.seed}/{self.state.interval}/{number}").shuffle(order)
            found += updates_of(order, self._parts.batch_size, self._parts.cut == "even")
        return found

    @property
    def sft_span(self) -> tuple[float, float]:
        """The shares of SFT's stage that are over before and after the next update."""
        assert self.state.sft is not None
        done, number = len(self.state.sft.updates), len(self.batches())
        share = partial(self._parts.schedule.sft_share, self.progress)
        return share(done / number), share((done + 1) / number)

    @property
    def grad_norm_ratio(self) -> float | None:
        """Mean gradient norm of the phase that goes on over that of its interval's RL steps, before the clip."""
        rl = self.state.rl_grad_norms
        sft = [] if self.state.sft is None else [update.grad_norm for update in self.state.sft.updates]
        sft = [norm for norm in sft if isfinite(norm)]
        return fmean(sft) / fmean(rl) if sft and sum(rl) else None

    def put_back(self) -> int:
        """The phase ends before its last update: what it has not trained on is the oldest of the buffer; how many."""
        assert self.state.sft is not None
        made = self.batches()[: len(self.state.sft.updates)]
        used = {entry.example.prompt_id for batch in made for entry in batch}
        unused = [entry for entry in self.state.sft.entries if entry.example.prompt_id not in used]
        self.state.buffer.put_back(unused)
        return len(unused)

    def end_sft(self) -> SftProgress:
        """The phase has ended, and with it the interval (MIFO step 7); the phase."""
        assert self.state.sft is not None
        self.ended, self.state.sft = self.state.sft, None
        self.state.interval += 1
        self.state.rl_steps, self.state.rl_grad_norms = 0, []
        return self.ended


def updates_of(rows: list[T], batch_size: int, evenly: bool) -> list[list[T]]:
    """The fewest updates of at most ``batch_size`` rows, in order: 65 rows at 64 are 33 + 32, or 64 + 1 if not evenly.

    Every update moves the weights as far under AdamW, however few rows it has.
    """
    if not evenly:
        return [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    number = -(-len(rows) // batch_size)
    ends = [-(-len(rows) * place // max(1, number)) for place in range(number + 1)]
    return [rows[start:end] for start, end in pairwise(ends)]
