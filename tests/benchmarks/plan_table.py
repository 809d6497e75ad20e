"""Memory and time of four models on 8, 64 and 512 GPUs, as docs/cluster.md has them: ``python -m tests.benchmarks.plan_table``.

The memory is the prediction that tests/unit/test_memory.py compares with sums by hand; the time is that of an RL step whose
1,024 sequences all have 9,216 tokens, by run/compute.py, on H100s at 40 % of 989 TFLOP/s, which is assumed, not measured.
"""

from dataclasses import replace

from mifo_verl.checks.memory_plan import PHASES, predict, total
from mifo_verl.run.compute import RlCost
from tests.unit.test_memory import LLAMA_70B, QWEN_1_5B, QWEN_7B, QWEN_32B, of_the_paper

MODELS = {"Qwen2.5-1.5B": QWEN_1_5B, "Qwen2.5-7B": QWEN_7B, "Qwen2.5-32B": QWEN_32B, "Llama-3.1-70B": LLAMA_70B}
FLOPS = 0.4 * 989e12
TOKENS = 1024 * 9216


def main() -> None:
    """Print the table."""
    print(
        "| model | GPUs | rollouts, RL, SFT: GB a GPU | state on the host | also offloaded | fits 80 GB | an RL step |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, shape in MODELS.items():
        for gpus in (8, 64, 512):
            plan = of_the_paper(gpus, gpu_memory_utilization=0.6)
            host = replace(plan, state_on_host=True)
            offloaded = replace(host, offloads_parameters=True, offloads_optimizer=True)
            sums = [[total(predict(shape, p), "device", phase) for phase in PHASES] for p in (plan, host, offloaded)]
            room = plan.device_bytes
            fits = next(
                (
                    words
                    for words, own in zip(("as it is", "with the state on the host", "offloaded"), sums, strict=True)
                    if max(own) <= room
                ),
                "no",
            )
            weights = shape.num_parameters - (0 if shape.is_tied else shape.vocab_size * shape.hidden_size)
            seconds = RlCost(weights, forwards=1, trainings=1).flops(TOKENS, TOKENS) / (gpus * FLOPS)
            cells = [", ".join(f"{one / 1e9:.0f}" for one in own) for own in sums]
            print(f"| {name} | {gpus} | {' | '.join(cells)} | {fits} | {seconds:,.0f} s |")


if __name__ == "__main__":
    main()
