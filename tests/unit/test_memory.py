"""The prediction against numbers worked out by hand, and against models and tensors that are really there."""

from dataclasses import replace
from pathlib import Path

import pytest

from mifo_verl.checks.memory_plan import PHASES, MemoryPlan, ModelShape, peak, predict, total
from mifo_verl.method.bilevel import Bilevel
from mifo_verl.method.mask import StrictMask
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
    num_trainable=1000,
)
PLAN = MemoryPlan(
    ranks=4,
    ranks_a_node=2,
    shard_ranks=4,
    compute_bytes=2,
    tokens=8,
    sft_logits=30,
    is_checkpointed=True,
    offloads_parameters=False,
    offloads_optimizer=False,
    keeps_start=True,
    state_on_host=False,
    inspects=True,
    keeps_before_sft=True,
    of_parts=tuple(StrictMask("1/2", "1/2").costs(RunFacts())),
    probes_kl=True,
    sft_optimizer="shared",
    has_reference=False,
    reference_bytes=2,
    has_critic=False,
    rollout_bytes=2,
    rollout_ranks=2,
    rollout_share=None,
    rollout_sleeps=True,
    device_bytes=80 << 30,
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
        "chunk of logits": 30 * 10 + 4 * 50 * 10,  # 30 of them at 2 + 4 + 4 bytes; the gradient of the head
        "theta_start": 1000,
        "importance": 1000,
        "mask": 31.25,  # a bit each: 1000 / 8 / 4
        "weights aside for KL": 1000,
        "rollout weights": 1000,  # 2 * 1000 / 2
        "KV cache": 2 * 4 * 1 * 5 * 2 * 3 * 7 / 2,
        "weight sync": 22,
        "processes": 400_000_000 * 9,
        "loading": 4000,
        "weights before SFT": 2000,  # 4 * 1000 / 4 on each of a node's two ranks
        "inspection": 1000,  # 2 * 1000 / 4 * 2
        "rollouts": 6 * 7 * 68,
        "weights and optimizer": 12 * 1000 * 2,
        "interval state": 8 * 1000 * 2,
    }


def test_the_peak_is_that_of_the_phase_that_takes_most() -> None:
    components = predict(SHAPE, PLAN)
    always = 1000 + 2000 + 1000 + 1000  # parameters, optimizer, theta_start, importance
    update = 1000 + 400 + 8 * 2 * 155 + 640
    assert peak(components, "device") == always + update + max(1000 + 3200, 31.25 + 2300)
    assert peak(components, "disk") == 40_000


def test_what_is_switched_off_takes_nothing() -> None:
    off = dict.fromkeys(("keeps_start", "keeps_before_sft", "probes_kl", "inspects"), False)
    bare = replace(PLAN, of_parts=(), num_checkpoints=0, **off)
    names = set(by_name(bare))
    assert not names & {
        "theta_start",
        "importance",
        "mask",
        "held values",
        "weights aside for KL",
        "weights before SFT",
        "inspection",
    }
    assert not names & {"weights and optimizer", "interval state", "SFT optimizer", "critic", "reference"}


@pytest.mark.parametrize(
    ("optimizer", "held", "second", "disk"),
    [("shared", 1500, 0, 8), ("separate", 1500, 2000, 16), ("fresh", 500, 2000, 8)],
)
def test_a_second_optimizer_costs_what_it_holds(optimizer: str, held: float, second: float, disk: float) -> None:
    of_parts = tuple(StrictMask("1/2", "1/2").costs(RunFacts(sft_optimizer=optimizer, optimizer="SGD")))
    found = by_name(replace(PLAN, sft_optimizer=optimizer, of_parts=of_parts))
    assert found["held values"] == held and found.get("SFT optimizer", 0) == second
    assert found["interval state"] == disk * 1000 * 2


def test_offloading_moves_bytes_from_the_device_to_the_host() -> None:
    moved = replace(PLAN, offloads_parameters=True, offloads_optimizer=True, state_on_host=True)
    components = predict(SHAPE, moved)
    host = {component.name: component.num_bytes for component in components if component.place == "host"}
    assert host["parameters offloaded"] == 2000 and host["optimizer offloaded"] == 4000
    in_rollout = {c.name for c in components if c.place == "device" and "rollout" in c.phases}
    assert not in_rollout & {"parameters", "optimizer", "theta_start", "importance"}
    assert host["theta_start"] == host["importance"] == 2000


def test_of_two_optimizers_that_are_offloaded_one_is_on_the_device_at_a_time() -> None:
    components = predict(SHAPE, replace(PLAN, offloads_optimizer=True, sft_optimizer="separate"))
    phases = {c.name: c.phases for c in components if c.place == "device"}
    assert phases["optimizer"] == ("rl",) and phases["SFT optimizer"] == ("sft",)


def test_the_state_on_the_host_takes_nothing_of_the_device_and_as_much_of_the_host() -> None:
    there, moved = (
        {(c.name, c.place) for c in predict(SHAPE, plan)} for plan in (PLAN, replace(PLAN, state_on_host=True))
    )
    assert there - moved == {("theta_start", "device"), ("importance", "device")}
    assert moved - there == {("theta_start", "host"), ("importance", "host")}


def test_an_adapter_alone_has_gradients_moments_and_a_start() -> None:
    found = by_name(replace(PLAN, sft_optimizer="separate"), replace(SHAPE, num_parameters=1040, num_trainable=40))
    assert found["parameters"] == 1040 and found["rollout weights"] == 1040  # 4 * 1040 / 4, 2 * 1040 / 2
    assert (found["gradients"], found["optimizer"], found["SFT optimizer"]) == (40, 80, 80)
    assert (found["theta_start"], found["importance"], found["mask"]) == (40, 40, 1.25)
    assert found["weights and optimizer"] == (4 * 1040 + 8 * 40) * 2


def test_vllm_takes_its_share_of_the_device_in_rollouts_and_a_context_always() -> None:
    plan = replace(PLAN, rollout_share=0.6, device_bytes=10_000)
    rows = {c.name: (c.num_bytes, c.phases) for c in predict(SHAPE, plan)}
    assert rows["rollout server"] == (6000, ("rollout",)) and rows["CUDA and NCCL"] == (3_000_000_000, PHASES)
    assert "KV cache" not in rows and "weight sync" not in rows
    awake = {c.name: c.phases for c in predict(SHAPE, replace(plan, rollout_sleeps=False))}
    assert awake["rollout server"] == PHASES
    small = by_name(replace(plan, rollout_share=0.01, offloads_parameters=True))
    assert small["rollout server"] == 1000 + 1000 + 22  # its weights, the shards on their way, two buckets


QWEN_1_5B = ModelShape(1_543_714_304, 233_373_696, 28, 1536, 8960, 2, 128, 151_936, True, 1_543_714_304)
QWEN_7B = ModelShape(7_615_616_512, 544_997_376, 28, 3584, 18944, 4, 128, 152_064, False, 7_615_616_512)
QWEN_32B = ModelShape(32_763_876_352, 778_567_680, 64, 5120, 27648, 8, 128, 152_064, False, 32_763_876_352)
LLAMA_70B = ModelShape(70_553_706_496, 1_050_673_152, 80, 8192, 28672, 8, 128, 128_256, False, 70_553_706_496)


def of_the_paper(gpus: int, gpu_memory_utilization: float) -> MemoryPlan:
    return MemoryPlan(
        ranks=gpus,
        ranks_a_node=8,
        shard_ranks=gpus,
        compute_bytes=2,
        tokens=16_384 if gpus < 512 else 9_216,
        sft_logits=1 << 25,
        is_checkpointed=True,
        offloads_parameters=False,
        offloads_optimizer=False,
        keeps_start=True,
        state_on_host=False,
        inspects=True,
        keeps_before_sft=True,
        of_parts=tuple(StrictMask("1/2", "1/2").costs(RunFacts(sft_optimizer="separate"))),
        probes_kl=True,
        sft_optimizer="separate",
        has_reference=False,
        reference_bytes=2,
        has_critic=False,
        rollout_bytes=2,
        rollout_ranks=8,
        rollout_share=gpu_memory_utilization,
        rollout_sleeps=True,
        device_bytes=80 << 30,
        sequences_in_flight=128,
        sequence_tokens=9_216,
        rollouts=1024,
        sync_bytes=2048 << 20,
        num_checkpoints=4,
        num_processes=40,
    )


@pytest.mark.parametrize(
    ("shape", "gpus", "rollout", "rl", "sft", "less"),
    [  # GB of a GPU of 80 GiB at 0.6; less: what the state on the host takes off each
        (QWEN_1_5B, 8, 59.94, 33.71, 14.31, 1.54),
        (QWEN_1_5B, 64, 55.21, 27.63, 8.88, 0.19),
        (QWEN_1_5B, 512, 54.62, 16.88, 6.94, 0.02),
        (QWEN_7B, 8, 81.19, 65.91, 44.80, 7.62),
        (QWEN_7B, 64, 57.87, 35.92, 18.04, 0.95),
        (QWEN_7B, 512, 54.96, 20.60, 11.84, 0.12),
        (QWEN_32B, 8, 169.21, 188.95, 156.60, 32.76),
        (QWEN_32B, 64, 68.87, 59.94, 41.48, 4.10),
        (QWEN_32B, 512, 56.33, 28.33, 20.32, 0.51),
        (LLAMA_70B, 8, 301.48, 368.45, 322.00, 70.55),
        (LLAMA_70B, 64, 85.41, 90.64, 74.10, 8.82),
        (LLAMA_70B, 512, 58.40, 36.78, 31.32, 1.10),
    ],
)
def test_models_of_four_sizes_take_what_a_sum_by_hand_says(shape, gpus, rollout, rl, sft, less) -> None:
    """7B on 8: 28 bytes a coordinate always (weights, two AdamWs, theta_start, importance), 26.65 GB, and contexts 3.00;
    rollouts 0.6 * 85.90; an update 4N/8 = 3.81, 4 * 545e6 = 2.18, activations 2 * 16384 * (98,816 + 28 * 3584) = 6.53,
    logits in RL 16384 * 152,064 * 8 = 19.93; the KL in RL 3.81; the mask in SFT N/64 = 0.12, a chunk of logits
    2^25 * 10 = 0.34 and the gradient of the head 4 * 545e6 = 2.18.
    On 512 GPUs a rank has one sequence of 9,216 tokens a micro-batch.
    """
    paper = of_the_paper(gpus, gpu_memory_utilization=0.6)
    for plan, off in ((paper, 0.0), (replace(paper, state_on_host=True), less)):
        sums = [total(predict(shape, plan), "device", phase) / 1e9 for phase in PHASES]
        assert sums == pytest.approx([rollout - off, rl - off, sft - off], abs=0.011)


def test_a_7b_on_8_gpus_of_80_gb_fits_at_0_6_and_not_at_0_7() -> None:
    low, high = (total(predict(QWEN_7B, of_the_paper(8, u)), "device", "rollout") for u in (0.6, 0.7))
    assert low < 80 << 30 < high


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

    from mifo_verl.method.packed import PackedMasks

    folder = Path(__file__).parents[2] / "mifo_verl" / "data" / "addition_start"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(weights)
    model(input_ids=torch.zeros(1, 4, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    number = sum(weight.numel() for weight in weights)
    found = by_name(replace(PLAN, shard_ranks=1), replace(SHAPE, num_parameters=number, num_trainable=number))
    assert found["parameters"] == sum(weight.nbytes for weight in weights)
    assert found["gradients"] == sum(weight.grad.nbytes for weight in weights)
    moments = [v for state in optimizer.state.values() for k, v in state.items() if k != "step"]
    assert found["optimizer"] == sum(moment.nbytes for moment in moments)
    halves = [torch.arange(weight.numel()).view(weight.shape) % 2 == 0 for weight in weights]
    bits = sum(one.bits.nbytes for one in PackedMasks.of(halves).packed)
    assert found["mask"] <= bits < found["mask"] + len(weights)  # a byte a tensor may be begun


def test_a_parameter_count_of_1_5e9_gives_the_bytes_of_docs_gpu() -> None:
    """24 bytes a coordinate in RL and an eighth more in an SFT phase; 1.5e9 coordinates on 8 GPUs take 4.5 GB."""
    shape = replace(SHAPE, num_parameters=1_500_000_000, num_trainable=1_500_000_000)
    components = predict(shape, replace(PLAN, shard_ranks=8, probes_kl=False))
    ours = {"parameters", "gradients", "optimizer", "theta_start", "importance", "mask", "held values"}
    sums = [sum(c.num_bytes for c in components if c.name in ours and phase in c.phases) for phase in ("rl", "sft")]
    assert [round(total / 1e9, 1) for total in sums] == [4.5, 4.5]
