"""What the loop is given: the parts that it asks, finished rollouts, and the functions that read rows and tokens."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mifo_verl.method.gate import Gate
from mifo_verl.method.mixing import Mixing, NoMixing
from mifo_verl.method.prefix import NoPrefix, Prefix
from mifo_verl.method.sampling import Fixed, Sampling
from mifo_verl.method.schedule import Schedule
from mifo_verl.types import Rejection, SftExample, Share

Row = dict[str, Any]
"""A row of the data set."""
Build = Callable[[Row, Sequence[int]], SftExample | Rejection]
"""The row's verified demonstration after these prompt tokens, or the reason why there is none."""


Others = Callable[[int, int], Iterable[tuple[Row, Sequence[int]]]]
"""So many rows of the data set, with the tokens of their prompts, for the step of this number by itself."""


@dataclass(frozen=True)
class Rollout:
    """One finished trajectory. An agent loop may put out several of a session; the last is the answer."""

    uid: str
    """Of the prompt drawn."""
    session: int
    index: int
    """Place among the outputs of the session."""
    correct: object
    """What the reward said, not looked at yet: 0 or 1."""
    is_padding: bool = False
    prefix_tokens: int = 0
    """Tokens of a demonstration that it begins with: above 0 it is a member of the group, and no rollout to count."""
    is_fallback: bool = False
    """Whether the verdict rests on letters alone, because an answer could not be read."""


Tokens = Callable[[Sequence[Rollout]], Sequence[tuple[Sequence[int], Sequence[int]] | None]]
"""The tokens of prompt and response of finished trajectories; None where others have written into a response."""


@dataclass(frozen=True)
class Parts:
    """The parts and settings that the loop asks."""

    gate: Gate
    schedule: Schedule
    num_rollouts: int
    """N: rollouts of a prompt."""
    seed: int
    batch_size: int
    """Demonstrations of an SFT update."""
    cut: str
    """``even``: the updates of a pass differ by one demonstration at most; ``full``: all but its last are full."""
    passes: int
    """Times that a phase trains on each of its demonstrations."""
    limit: int | None
    """Demonstrations that a phase takes out of the buffer; all of them if None."""
    solved: int
    """Ids of solved prompts that are remembered."""
    solved_accuracy: Share
    steps: int = 1000
    """Training steps of the whole run."""
    mixing: Mixing = field(default_factory=NoMixing)
    prefix: Prefix = field(default_factory=NoPrefix)
    sampling: Sampling = field(default_factory=Fixed)
    temperature: float = 1.0
    """Of the run's rollouts."""
    own_rollouts: int = 0
    """Correct rollouts of an interval that are kept for its SFT phase."""


def no_tokens(rollouts: Sequence[Rollout]) -> list[None]:
    """Of rollouts whose tokens are not at hand."""
    return [None] * len(rollouts)


def no_others(step: int, number: int) -> Iterable[tuple[Row, Sequence[int]]]:
    """Of a run that takes no demonstrations from the data set beside its own questions'."""
    return ()
