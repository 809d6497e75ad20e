"""What happens in a run, as records: the schema of its JSON-lines files, in the order of their fields.

``StepEnded`` and ``UpdateMade`` are the lines of metrics.jsonl, ``LedgerLine`` of ledger.jsonl, ``Validated`` of
validation.jsonl, ``Noted`` of events.jsonl. A field that is UNSET is not in the file.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, to_builtins

from mifo_verl.types import BufferEntry


class Record(Struct, frozen=True, kw_only=True):
    """One line of a file."""

    def line(self) -> dict[str, Any]:
        """The record as JSON takes it."""
        return to_builtins(self, str_keys=True)


Accuracies = dict[str, float]
"""Accuracy by data source, and their ``mean``."""


class Staged(Record, frozen=True, kw_only=True):
    """The demonstrations in the updates of one RL step (mifo/mixing)."""

    demonstrations: Annotated[int, Meta(description="uses, each epoch of the step counted")]
    without_rl: Annotated[int, Meta(description="questions whose rollouts left the updates")]
    prompt_tokens: int
    response_tokens: int
    kept_tokens: Annotated[int, Meta(description="response tokens in the loss")]
    loss: Annotated[float, Meta(description="mean over the updates that had some, not weighted")]
    ledger_sha256: Annotated[str, Meta(description="digest of their ledger lines")]


class Policies(Record, frozen=True, kw_only=True):
    """A step of base weights, adapter and second policy, means over its updates; ``grad_norm`` is the base weights'."""

    adapter_grad_norm: float
    second_grad_norm: Annotated[float | None, Meta(description="of the second policy; null where it was not read")]
    cooperative_gain: Annotated[float | None, Meta(description="J_RL of the policy minus that of the second one")]
    clip_share: Annotated[float | None, Meta(description="of the tokens whose ratio to the second policy is clipped")]


class StepEnded(Record, frozen=True, kw_only=True):
    """One RL step."""

    step: Annotated[int, Meta(description="training step, from 1")]
    phase: str = "rl"
    interval: Annotated[int, Meta(description="interval that the step belongs to, from 1")]
    update: int = 0
    reward: Annotated[float | None, Meta(description="mean reward of the rollouts trained on")]
    accuracy: Annotated[float | None, Meta(description="share of all rollouts that are correct, filtered ones too")]
    entropy: Annotated[float | None, Meta(description="mean over the response tokens, nats")]
    kl_to_start: Annotated[float | None, Meta(description="KL of the policy to the interval's start, mean over tokens")]
    kl_tokens: Annotated[int | None, Meta(description="tokens that it was taken on")]
    kept_share: None = None
    frozen_share: float = 0.0
    loss: float | None
    grad_norm: float | None
    response_length: Annotated[float | None, Meta(description="mean, tokens")]
    rollout_difference: Annotated[
        float | None, Meta(description="of a response token's probability, server against actor, mean")
    ] = None
    rollouts: Annotated[int, Meta(description="rollouts counted for accuracy, those of filtered groups too")]
    fallback_share: Annotated[float | None, Meta(description="verdicts by letters: an answer was unreadable")] = None
    prompt_tokens: Annotated[int, Meta(description="of all rollouts trained on")]
    response_tokens: Annotated[int, Meta(description="of all rollouts trained on")]
    rejected_demonstrations: Annotated[dict[str, int], Meta(description="prompts not taken into the buffer, by reason")]
    prompts: Annotated[list[list[Any]], Meta(description="prompt id, correct rollouts, rollouts (prompts.jsonl)")]
    memory_gb: Annotated[dict[str, float | None], Meta(description="peaks, GiB (memory.jsonl)")]
    seconds: Annotated[dict[str, float], Meta(description="by stage")]
    discarded_rollouts: Annotated[int, Meta(description="made and not trained on: filtered, or surplus of a refill")]
    generated_tokens: Annotated[int, Meta(description="response tokens of all rollouts made")]
    flops: Annotated[int, Meta(description="compute of the step, estimated")]
    buffer_size: Annotated[int, Meta(description="hard prompts in the buffer after the step")]
    cross_entropy_before: Annotated[float | UnsetType | None, Meta(description="of held-out demonstrations")] = UNSET
    cross_entropy_after: Annotated[float | UnsetType | None, Meta(description="when the RL phase ends here")] = UNSET
    members: Annotated[int | UnsetType, Meta(description="rollouts that begin with given tokens (mifo/prefix)")] = UNSET
    prefix_tokens: Annotated[int | UnsetType, Meta(description="their given tokens, among response_tokens")] = UNSET
    members_sha256: Annotated[str | UnsetType, Meta(description="digest of their ledger lines")] = UNSET
    mixing: Annotated[dict[str, float] | UnsetType, Meta(description="weights of the two losses, if not RL's")] = UNSET
    staged: Annotated[Staged | UnsetType, Meta(description="demonstrations in the step's updates")] = UNSET
    sampling: Annotated[
        dict[str, float] | UnsetType,
        Meta(description="temperature, max_tokens of rollouts, if not the run's own"),
    ] = UNSET
    policies: Annotated[Policies | UnsetType, Meta(description="if base weights train beside an adapter")] = UNSET
    validation: Accuracies | None = None


class OwnUsed(Record, frozen=True, kw_only=True):
    """The policy's own correct rollouts in an SFT update, beside the demonstrations."""

    rollouts: int
    tokens: Annotated[int, Meta(description="of their responses")]
    loss: Annotated[float, Meta(description="before the update, not weighted")]


class UpdateMade(Record, frozen=True, kw_only=True):
    """One update of an SFT phase; the last of a phase has what was measured of the whole phase."""

    step: int
    phase: str = "sft"
    interval: int
    update: Annotated[int, Meta(description="number in the phase, from 1")]
    reward: None = None
    accuracy: None = None
    entropy: Annotated[float, Meta(description="mean over the response tokens, nats")]
    kl_to_start: None = None
    buffer_size: Annotated[int, Meta(description="hard prompts in the buffer when the phase began")]
    kept_share: Annotated[float, Meta(description="response tokens in the loss, of all")]
    frozen_share: Annotated[float, Meta(description="coordinates that the update may not move, of all")]
    loss: float
    grad_norm: float
    lr: Annotated[float | UnsetType, Meta(description="learning rate of the update")] = UNSET
    demonstrations: int
    prompt_tokens: int
    response_tokens: int
    kept_tokens: int
    ledger_sha256: Annotated[str, Meta(description="digest of the update's ledger lines")]
    skipped_updates: Annotated[int, Meta(description="skipped in a row up to this one: gradient not finite")] = 0
    own: Annotated[OwnUsed | UnsetType, Meta(description="own correct rollouts in the update")] = UNSET
    own_kl: Annotated[float | UnsetType, Meta(description="after the update, on all that are kept (max_kl)")] = UNSET
    updates_left: Annotated[int | UnsetType, Meta(description="of the phase that max_kl has ended here")] = UNSET
    seconds: dict[str, float] = {}
    mask: Annotated[dict[str, Any] | UnsetType | None, Meta(description="the phase's mask, over all ranks")] = UNSET
    rejected_demonstrations: dict[str, int] | UnsetType = UNSET
    frozen_drift: Annotated[float | UnsetType | None, Meta(description="largest change of a frozen value")] = UNSET
    grad_norm_ratio: Annotated[
        float | UnsetType | None, Meta(description="mean gradient norm of the phase over its interval's RL steps")
    ] = UNSET
    rl_step_factor: Annotated[
        float | UnsetType, Meta(description="times RL's next step of a held weight is too long; 1 if not shared")
    ] = UNSET
    inspection: Annotated[dict[str, Any] | UnsetType, Meta(description="mask and tokens (inspection.jsonl)")] = UNSET
    accuracy_before: Accuracies | UnsetType | None = UNSET
    accuracy_after: Accuracies | UnsetType | None = UNSET
    cross_entropy_before: float | UnsetType | None = UNSET
    cross_entropy_after: float | UnsetType | None = UNSET
    kl_to_before: float | UnsetType | None = UNSET
    policy_entropy_before: float | UnsetType | None = UNSET
    policy_entropy_after: float | UnsetType | None = UNSET
    reward_margin_before: float | UnsetType | None = UNSET
    reward_margin_after: float | UnsetType | None = UNSET
    solved_accuracy_before: float | UnsetType | None = UNSET
    solved_accuracy_after: float | UnsetType | None = UNSET
    hard_accuracy_before: float | UnsetType | None = UNSET
    hard_accuracy_after: float | UnsetType | None = UNSET
    probe: Annotated[dict[str, int] | UnsetType, Meta(description="what the probes asked and passed forward")] = UNSET
    flops: int


class LedgerLine(Record, frozen=True, kw_only=True):
    """One use of a demonstration, with where it came from."""

    interval: int
    step: int
    prompt_id: str
    num_correct: Annotated[int | None, Meta(description="of the prompt's newest rollouts; null without any")]
    num_rollouts: int | None
    demonstration_sha256: str
    source: Annotated[str, Meta(description="the data set, or the model that wrote it")]
    response_tokens: int
    kept_tokens: Annotated[int, Meta(description="of them in the loss; of a rollout, those that it begins with")]
    kind: Annotated[str, Meta(description="used in an SFT phase, in an RL update (update), or as a rollout")] = "phase"

    @classmethod
    def of(cls, entry: BufferEntry, interval: int, step: int, kept_tokens: int, kind: str = "phase") -> "LedgerLine":
        """The line of one use of an entry."""
        group, example = entry.group, entry.example
        return cls(
            interval=interval,
            step=step,
            prompt_id=example.prompt_id,
            num_correct=None if group is None else group.num_correct,
            num_rollouts=None if group is None else group.num_rollouts,
            demonstration_sha256=example.demonstration_sha256,
            source=example.source,
            response_tokens=len(example.response_ids),
            kept_tokens=kept_tokens,
            kind=kind,
        )


class RolloutSeen(Record, frozen=True, kw_only=True):
    """One rollout of a step, to read (``mifo.inspect.rollouts``)."""

    step: int
    interval: int
    prompt_id: str
    prompt: Annotated[str, Meta(description="as the model saw it, at most 4,000 characters")]
    text: Annotated[str, Meta(description="the rollout, at most 4,000 characters: its beginning and its end")]
    answer: Annotated[str, Meta(description="the right one")]
    correct: bool
    method: Annotated[str | None, Meta(description="what the verdict rests on, if the reward says so")]
    num_correct: Annotated[int, Meta(description="of all rollouts of this question in this step")]
    num_rollouts: int


class Validated(Record, frozen=True, kw_only=True):
    """The validation after a step; step 0 is the start."""

    step: int
    accuracy: Accuracies


class Noted(Record, frozen=True, kw_only=True):
    """What a person should know: a checkpoint made, resumed, skipped or failed, a stage that is late."""

    time: Annotated[float, Meta(description="seconds since 1970")]
    kind: str
    text: str


Event = StepEnded | UpdateMade | LedgerLine | RolloutSeen | Validated | Noted

FILES: Mapping[str, tuple[type[Record], ...]] = {
    "metrics.jsonl": (StepEnded, UpdateMade),
    "ledger.jsonl": (LedgerLine,),
    "samples.jsonl": (RolloutSeen,),
    "validation.jsonl": (Validated,),
    "events.jsonl": (Noted,),
}
"""The records of every file."""
