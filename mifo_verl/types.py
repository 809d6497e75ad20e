"""The nouns that every part of mifo_verl shares. Standard library only."""

from dataclasses import dataclass
from enum import Enum, Flag, auto

Share = float | str
"""A share in [0, 1] as the user typed it: ``0.125`` or ``"1/8"``."""


class Phase(str, Enum):
    """What a training step does."""

    RL = "rl"
    SFT = "sft"


class Use(Flag):
    """What a question is used for once its rollouts are scored; members combine with ``|``."""

    RL = auto()
    """Its rollouts count in this step's RL update."""
    SFT_LATER = auto()
    """Its demonstration joins the buffer, for the next SFT phase."""
    SFT_NOW = auto()
    """Its demonstration counts in this step's update, beside its rollouts or, without RL, instead of them."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands. All counts start at 0 except ``interval``, which starts at 1 (MIFO section 3)."""

    step: int
    """Training steps finished."""
    interval: int
    """The current interval i: one RL phase and the SFT phase that ends it."""
    rl_steps: int
    """RL steps finished in this interval."""
    steps: int = 1000
    """Training steps of the whole run, the paper's unless it is known."""
    spent: float = 0.0
    """The share of ``mifo.budget.flops`` that is spent; 0 without a budget."""

    @property
    def share(self) -> float:
        """The share of the run that is over, of its steps or of its budget, whichever ends it first; in [0, 1]."""
        return min(1.0, max(self.step / self.steps, self.spent))

    def stage(self, number: int) -> int:
        """In which of so many equal parts the run stands, from 0; by steps in whole numbers."""
        return min(number - 1, max(self.step * number // self.steps, int(self.spent * number)))


@dataclass(frozen=True)
class PromptGroup:
    """The rollouts of one prompt in one RL step, as integer counts."""

    prompt_id: str
    num_correct: int
    num_rollouts: int
    step: int


@dataclass(frozen=True)
class Demonstration:
    """A worked solution of one prompt, before verification."""

    prompt_id: str
    text: str
    answer: str
    source: str = "dataset"
    """Where it comes from: the data set, or the model that wrote it."""


@dataclass(frozen=True)
class SftExample:
    """A verified demonstration as token ids: the rollout's own prompt tokens, then the response with its end token."""

    prompt_id: str
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    demonstration_sha256: str
    source: str = "dataset"
    teacher_log_probs: tuple[float, ...] = ()
    """log p of every response token by the model that wrote it, in nats; empty unless a part needs it."""


class Rejection(Enum):
    """Why a prompt has nothing to train on. The value is the word for logs and metrics."""

    MISSING = "missing"
    """The row has no demonstration."""
    WRONG = "wrong"
    """The demonstration's answer is not the ground truth."""
    TOO_LONG = "too_long"
    """The response does not fit; a demonstration is never cut."""
    NO_TEACHER = "no_teacher"
    """A part needs the teacher's log-probabilities, and the row has none of just these tokens."""


@dataclass(frozen=True)
class BufferEntry:
    """One hard prompt in the SFT buffer, with where it came from."""

    group: PromptGroup | None
    """The rollouts that made the prompt hard; None where the prompt came from the data set without rollouts."""
    example: SftExample


@dataclass(frozen=True)
class RunFacts:
    """What a part may know of the run around it, to say whether it fits and what it costs. Defaults are the paper's.

    Counts are of the whole run, over all ranks.
    """

    steps: int = 1000
    """Training steps: those that the run makes, not those that its epochs hold."""
    rows: int = 45_800
    """Training prompts."""
    demonstrations: int = 45_800
    """Training prompts with a demonstration."""
    prompts: int = 128
    """Prompts of a rollout batch (``data.train_batch_size``)."""
    num_rollouts: int = 8
    """N, rollouts of a prompt."""
    mini_batch: int = 64
    """Prompts of an RL update (``ppo_mini_batch_size``)."""
    epochs: int = 1
    """Passes of RL over a rollout batch (``ppo_epochs``)."""
    ranks: int = 1
    prompt_tokens: int = 1024
    response_tokens: int = 8192
    temperature: float = 1.0
    algorithm: str = "grpo"
    """``algorithm.adv_estimator``."""
    loss_aggregation: str = "seq-mean-token-sum-norm"
    """``loss_agg_mode`` of the actor."""
    has_critic: bool = False
    corrects_rollouts: bool = False
    """Whether ``algorithm.rollout_correction`` weighs tokens by what the rollout server said of them."""
    weights_dtype: str = "fp32"
    """Of the actor's master weights (``fsdp_config.model_dtype``)."""
    optimizer: str = "AdamW"
    lr_schedule: str = "constant"
    has_sft_phases: bool = True
    starts_with_sft: bool = False
    """Whether an interval may begin with SFT, before it has any rollout."""
    trains_now: bool = False
    """Whether the gate may have a question's demonstration trained on in an RL step."""
    has_prefixes: bool = False
    """Whether rollouts may begin with given tokens."""
    lora_rank: int = 0
    """Of the adapter; 0 without one."""
    colocates_rewards: bool = False
    """Whether a reward model takes turns with the rollout server on the same devices."""
    filters_groups: bool = False
    """Whether groups without contrast are discarded before the update (``algorithm.filter_groups``, DAPO)."""
    sft_optimizer: str = "separate"
    sft_surplus: str = "use"


@dataclass(frozen=True)
class Problem:
    """What does not fit in a run, said as ``setting=value must be rule; cure``; advice has no "must be"."""

    setting: str
    value: object
    rule: str
    cure: str
    is_error: bool = True


@dataclass(frozen=True)
class Cost:
    """What a part keeps on the device, in bytes a coordinate of the model, shared over the ranks that hold a copy."""

    name: str
    num_bytes: float
    phases: tuple[str, ...]
    """Of ``rollout``, ``rl`` and ``sft``: those in which it is held."""
    formula: str
    """For people; T trained coordinates, W ranks, k share frozen."""
    saved_bytes: float = 0.0
    """Of a checkpoint, a coordinate."""
    host_bytes: float = 0.0
    """Held on the host all the time, a coordinate."""
    is_state: bool = False
    """Whether it lies where ``mifo.state.device`` says."""
