"""The memory and disk that a run takes, by component, counted from the model's shape. Standard library only.

Symbols of the formulas: N coordinates of the model, T of them that are trained (N, or those of a LoRA adapter), U of
its largest FSDP unit, W ranks that share a copy, t tokens of a micro-batch on a rank, L layers, h width, f width of the
MLP, c = key-value heads x head width, V vocabulary, b bytes of a number in the forward pass, k share frozen, R ranks of
a rollout server, u ``gpu_memory_utilization``, D a device's memory. All results are bytes.

vLLM takes u*D in the rollout phase, weights and KV cache in it, whatever the model; what training keeps on the device
lies beside that. Weights are sent before the KV cache is there. While the actor trains, the server sleeps (unless
``free_cache_engine=false``), and of its memory only a context stays.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mifo_verl.types import Cost

FP32 = 4
PHASES = ("rollout", "rl", "sft")
Place = Literal["device", "host", "disk"]
PROCESS_BYTES = 400_000_000
"""A process that has imported verl, what it shares with others divided among them; measured."""
CONTEXT_BYTES = 3_000_000_000
"""CUDA contexts of a rank's two processes, NCCL's buffers and CUDA graphs; an estimate, not measured."""
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
    num_trainable: int
    """Of the parameters, those that are trained: all, or an adapter's."""


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
    sft_logits: int | None
    """Logits that an SFT update makes at a time; None if it makes those of all its tokens."""
    is_checkpointed: bool
    offloads_parameters: bool
    offloads_optimizer: bool
    keeps_start: bool
    state_on_host: bool
    """Whether theta_start and what the parts remember lie on the host."""
    inspects: bool
    """Whether the mask and the supports of RL's update wait on the host for the end of an SFT phase."""
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
    rollout_share: float | None
    """u: of a device's memory, what vLLM takes; None for a server that takes what it needs."""
    rollout_sleeps: bool
    """Whether such a server frees its memory while the actor trains."""
    device_bytes: int
    """D: the memory of one device."""
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
    n, trained = shape.num_parameters / plan.shard_ranks, shape.num_trainable / plan.shard_ranks
    b, t, update = plan.compute_bytes, plan.tokens, ("rl", "sft")
    weights_stay = update if plan.offloads_parameters else PHASES
    moments_stay: tuple[str, ...] = update if plan.offloads_optimizer else PHASES
    if plan.offloads_optimizer and plan.sft_optimizer in ("separate", "fresh"):
        moments_stay = ("rl",)  # the other one takes its place
    kv = shape.num_kv_heads * shape.head_dim
    layer = t * b * (6 * shape.hidden_size + 3 * kv + 4 * shape.intermediate_size)
    layers = layer + t * b * shape.hidden_size * shape.num_layers if plan.is_checkpointed else layer * shape.num_layers
    activations = "t*b*(6h + 3c + 4f)" + (" + t*b*h*L" if plan.is_checkpointed else "*L")
    return [
        Component("parameters", "device", FP32 * n, weights_stay, "4N/W"),
        Component("gradients", "device", FP32 * trained, update, "4T/W"),
        Component("optimizer", "device", 2 * FP32 * trained, moments_stay, "8T/W"),
        Component("critic", "device", 4 * FP32 * n * plan.has_critic, PHASES, "16N/W"),
        Component("gathered layers", "device", 2 * b * shape.largest_unit, update, "2b*U"),
        Component("activations", "device", layers, update, activations),
        *_logits(shape, plan),
    ]


def _logits(shape: ModelShape, plan: MemoryPlan) -> Iterator[Component]:
    """Those of verl's loss; of SFT's (``mifo_verl.method.head``) a chunk, and the gradient of the head in float32."""
    values, b = plan.tokens * shape.vocab_size, plan.compute_bytes
    whole: tuple[str, ...] = ("rl", "sft") if plan.sft_logits is None else ("rl",)
    yield Component("logits and entropy", "device", values * (2 * b + FP32), whole, "t*V*(2b + 4)")
    if plan.sft_logits is not None:
        chunk = min(values, plan.sft_logits) * (b + 2 * FP32) + FP32 * shape.vocab_size * shape.hidden_size
        yield Component("chunk of logits", "device", chunk, ("sft",), "min(t*V, 2^25)*(b + 8) + 4V*h")


def _interval(shape: ModelShape, plan: MemoryPlan) -> list[Component]:
    n = shape.num_trainable / plan.shard_ranks
    second = {"separate": PHASES, "fresh": ("sft",)}.get(plan.sft_optimizer, ())
    second = ("sft",) if second and plan.offloads_optimizer else second
    return [
        Component("SFT optimizer", "device", 2 * FP32 * n if second else 0, second, "8T/W"),
        Component("theta_start", "device", FP32 * n * (plan.keeps_start and not plan.state_on_host), PHASES, "4T/W"),
        *(
            Component(cost.name, "device", cost.num_bytes * n, cost.phases, cost.formula)
            for cost in plan.of_parts
            if not (plan.state_on_host and cost.is_state)
        ),
        Component("weights aside for KL", "device", FP32 * n * plan.probes_kl, ("rl",), "4T/W"),
    ]


def server_bytes(shape: ModelShape, plan: MemoryPlan) -> tuple[float, float]:
    """(weights, KV cache of one sequence of full length) of a rollout server, on each of its ranks."""
    token = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * plan.rollout_bytes
    weights = plan.rollout_bytes * shape.num_parameters
    return weights / plan.rollout_ranks, token * plan.sequence_tokens / plan.rollout_ranks


def _rollout(shape: ModelShape, plan: MemoryPlan) -> list[Component]:
    weights, sequence = server_bytes(shape, plan)
    if plan.rollout_share is not None:
        arriving = FP32 * shape.num_parameters / plan.shard_ranks * plan.offloads_parameters
        taken = max(plan.rollout_share * plan.device_bytes, weights + arriving + 2 * plan.sync_bytes)
        phases, formula = ("rollout",) if plan.rollout_sleeps else PHASES, "u*D; or b*N/R, 2 buckets and what is sent"
        return [
            Component("rollout server", "device", taken, phases, formula),
            Component("CUDA and NCCL", "device", CONTEXT_BYTES, PHASES, "an estimate"),
        ]
    return [
        Component("rollout weights", "device", weights, ("rollout",), "b*N/R"),
        Component("KV cache", "device", sequence * plan.sequences_in_flight, ("rollout",), "2b*L*c*tokens/R"),
        Component("weight sync", "device", 2 * plan.sync_bytes, ("rollout",), "2 buckets"),
    ]


def _host(shape: ModelShape, plan: MemoryPlan) -> list[Component]:
    n, ranks = shape.num_parameters / plan.shard_ranks, plan.ranks_a_node
    trained = shape.num_trainable / plan.shard_ranks
    moments = 2 * FP32 * trained * (2 if plan.sft_optimizer == "separate" else 1)
    copies = ranks if shape.is_tied else 1
    queue = plan.rollouts * plan.sequence_tokens * ROLLOUT_TOKEN_BYTES
    start = FP32 * trained * ranks * (plan.keeps_start and plan.state_on_host)
    state = [
        Component(cost.name, "host", cost.num_bytes * trained * ranks, PHASES, f"{cost.formula}*ranks")
        for cost in plan.of_parts
        if plan.state_on_host and cost.is_state
    ]
    return [
        Component("processes", "host", PROCESS_BYTES * plan.num_processes, PHASES, "0.4 GB*processes"),
        Component("loading", "host", FP32 * shape.num_parameters * copies, ("rollout",), f"4N*{copies}"),
        Component("reference", "host", plan.reference_bytes * n * ranks * plan.has_reference, PHASES, "b*N/W*ranks"),
        Component("parameters offloaded", "host", FP32 * n * ranks * plan.offloads_parameters, PHASES, "4N/W*ranks"),
        Component("optimizer offloaded", "host", moments * ranks * plan.offloads_optimizer, PHASES, "8T/W*ranks"),
        Component("theta_start", "host", start, PHASES, "4T/W*ranks"),
        *state,
        Component("weights before SFT", "host", FP32 * trained * ranks * plan.keeps_before_sft, PHASES, "4T/W*ranks"),
        Component("inspection", "host", 2 * trained * ranks * plan.inspects, ("sft",), "2T/W*ranks"),
        *(
            Component(cost.name, "host", cost.host_bytes * trained * ranks, PHASES, f"{cost.host_bytes:g}T/W*ranks")
            for cost in plan.of_parts
        ),
        Component("rollouts", "host", queue, PHASES, f"{ROLLOUT_TOKEN_BYTES}*rollouts*tokens"),
    ]


def _disk(shape: ModelShape, plan: MemoryPlan) -> list[Component]:
    n, trained, kept = shape.num_parameters, shape.num_trainable, plan.num_checkpoints
    of_parts = sum(cost.saved_bytes for cost in plan.of_parts)
    interval = trained * (FP32 * plan.keeps_start + of_parts + 2 * FP32 * (plan.sft_optimizer == "separate"))
    return [
        Component("weights and optimizer", "disk", FP32 * (n + 2 * trained) * kept, PHASES, f"(4N + 8T)*{kept}"),
        Component("interval state", "disk", interval * kept, PHASES, f"theta_start, importance, SFT optimizer*{kept}"),
        Component("critic's", "disk", 3 * FP32 * n * kept * plan.has_critic, PHASES, f"12N*{kept} checkpoints"),
    ]
