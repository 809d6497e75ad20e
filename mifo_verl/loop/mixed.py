"""What an RL step trains on beside its rollouts or instead of them: demonstrations of its own questions. Pure."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mifo_verl.loop.streams import stable_seed
from mifo_verl.method.gate import Gate
from mifo_verl.method.mixing import Mixing, Weights
from mifo_verl.method.prefix import Prefix, Session
from mifo_verl.types import BufferEntry, Progress, PromptGroup, SftExample, Use


@dataclass(frozen=True)
class Mixed:
    """The demonstrations of one RL step."""

    weights: Weights
    entries: list[BufferEntry]
    """What counts in this step's updates, in the order of their questions."""
    without_rl: frozenset[str]
    """Uids of the questions whose rollouts leave the updates."""
    per_question: bool
    """Whether the SFT loss is a mean over the questions of an update, else over its demonstrations."""
    extra_trainings: int = 0
    """Passes with gradient over the rollouts, beside those of RL."""

    @property
    def is_rl(self) -> bool:
        """Whether the updates of this step are RL's, as if nothing were mixed."""
        return self.weights.rl == 1 and not self.entries


@dataclass(frozen=True)
class Trained:
    """What came of the demonstrations of one step."""

    loss: float
    """Mean over the updates that had some, not weighted."""
    uses: list[tuple[BufferEntry, int]]
    """Each use, in order, and how many of its tokens were kept."""


def mix(
    gate: Gate,
    mixing: Mixing,
    progress: Progress,
    groups: Mapping[str, PromptGroup],
    example: Callable[[str], SftExample | None],
    others: Callable[[], Iterable[SftExample]] = tuple,
) -> Mixed:
    """What the gate has trained now of whole groups, by uid. A question without a usable demonstration stays in RL.

    At weight 0 of SFT no question leaves RL. ``others`` are the step's of the data set, for a mixing that takes these.
    """
    weights = mixing(progress)
    entries: list[BufferEntry] = []
    without_rl: set[str] = set()
    from_dataset = mixing.demonstrations == "dataset"
    if from_dataset and weights.sft:
        entries = [BufferEntry(None, example) for example in others()]
    for uid, group in sorted(groups.items()) if weights.sft and not from_dataset else ():
        use = gate(group)
        if Use.SFT_NOW in use and (found := example(uid)) is not None:
            entries.append(BufferEntry(group, found))
            if Use.RL not in use:
                without_rl.add(uid)
    return Mixed(weights, entries, frozenset(without_rl), mixing.per == "question", mixing.extra_trainings)


def places(num_rows: int, number: int, seed: int, step: int) -> list[int]:
    """The rows of the data set that a step takes for itself: in each pass every row once, in an order of its own.

    They depend on nothing else, so that a resumed run goes on with the same.
    """
    taken = range(step * number, (step + 1) * number)
    orders = {
        number: random.Random(f"{seed}/dataset/{number}").sample(range(num_rows), num_rows)
        for number in {place // num_rows for place in taken}
    }
    return [orders[place // num_rows][place % num_rows] for place in taken]


def cut(entries: list[BufferEntry], num_updates: int, epochs: int, seed: int, step: int) -> list[list[BufferEntry]]:
    """The entries of each of a step's updates: every one once an epoch, evenly over its updates, in a drawn order.

    Fewer entries than updates are one each, in the first updates. A part is never empty.
    """
    parts = []
    for epoch in range(epochs):
        order = entries[:]
        random.Random(f"{seed}/mixed/{step}/{epoch}").shuffle(order)
        each, more = divmod(len(order), num_updates)
        sizes = [each + (place < more) for place in range(num_updates)]
        ends = [sum(sizes[: place + 1]) for place in range(num_updates)]
        parts += [order[end - size : end] for size, end in zip(sizes, ends, strict=True) if size]
    return parts


@dataclass(frozen=True)
class Start:
    """What one rollout begins with."""

    prompt_ids: tuple[int, ...]
    """The prompt's tokens as the demonstration was checked with; the rollout's own have to be the same."""
    tokens: tuple[int, ...]
    is_whole: bool
    """Whether that is the demonstration itself, behind which nothing is sampled: no server is asked."""
    is_first: bool
    """Whether it is the first of the sessions that follow the same rule, of a micro-group for instance."""


@dataclass(frozen=True)
class Given:
    """What the rollouts of a question begin with."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    """The demonstration, with its end token."""
    num_tokens: tuple[tuple[int, ...], ...]
    """How many of them each session begins with: one number, or one for 0, 1, 2 ... correct sessions before it.

    A session with k + 1 numbers waits for the first k sessions.
    """

    @property
    def stages(self) -> tuple[int, ...]:
        """The stage in which each session starts: 0, or the one behind those that it waits for."""
        stages: list[int] = []
        for numbers in self.num_tokens:
            stages.append(max((stage + 1 for stage in stages[: len(numbers) - 1]), default=0))
        return tuple(stages)

    def start(self, session: int, results: Mapping[int, bool]) -> Start:
        """What a session begins with, by whether each of those that it waits for is correct."""
        numbers = self.num_tokens[session]
        number = numbers[sum(results[earlier] for earlier in range(len(numbers) - 1))]
        return Start(
            prompt_ids=self.prompt_ids,
            tokens=self.response_ids[:number],
            is_whole=number == len(self.response_ids) > 0,
            is_first=session == 0 or numbers != self.num_tokens[session - 1],
        )

    def num_asking(self, stage: int, results: Mapping[int, bool]) -> int:
        """The sessions of a stage that ask a server and have no result yet."""
        own = [session for session, at in enumerate(self.stages) if at == stage and session not in results]
        return sum(not self.start(session, results).is_whole for session in own)


def give(
    prefix: Prefix,
    example: SftExample | None,
    step_ends: Callable[[Sequence[int]], Sequence[int]],
    n: int,
    progress: Progress,
    seed: int,
    uid: str,
) -> Given:
    """What each of a question's ``n`` sessions begins with; nothing if it has no usable demonstration.

    ``step_ends`` says where the steps of a response end, as counts of its tokens.
    """
    if example is None:
        return Given((), (), ((0,),) * n)
    ids, rows = tuple(example.response_ids), []
    ends, own_seed = tuple(step_ends(ids)), stable_seed(seed, "prefix", uid)
    for number in range(n):
        session = Session(number, n, len(ids), ends, progress, own_seed)
        row = tuple(prefix(session, num_correct) for num_correct in range(prefix.waits_for(number, n) + 1))
        rows.append(row if len(set(row)) > 1 else row[:1])  # what it would wait for decides nothing
    return Given(tuple(example.prompt_ids), ids, tuple(rows))
