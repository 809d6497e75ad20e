"""The memory and disk that a run takes, by component, counted from the model's shape. Standard library only.

Symbols of the formulas: N coordinates of the model, U of its largest FSDP unit, W ranks that
share a copy, t tokens of a micro-batch on a rank, L layers, h width, f width of the MLP, c = key-value heads x head
width, V vocabulary, b bytes of a number in the forward pass, k share frozen. All results are bytes.
"""

from dataclasses import dataclass
from typing import Literal

from mifo_verl.types import Cost

FP32 = 4
PHASES = ("rollout", "rl", "sft")
Place = Literal["device", "host", "disk"]
PROCESS_BYTES = 400_000_000
"""A process that has imported verl, what it shares with others divided among them; measured."""
ROLLOUT_TOKEN_BYTES = 68
"""A token in TransferQueue: six columns of int64 and five of float32."""


@dataclass(frozen=True)
class ModelShape:
    """What the count needs of a model."""

    num_parameters: int
    largest_unit: int
    """Parameters of the largest unit that FSDP gathers: a layer, or the embeddings."""
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    is_tied: bool
    """Whether the LM head shares the embedding's weights."""


@dataclass(frozen=True)
class MemoryPlan:
    """What the count needs of a run."""

    ranks: int
    ranks_a_node: int
    shard_ranks: int
    """Ranks that share one copy of the weights."""
    compute_bytes: int
    tokens: int
    """Tokens of a micro-batch on one rank, at most."""
    is_checkpointed: bool
    offloads_parameters: bool
    offloads_optimizer: bool
    keeps_start: bool
    keeps_before_sft: bool
    """Whether every rank keeps its shard as it was before an SFT phase, on the host."""
    of_parts: tuple[Cost, ...]
    """What the parts keep."""
    probes_kl: bool
    sft_optimizer: str
    """shared, separate, fresh; none where no SFT phase ever comes."""
    has_reference: bool
    reference_bytes: int
    has_critic: bool
    rollout_bytes: int
    """Bytes of a weight in a rollout server."""
    rollout_ranks: int
    """Ranks that share one rollout server."""
    sequences_in_flight: int
    """Sequences that one rollout server runs at a time."""
    sequence_tokens: int
    rollouts: int
    """Sequences of a step."""
    sync_bytes: int
    num_checkpoints: int
    num_processes: int
    """On a node, those that import verl."""


@dataclass(frozen=True)
class Component:
    """One row of the prediction."""

    name: str
    place: Place
    num_bytes: float
    """On one rank for the device, on one node for the host, in all for the disk."""
    phases: tuple[str, ...]
    formula: str


def predict(shape: ModelShape, plan: MemoryPlan) -> list[Component]:
    """Every component that a run needs, those of 0 bytes left out."""
    found = [*_training(shape, plan), *_interval(shape, plan), *_rollout(shape, plan)]
    found += [*_host(shape, plan), *_disk(shape, plan)]
    return [component for component in found if component.num_bytes > 0]


def total(components: list[Component], place: Place, phase: str) -> float:
    """The sum of a place in a phase."""
    return sum(c.num_bytes for c in components if c.place == place and phase in c.phases)


def peak(components: list[Component], place: Place) -> float:
    """The largest sum over the phases."""
    return max(total(components, place, phase) for phase in PHASES)


def _training(shape: ModelShape, plan: MemoryPlan) -> list[Component]:
    n, b, t = shape.num_parameters / plan.shard_ranks, plan.compute_bytes, plan.tokens
    update = ("rl", "sft")
    weights_stay = update if plan.offloads_parameters else PHASES
    moments_stay = update if plan.offloads_optimizer else PHASES
    kv = shape.num_kv_heads * shape.head_dim
    layer = t * b * (6 * shape.hidden_size + 3 * kv + 4 * shape.intermediate_size)
    layers = layer + t * b * shape.hidden_size * shape.num_layers if plan.is_checkpointed else layer * shape.num_layers
    activations = "t*b*(6h + 3c + 4f)" + (" + t*b*h*L" if plan.is_checkpointed else "*L")
    return [
        Component("parameters", "device", FP32 * n, weights_stay, "4N/W"),
        Component("gradients", "device", FP32 * n, update, "4N/W"),
        Component("optimizer", "device", 2 * FP32 * n, moments_stay, "8N/W"),
        Component("critic", "device", 4 * FP32 * n * plan.has_critic, PHASES, "16N/W"),
        Component("gathered layers", "device", 2 * b * shape.largest_unit, update, "2b*U"),
        Component("activations", "device", layers, update, activations),
        Component("logits and entropy", "device", t * shape.vocab_size * (2 * b + FP32), update, "t*V*(2b + 4)"),
    ]


def _interval(shape: ModelShape, plan: MemoryPlan) -> list[Component]:
    n = shape.num_parameters / plan.shard_ranks
    stay = ("rl", "sft") if plan.offloads_parameters else PHASES
    second = {"separate": PHASES, "fresh": ("sft",)}.get(plan.sft_optimizer, ())
    second = ("sft",) if second and plan.offloads_optimizer else second
    return [
        Component("SFT optimizer", "device", 2 * FP32 * n if second else 0, second, "8N/W"),
        Component("theta_start", "device", FP32 * n * plan.keeps_start, stay, "4N/W"),
        *(Component(cost.name, "device", cost.num_bytes * n, cost.phases, cost.formula) for cost in plan.of_parts),
        Component("weights aside for KL", "device", FP32 * n * plan.probes_kl, ("rl",), "4N/W"),
    ]


def _rollout(shape: ModelShape, plan: MemoryPlan) -> list[Component]:
    kv = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * plan.rollout_bytes
    tokens = plan.sequences_in_flight * plan.sequence_tokens
    weights = plan.rollout_bytes * shape.num_parameters
    return [
        Component("rollout weights", "device", weights / plan.rollout_ranks, ("rollout",), "b*N/R"),
        Component("KV cache", "device", kv * tokens / plan.rollout_ranks, ("rollout",), "2b*L*c*tokens/R"),
        Component("weight sync", "device", 2 * plan.sync_bytes, ("rollout",), "2 buckets"),
    ]


def _host(shape: ModelShape, plan: MemoryPlan) -> list[Component]:
    n, ranks = shape.num_parameters / plan.shard_ranks, plan.ranks_a_node
    moments = 2 * FP32 * n * (2 if plan.sft_optimizer == "separate" else 1)
    copies = ranks if shape.is_tied else 1
    queue = plan.rollouts * plan.sequence_tokens * ROLLOUT_TOKEN_BYTES
    return [
        Component("processes", "host", PROCESS_BYTES * plan.num_processes, PHASES, "0.4 GB*processes"),
        Component("loading", "host", FP32 * shape.num_parameters * copies, ("rollout",), f"4N*{copies}"),
        Component("reference", "host", plan.reference_bytes * n * ranks * plan.has_reference, PHASES, "b*N/W*ranks"),
        Component("parameters offloaded", "host", FP32 * n * ranks * plan.offloads_parameters, PHASES, "4N/W*ranks"),
        Component("optimizer offloaded", "host", moments * ranks * plan.offloads_optimizer, PHASES, "8N/W*ranks"),
        Component("weights before SFT", "host", FP32 * n * ranks * plan.keeps_before_sft, PHASES, "4N/W*ranks"),
        *(
            Component(cost.name, "host", cost.host_bytes * n * ranks, PHASES, f"{cost.host_bytes:g}N/W*ranks")
            for cost in plan.of_parts
        ),
        Component("rollouts", "host", queue, PHASES, f"{ROLLOUT_TOKEN_BYTES}*rollouts*tokens"),
    ]


def _disk(shape: ModelShape, plan: MemoryPlan) -> list[Component]:
    n, kept = shape.num_parameters, plan.num_checkpoints
    of_parts = sum(cost.saved_bytes for cost in plan.of_parts)
    interval = n * (FP32 * plan.keeps_start + of_parts + 2 * FP32 * (plan.sft_optimizer == "separate"))
    return [
        Component("weights and optimizer", "disk", 3 * FP32 * n * kept, PHASES, f"12N*{kept} checkpoints"),
        Component("interval state", "disk", interval * kept, PHASES, f"theta_start, importance, SFT optimizer*{kept}"),
        Component("critic's", "disk", 3 * FP32 * n * kept * plan.has_critic, PHASES, f"12N*{kept} checkpoints"),
    ]
