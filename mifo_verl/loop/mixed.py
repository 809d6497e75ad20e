"""What an RL step trains on beside its rollouts or instead of them: demonstrations of its own questions. Pure."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mifo_verl.loop.streams import stable_seed
from mifo_verl.method.gate import Gate
from mifo_verl.method.mixing import Mixing, Weights
from mifo_verl.method.prefix import Prefix, num_tokens
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
) -> Mixed:
    """What the gate has trained now of whole groups, by uid. A question without a usable demonstration stays in RL.

    At weight 0 of SFT no question leaves RL.
    """
    weights = mixing(progress)
    entries: list[BufferEntry] = []
    without_rl: set[str] = set()
    for uid, group in sorted(groups.items()) if weights.sft else ():
        use = gate(group)
        if Use.SFT_NOW in use and (found := example(uid)) is not None:
            entries.append(BufferEntry(group, found))
            if Use.RL not in use:
                without_rl.add(uid)
    return Mixed(weights, entries, frozenset(without_rl), mixing.per == "question")


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
class Given:
    """What the rollouts of a question begin with."""

    prompt_ids: tuple[int, ...]
    """The prompt's tokens as the demonstration was checked with; the rollout's own have to be the same."""
    response_ids: tuple[int, ...]
    """The demonstration, with its end token."""
    num_tokens: tuple[int, ...]
    """How many of them each session begins with."""

    def num_whole(self) -> int:
        """The sessions that are the demonstration itself: they ask no server."""
        return sum(number == len(self.response_ids) > 0 for number in self.num_tokens)


def give(prefix: Prefix, example: SftExample | None, n: int, progress: Progress, seed: int, uid: str) -> Given:
    """What each of a question's ``n`` sessions begins with; nothing if it has no usable demonstration."""
    if example is None:
        return Given((), (), (0,) * n)
    shares = (prefix(session, n, progress, stable_seed(seed, "prefix", uid, session)) for session in range(n))
    tokens = tuple(num_tokens(share, len(example.response_ids)) for share in shares)
    return Given(tuple(example.prompt_ids), tuple(example.response_ids), tokens)
