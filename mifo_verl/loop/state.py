"""What a run must know to go on: one object, which trains, is written by a checkpoint and is read back by a resume."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from mifo_verl.loop.events import LedgerLine, RolloutSeen, StepEnded, UpdateMade
from mifo_verl.loop.own_rollouts import OwnRollout
from mifo_verl.loop.tokens import TokenSummary
from mifo_verl.method.buffer import DemonstrationBuffer
from mifo_verl.types import BufferEntry, SftExample

FOLDER, FILE = "mifo", "loop.json"
"""In a checkpoint's folder, what is ours: ``LoopState`` and every rank's part."""


@dataclass(frozen=True)
class Answer:
    """One answer to a prompt, as token ids."""

    prompt_ids: list[int]
    response_ids: list[int]
    is_correct: bool


@dataclass
class Accuracies:
    """Accuracies on the three sets of prompts; None if a set is empty."""

    held_out: dict[str, float] | None = None
    """By data source, and their mean."""
    solved: float | None = None
    hard: float | None = None


@dataclass
class Before:
    """What was measured before an SFT phase."""

    cross_entropy_start: float | None
    """Before the RL phase of the interval."""
    cross_entropy: float | None
    solved: list[str]
    """Ids of the prompts that are asked as solved ones."""
    hard: list[str]
    accuracies: Accuracies = field(default_factory=Accuracies)
    rollouts: list[Answer] = field(default_factory=list)
    """The policy's own answers to held-out prompts."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Prompts of each set, demonstrations and rollouts; response tokens generated and passed forward so far."""


@dataclass
class SftProgress:
    """An SFT phase on its way."""

    entries: list[BufferEntry]
    """What the phase trains on, in the order taken from the buffer."""
    buffer_size: int
    """What the buffer held when the phase began."""
    mask: dict[str, Any] | None
    """The report of the mask; None if nothing is frozen."""
    rejected: dict[str, int]
    before: Before | None = None
    """What the probes measured before it; None if they did not."""
    updates: list[UpdateMade] = field(default_factory=list)
    """Made so far."""
    ledger: list[LedgerLine] = field(default_factory=list)
    """Their uses of demonstrations."""
    rl_line: StepEnded | None = None
    """The record of the RL step that filled the buffer, if it is not written yet."""
    rl_ledger: list[LedgerLine] = field(default_factory=list)
    """And the uses of demonstrations in that step's own updates."""
    rl_samples: list[RolloutSeen] = field(default_factory=list)
    """And the rollouts of that step that are kept to read."""
    tokens: TokenSummary | None = None
    """The tokens of the updates made so far, if they are inspected."""
    own_rollouts: list[SftExample] = field(default_factory=list)
    """The policy's own of the interval, in the order of their turns, if something needs them; with log-probs of the
    policy at the phase's begin, if these are needed."""

    def note(self, **fields: Any) -> None:
        """Add what was measured of the whole phase to its last update's record."""
        self.updates[-1] = msgspec.structs.replace(self.updates[-1], **fields)

    def timed_updates(self, seconds: float, of_last: dict[str, float]) -> list[UpdateMade]:
        """The records of the updates, which took so many seconds together; the last has ``of_last`` too."""
        each = {"sft": seconds / len(self.updates)}
        timed = [msgspec.structs.replace(update, seconds=each) for update in self.updates]
        return [*timed[:-1], msgspec.structs.replace(timed[-1], seconds=each | of_last)]


@dataclass
class LoopState:
    """Where a run stands."""

    step: int = 0
    """Training steps finished."""
    interval: int = 1
    """One RL phase and the SFT phase that ends it."""
    rl_steps: int = 0
    """RL steps finished in this interval."""
    rl_grad_norms: list[float] = field(default_factory=list)
    """Mean gradient norms of those, before the clip."""
    drawn: int = 0
    """Prompts drawn from the data set."""
    buffer: DemonstrationBuffer = field(default_factory=DemonstrationBuffer)
    sft: SftProgress | None = None
    """The SFT phase that goes on."""
    solved: list[str] = field(default_factory=list)
    """Ids of the training prompts last seen solved, the newest last."""
    accuracy_start: dict[str, float] = field(default_factory=dict)
    """Of the validation before the first step; empty if there was none."""
    cross_entropy_start: float | None = None
    """Of the held-out demonstrations at the start of the interval, if it was measured."""
    uncounted_tokens: int = 0
    """Response tokens that probes have passed forward and no record counts yet."""
    measured_on: str = ""
    """Digest of the data and settings that the probes' values were measured with."""
    kl_in_reward: float | None = None
    """verl's coefficient of the KL penalty in the reward, which its adaptive controller moves at every step."""
    elapsed_seconds: float = 0.0
    """What the run took in all processes before this one; in a checkpoint, up to it."""
    temperature: float | None = None
    """Of the next step's rollouts, if mifo/sampling has moved it from the run's own."""
    own_rollouts: list[OwnRollout] = field(default_factory=list)
    """Of the interval, kept for its SFT phase, if something needs them; replaced as a whole, never written to."""

    def snapshot(self) -> "LoopState":
        """The state as it is now, apart from what the next step does before its update."""
        return replace(self, buffer=DemonstrationBuffer(dict(self.buffer.entries)), solved=list(self.solved))

    def save(self, folder: Path) -> None:
        """Write ``loop.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(json.dumps(msgspec.to_builtins(self, str_keys=True)) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "LoopState":
        """Read ``loop.json`` back. Raises ValueError if it is of another version."""
        text = (folder / FILE).read_text()
        try:
            return msgspec.convert(json.loads(text), cls, str_keys=True)
        except msgspec.ValidationError as error:
            raise ValueError(f"{folder / FILE} is not the state of this version ({error}); start a new run") from None

    @property
    def held(self) -> list[BufferEntry]:
        """The demonstrations in it: of the buffer, then of the phase in progress."""
        return [*self.buffer, *(self.sft.entries if self.sft is not None else [])]

    def origin(self, checkpoint: Path) -> dict[str, Any]:
        """What the records of another run that goes on from here follow: this step, interval and these hard prompts."""
        groups = [entry.group for entry in self.held if entry.group is not None]
        counts = [[group.prompt_id, group.num_correct, group.num_rollouts] for group in groups]
        return {"checkpoint": str(checkpoint), "step": self.step, "interval": self.interval, "prompts": counts}
