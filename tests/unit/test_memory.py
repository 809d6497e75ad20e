"""The prediction against numbers worked out by hand, and against models and tensors that are really there."""

from dataclasses import replace
from pathlib import Path

import pytest

from mifo_verl.checks.memory_plan import PHASES, MemoryPlan, ModelShape, peak, predict
from mifo_verl.method.bilevel import Bilevel
from mifo_verl.method.constraint import StrictMask
from mifo_verl.types import RunFacts

SHAPE = ModelShape(
    num_parameters=1000,
    largest_unit=100,
    num_layers=4,
    hidden_size=10,
    intermediate_size=20,
    num_kv_heads=1,
    head_dim=5,
    vocab_size=50,
    is_tied=False,
)
PLAN = MemoryPlan(
    ranks=4,
    ranks_a_node=2,
    shard_ranks=4,
    compute_bytes=2,
    tokens=8,
    is_checkpointed=True,
    offloads_parameters=False,
    offloads_optimizer=False,
    keeps_start=True,
    keeps_before_sft=True,
    of_parts=tuple(StrictMask("1/2", "1/2").costs(RunFacts())),
    probes_kl=True,
    sft_optimizer="shared",
    has_reference=False,
    reference_bytes=2,
    has_critic=False,
    rollout_bytes=2,
    rollout_ranks=2,
    sequences_in_flight=3,
    sequence_tokens=7,
    rollouts=6,
    sync_bytes=11,
    num_checkpoints=2,
    num_processes=9,
)


def by_name(plan: MemoryPlan, shape: ModelShape = SHAPE) -> dict[str, float]:
    return {component.name: component.num_bytes for component in predict(shape, plan)}


def test_every_component_is_its_formula() -> None:
    assert by_name(PLAN) == {
        "parameters": 1000,  # 4 * 1000 / 4
        "gradients": 1000,
        "optimizer": 2000,
        "gathered layers": 400,  # 2 * 2 * 100
        "activations": 8 * 2 * (60 + 15 + 80) + 8 * 2 * 10 * 4,
        "logits and entropy": 8 * 50 * 8,
        "theta_start": 1000,
        "importance": 1000,
        "mask": 250,
        "held values": 1500,  # 12 * 0.5 * 250
        "weights aside for KL": 1000,
        "rollout weights": 1000,  # 2 * 1000 / 2
        "KV cache": 2 * 4 * 1 * 5 * 2 * 3 * 7 / 2,
        "weight sync": 22,
        "processes": 400_000_000 * 9,
        "loading": 4000,
        "weights before SFT": 2000,  # 4 * 1000 / 4 on each of a node's two ranks
        "rollouts": 6 * 7 * 68,
        "weights and optimizer": 12 * 1000 * 2,
        "interval state": 8 * 1000 * 2,
    }


def test_the_peak_is_that_of_the_phase_that_takes_most() -> None:
    components = predict(SHAPE, PLAN)
    always = 1000 + 2000 + 1000 + 1000  # parameters, optimizer, theta_start, importance
    update = 1000 + 400 + 8 * 2 * 155 + 640 + 3200
    assert peak(components, "device") == always + update + max(1000, 250 + 1500)
    assert peak(components, "disk") == 40_000


def test_what_is_switched_off_takes_nothing() -> None:
    bare = replace(PLAN, of_parts=(), keeps_start=False, keeps_before_sft=False, probes_kl=False, num_checkpoints=0)
    names = set(by_name(bare))
    assert not names & {
        "theta_start",
        "importance",
        "mask",
        "held values",
        "weights aside for KL",
        "weights before SFT",
    }
    assert not names & {"weights and optimizer", "interval state", "SFT optimizer", "critic", "reference"}


@pytest.mark.parametrize(
    ("optimizer", "held", "second", "disk"),
    [("shared", 1500, 0, 8), ("separate", 1500, 2000, 16), ("fresh", 500, 2000, 8)],
)
def test_a_second_optimizer_costs_what_it_holds(optimizer: str, held: float, second: float, disk: float) -> None:
    of_parts = tuple(StrictMask("1/2", "1/2").costs(RunFacts(sft_optimizer=optimizer)))
    found = by_name(replace(PLAN, sft_optimizer=optimizer, of_parts=of_parts))
    assert found["held values"] == held and found.get("SFT optimizer", 0) == second
    assert found["interval state"] == disk * 1000 * 2


def test_offloading_moves_bytes_from_the_device_to_the_host() -> None:
    components = predict(SHAPE, replace(PLAN, offloads_parameters=True, offloads_optimizer=True))
    host = {component.name: component.num_bytes for component in components if component.place == "host"}
    assert host["parameters offloaded"] == 2000 and host["optimizer offloaded"] == 4000
    in_rollout = {c.name for c in components if c.place == "device" and "rollout" in c.phases}
    assert not in_rollout & {"parameters", "optimizer", "theta_start"}


def test_tied_embeddings_are_loaded_by_every_rank() -> None:
    assert by_name(PLAN, replace(SHAPE, is_tied=True))["loading"] == 8000


def test_a_second_policy_takes_16_bytes_a_weight_or_waits_with_12_of_them_on_the_host():
    facts = RunFacts(lora_rank=16)
    n = SHAPE.num_parameters / PLAN.shard_ranks
    found = by_name(replace(PLAN, of_parts=tuple(Bilevel().costs(facts))))
    assert found["second policy and its moments"] == 12 * n and found["second policy's gradient"] == 4 * n
    waiting = predict(SHAPE, replace(PLAN, of_parts=tuple(Bilevel(offload=True).costs(facts))))
    held = {(c.place, c.phases): c.num_bytes for c in waiting if c.name == "second policy and its moments"}
    assert held == {("device", ("rl",)): 12 * n, ("host", PHASES): 12 * n * PLAN.ranks_a_node}


def test_the_shares_of_the_ranks_are_the_tensors_that_training_holds() -> None:
    """The same quantities, measured on a model that is really there: one rank, AdamW after one update."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    from mifo_verl.method.constraint import HeldStill

    folder = Path(__file__).parents[2] / "mifo_verl" / "data" / "addition_start"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(weights)
    model(input_ids=torch.zeros(1, 4, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    number = sum(weight.numel() for weight in weights)
    found = by_name(replace(PLAN, shard_ranks=1), replace(SHAPE, num_parameters=number))
    assert found["parameters"] == sum(weight.nbytes for weight in weights)
    assert found["gradients"] == sum(weight.grad.nbytes for weight in weights)
    moments = [v for state in optimizer.state.values() for k, v in state.items() if k != "step"]
    assert found["optimizer"] == sum(moment.nbytes for moment in moments)
    halves = [torch.arange(weight.numel()).view(weight.shape) % 2 == 0 for weight in weights]
    assert found["mask"] == sum(half.nbytes for half in halves)
    held = HeldStill([weight.detach() for weight in weights], halves)
    assert found["held values"] == 3 * sum(values.nbytes for values in held._values)


def test_a_parameter_count_of_1_5e9_gives_the_bytes_of_docs_gpu() -> None:
    """24 bytes a coordinate in RL and 31 in an SFT phase; 1.5e9 coordinates on 8 GPUs 4.5 and 5.8 GB."""
    components = predict(replace(SHAPE, num_parameters=1_500_000_000), replace(PLAN, shard_ranks=8, probes_kl=False))
    ours = {"parameters", "gradients", "optimizer", "theta_start", "importance", "mask", "held values"}
    sums = [sum(c.num_bytes for c in components if c.name in ours and phase in c.phases) for phase in ("rl", "sft")]
    assert [round(total / 1e9, 1) for total in sums] == [4.5, 5.8]
