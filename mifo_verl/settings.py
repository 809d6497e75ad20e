"""The typed settings that belong to no part: ``mifo.sft``, ``mifo.probe`` and the like, their ranges and defaults."""

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from mifo_verl.errors import exact_share
from mifo_verl.types import Share

Switch = Annotated[bool, Field(title="true or false")]
Size = Annotated[int, Field(ge=0, title="a whole number of at least 0")]
Count = Annotated[int, Field(ge=1, title="a whole number of at least 1")]
CountOrAll = Annotated[int | None, Field(ge=1, title="a whole number of at least 1")]
Positive = Annotated[float, Field(gt=0, title="a number above 0")]
"""Kinds of values; the title is the rule that an error names, a field's description is the cure."""


def _above_0(share: Share) -> Share:
    if not exact_share("share", share):
        raise ValueError("0 is no share of the rollouts")
    return share


_STRICT = ConfigDict(strict=True, extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class SftConfig:
    """How an SFT phase trains (``mifo.sft``)."""

    lr: Positive = Field(default=1e-6, description="the paper's value is 1e-6")
    """Learning rate of SFT, at its highest; the RL phase keeps its own with its own schedule."""
    batch_size: Count = Field(default=64, description="the paper's value is 64")
    """Demonstrations an update at most, over all ranks."""
    passes: Count = Field(default=1, description="use method=rl_only for RL alone")
    """Times that each buffered demonstration is trained on in a phase."""
    clip_grad: Positive = Field(default=1.0, description="use a large number to switch clipping off")
    """Largest gradient norm of an update, taken after the mask."""
    optimizer: Literal["shared", "separate", "fresh"] = "separate"
    """The AdamW of the RL phase, a second one that persists, or a new one every interval."""
    surplus: Literal["use", "keep"] = "use"
    """Whether what the buffer holds over S is used in this SFT phase or kept for the next one."""
    normalise: Literal["sequence", "token"] = "sequence"
    """Whether an update's loss is the mean over its sequences, each a mean over its tokens, or over all its tokens."""
    cut: Literal["even", "full"] = "even"
    """Whether the updates of a pass are as even as can be, or full but for the last: 33 + 32 or 64 + 1 of 65 at 64."""
    own_rollouts: Count = Field(default=64, description="the default is 64")
    """Own correct rollouts of an interval kept at most for its phase, if a part or ``max_kl`` needs them."""
    max_kl: Annotated[float | None, Field(gt=0, title="a number above 0")] = Field(
        default=None, description="use null for no limit"
    )
    """The KL of the policy at the phase's begin to the one now, mean over the tokens of own correct rollouts, behind
    which no further update of the phase is made; no limit if None."""
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls over SFT's stage: over a phase, or over phases that follow one another
    (``Schedule.sft_share``)."""
    lr_warmup_steps_ratio: Annotated[float, Field(ge=0, lt=1, title="a number in [0, 1)")] = Field(
        default=0.0, description="0 has no warm-up"
    )
    """The share of the stage in which it rises to its height, before it falls."""
    min_lr_ratio: Annotated[float, Field(ge=0, le=1, title="a number in [0, 1]")] = Field(
        default=0.0, description="0 lets it fall to 0"
    )
    """What it falls to, as a share of its height."""

    def rate(self, begin: float, end: float) -> float:
        """The learning rate of the update that goes from one share of SFT's stage to the other.

        It rises to the share at the update's end and falls by the share at its begin, so that no update has rate 0.
        """
        warmup = self.lr_warmup_steps_ratio
        fallen = max(0.0, begin - warmup) / (1 - warmup)
        height = {"constant": 1.0, "linear": 1 - fallen, "cosine": (1 + math.cos(math.pi * fallen)) / 2}
        height_now = self.min_lr_ratio + (1 - self.min_lr_ratio) * height[self.lr_scheduler_type]
        return self.lr * height_now * (min(1.0, end / warmup) if warmup else 1.0)

    @property
    def has_constant_rate(self) -> bool:
        """Whether every update has the same learning rate."""
        return self.lr_scheduler_type == "constant" and not self.lr_warmup_steps_ratio


@dataclass(frozen=True, config=_STRICT)
class ProbeConfig:
    """What is measured beside the training (``mifo.probe``); each probe costs time, and none changes the run."""

    around_sft: Switch = True
    """Measure at the borders of RL and SFT phases: all that follows but the last two."""
    every: Count = Field(default=1, description="use around_sft=false to measure nothing")
    """Intervals from one that is measured to the next; the first is."""
    prompts: CountOrAll = Field(default=64, description="use null for the whole validation set")
    """Validation prompts asked before and after an SFT phase, evenly spaced; all of them if None."""
    solved: Size = Field(default=32, description="use 0 to switch it off")
    """Training prompts last seen solved, asked before and after an SFT phase."""
    solved_accuracy: Annotated[
        Share, AfterValidator(_above_0), Field(title="a share in (0, 1], such as 1 or '3/4'")
    ] = Field(default=1, description="1 asks for every rollout to be right")
    """Rollout accuracy from which a training prompt is solved."""
    hard: Size = Field(default=32, description="use 0 to switch it off")
    """Prompts that an SFT phase trains on, the oldest first, asked before and after it."""
    demonstrations: Size = Field(default=64, description="use 0 to switch it off")
    """Held-out demonstrations whose cross-entropy is taken at every border."""
    demonstration_file: Annotated[str | None, Field(title="a parquet file")] = None
    """Parquet file with them; the validation data if None."""
    rollouts: Size = Field(default=32, description="use 0 to switch it off")
    """Answers to these validation prompts before an SFT phase, one each, on which KL, entropy and margin are taken."""
    kl_to_start: Switch = True
    """KL of the policy to the start of the interval on each RL batch: one more forward pass."""
    kl_rollouts: CountOrAll = Field(default=64, description="use null for the whole batch")
    """Rollouts of an RL batch on which that KL is taken, evenly spaced; all of them if None."""

    @property
    def shifts(self) -> bool:
        """Whether an SFT phase's policy is compared with the one before it."""
        return self.around_sft and self.rollouts > 0

    def is_due(self, interval: int) -> bool:
        """Whether this interval's borders are measured; the first interval is 1."""
        return self.around_sft and (interval - 1) % self.every == 0


@dataclass(frozen=True, config=_STRICT)
class InspectConfig:
    """What every SFT phase writes to ``inspection.jsonl`` (``mifo.inspect``)."""

    mask: Switch = True
    """The mask, the RL and the SFT update by layer and by kind of matrix; 2 bytes a coordinate on the host."""
    tokens: Switch = True
    """Entropies and positions of the tokens and of those kept, and the tokens kept most often."""
    examples: Size = Field(default=2, description="0 keeps no demonstration")
    """Demonstrations of a phase kept with every token, its entropy and whether it was kept."""
    example_tokens: Size = Field(default=512, description="0 keeps no demonstration")
    """Tokens of such a demonstration that are kept, from its first."""
    rollouts: Size = Field(default=2, description="0 keeps none")
    """Rollouts of every RL step kept to read in ``samples.jsonl``, from the worst to the best answered question."""


@dataclass(frozen=True, config=_STRICT)
class StateConfig:
    """Where an interval's state lies between its uses (``mifo.state``)."""

    device: Literal["gpu", "host"] = Field(default="gpu", description="host takes 8 bytes a coordinate off the GPU")
    """theta_start and what the mask remembers: beside the weights, or on pinned memory of the host, from where they are
    copied tensor by tensor when an SFT phase begins. With ``param_offload`` they lie on the host either way."""


@dataclass(frozen=True, config=_STRICT)
class CheckpointConfig:
    """What happens to checkpoints (``mifo.checkpoint``); ``trainer.save_freq`` says when one is made."""

    keep_last: Count = Field(default=2, description="the newest checkpoint is always kept")
    """Newest checkpoints that are kept."""
    keep_best: Size = Field(default=1, description="use 0 to keep none")
    """Further checkpoints that are kept, those of the highest validation accuracy."""
    save_final: Switch = True
    """Whether a run ends with a checkpoint of its last step, which evaluate, analyze and export read."""
    on_failed_save: Literal["continue", "stop"] = "continue"
    """What a run does whose checkpoint the disk refuses. The last good one is kept either way."""


@dataclass(frozen=True, config=_STRICT)
class WatchdogConfig:
    """When a wait is reported, and what ends the run with a reason (``mifo.watchdog``)."""

    factor: Positive = 2.0
    """A stage that takes this many times its median so far is reported, with what is awaited."""
    floor_seconds: Positive = 30.0
    """No stage is reported earlier."""
    first_seconds: Positive = 600.0
    """Nor one that has not ended once, while it gets on: it may load a model, compile, or merely be slow."""
    limit_seconds: Positive = 3600.0
    """A stage that takes longer ends the run with a reason."""
    stopped_seconds: Positive = 60.0
    """An actor whose process stays stopped (SIGSTOP, a debugger) for longer ends the run with a reason."""
    max_rollout_difference: Positive = 0.05
    """Mean |difference| of a response token's probability in the rollout server and in the actor above which the run
    ends, before its update: weights that did not arrive, or another dtype or temperature."""
    max_skipped_updates: Count = 3
    """Updates in a row, of the actor or the critic, that may be skipped because their gradient is not finite; one more
    ends the run."""


@dataclass(frozen=True, config=_STRICT)
class BudgetConfig:
    """The compute that a run may spend on training (``mifo.budget``); ``run/compute.py`` says how it counts."""

    flops: Annotated[float | None, Field(gt=0, title="a number above 0")] = Field(
        default=None, description="use null for no limit"
    )
    """The run ends with the step in which its training has spent this much; no limit if None."""
