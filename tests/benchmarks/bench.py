"""What MIFO costs beside plain work, as ratios taken in one process: ``make bench``, or ``python -m tests.benchmarks.bench [row ...]``.

Every row is a function that returns (value, goal); the value is a median of several. Both sides of a ratio are timed in
turn, on one thread, in seconds of CPU. Also writes runs/bench.json: row -> {value, goal}.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from mifo_verl.checks.memory_plan import predict
from mifo_verl.method.constraint import ActiveConstraint
from mifo_verl.method.coordinates import ShardRange
from mifo_verl.method.head import head_outputs
from mifo_verl.method.importance import AbsChange
from mifo_verl.method.mask import StrictMask
from mifo_verl.method.token_selection import TopEntropy
from mifo_verl.method.top_share import OneShard, select_top_share
from mifo_verl.types import Phase
from tests.unit.test_memory import QWEN_7B, of_the_paper

OUT = Path("runs/bench.json")
SIZES = (1 << 23, 3 << 20, 1 << 20, 1 << 19, 1 << 18, 4096, 1024)
"""Coordinates of the tensors: an embedding, matrices and norms, 13 million in all."""
REPEATS = 5
ROWS: dict[str, Callable[[], tuple[float, float]]] = {}


def row(function: Callable[[], tuple[float, float]]) -> Callable[[], tuple[float, float]]:
    """A row of the table; its name is the function's."""
    ROWS[function.__name__] = function
    return function


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def ratio(one: Callable[[], object], other: Callable[[], object]) -> float:
    """The median of seconds of ``one`` over seconds of ``other``, which is made right after it."""
    one(), other()
    return median(cpu_seconds(one) / cpu_seconds(other) for _ in range(REPEATS))


def peak_bytes(work: Callable[[], object]) -> int:
    """The most memory that tensors take while it works, over what they take before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events = [one for one in profiled.profiler.kineto_results.events() if one.name() == "[memory]"]
    return max(accumulate((one.nbytes() for one in sorted(events, key=lambda one: one.start_ns())), initial=0))


class PlainModel:
    """Parameters that are whole in this process, as a constraint sees them, and the weights of their interval's start."""

    adapter: list[int] = []  # noqa: RUF012

    def __init__(self) -> None:
        self.parameters = [torch.nn.Parameter(torch.randn(size)) for size in SIZES]
        self.slices = [ShardRange(str(number), 0) for number in range(len(SIZES))]
        self.shards = OneShard()
        self.start = [parameter.detach() - 1e-3 * torch.randn_like(parameter) for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.grad = torch.randn_like(parameter)

    def weights(self) -> list[Tensor]:
        return [parameter.detach() for parameter in self.parameters]

    def gradients(self) -> list[Tensor | None]:
        return [parameter.grad for parameter in self.parameters]

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> Iterator[tuple[int, str, Tensor]]:
        for number, parameter in enumerate(self.parameters):
            state = optimizer.state.get(parameter, {})
            yield from ((number, name, value) for name, value in sorted(state.items()) if value.ndim)


def training(**kind: bool) -> tuple[ActiveConstraint, torch.optim.Optimizer]:
    """Strict freezing of half of a model at work, and its AdamW with moments of an RL step."""
    torch.manual_seed(0)
    model = PlainModel()
    optimizer = torch.optim.AdamW(model.parameters, lr=1e-6, weight_decay=1e-2, **kind)
    optimizer.step()
    active = StrictMask().attach(model, AbsChange())
    active.select(model.start, 1, None, optimizer)
    return active, optimizer


def strict_step(active: ActiveConstraint, optimizer: torch.optim.Optimizer) -> None:
    active.before_update(Phase.SFT)
    optimizer.step()
    active.after_update(Phase.SFT, optimizer)


def scores() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(size).abs_() for size in SIZES]


@row
def top_share_read_ratio() -> tuple[float, float]:
    """Seconds of the exact selection of half of the coordinates, over those of two plain reads of the scores."""
    given = scores()
    return ratio(lambda: select_top_share(given, 0.5), lambda: [one.sum() for one in given * 2]), 3.0


@row
def top_share_peak_bytes_per_coordinate() -> tuple[float, float]:
    """The most memory of that selection, its masks in it, beside the scores."""
    given = scores()
    return median(peak_bytes(lambda: select_top_share(given, 0.5)) / sum(SIZES) for _ in range(REPEATS)), 2.0


@row
def strict_step_ratio() -> tuple[float, float]:
    """Seconds of an update under strict freezing, the gradient's mask in it, over those of AdamW's step alone."""
    active, optimizer = training()
    plain = training()[1]
    active.enter(optimizer)
    return ratio(lambda: strict_step(active, optimizer), plain.step), 1.1


@row
def strict_bytes_per_parameter() -> tuple[float, float]:
    """The most memory of such an update beside mask and optimizer: what is held, and all that its slices take."""
    active, optimizer = training()
    return peak_bytes(lambda: (active.enter(optimizer), strict_step(active, optimizer))) / sum(SIZES), 0.5


HEAD_TOKENS, HEAD_HIDDEN, HEAD_WORDS = 2048, 896, 32_000


def head_tensors() -> tuple[Tensor, Tensor, Tensor]:
    """(hidden_NH, weight_VH, labels_N) of a head of Qwen2.5-0.5B's width and a vocabulary of 32,000."""
    torch.manual_seed(0)
    hidden_NH = torch.randn(HEAD_TOKENS, HEAD_HIDDEN, requires_grad=True)
    weight_VH = (0.03 * torch.randn(HEAD_WORDS, HEAD_HIDDEN)).requires_grad_()
    return hidden_NH, weight_VH, torch.randint(HEAD_WORDS, (HEAD_TOKENS,))


def plain_sft(hidden_NH: Tensor, weight_VH: Tensor, labels_N: Tensor) -> None:
    """Cross-entropy of all tokens and its gradient, as plain SFT takes it of whole logits."""
    torch.autograd.grad(torch.nn.functional.cross_entropy(hidden_NH @ weight_VH.t(), labels_N), (hidden_NH, weight_VH))


def entropy_sft(hidden_NH: Tensor, weight_VH: Tensor, labels_N: Tensor) -> None:
    """The loss of the top fifth of the tokens by entropy, and its gradient."""
    log_prob_N, entropy_N = head_outputs(hidden_NH, weight_VH, None, labels_N, ["entropy"]).unbind(dim=1)
    response_BT = torch.ones(1, HEAD_TOKENS, dtype=torch.bool)
    kept_BT = TopEntropy(0.2)({"entropy": entropy_N.detach()[None]}, response_BT, torch.zeros(1))
    torch.autograd.grad(-(log_prob_N * kept_BT[0]).sum() / HEAD_TOKENS, (hidden_NH, weight_VH))


@row
def head_time_ratio() -> tuple[float, float]:
    """Seconds of MIFO's SFT loss over those of plain SFT's, from hidden states to gradients."""
    given = head_tensors()
    return ratio(lambda: entropy_sft(*given), lambda: plain_sft(*given)), 1.05


@row
def head_peak_ratio() -> tuple[float, float]:
    """The most memory of the first over that of the second."""
    given = head_tensors()
    plain_sft(*given)
    peaks = (peak_bytes(lambda: entropy_sft(*given)) / peak_bytes(lambda: plain_sft(*given)) for _ in range(REPEATS))
    return median(peaks), 0.5


def _planned(place: str) -> float:
    """Bytes a parameter that the memory plan gives MIFO's own state at its peak, with ``mifo.state.device=host``."""
    plan = replace(of_the_paper(8, gpu_memory_utilization=0.6), state_on_host=True)
    rows = [one for one in predict(QWEN_7B, plan) if one.place == place]
    own = [one for one in rows if one.name == "theta_start" or one.name in {cost.name for cost in plan.of_parts}]
    ranks = plan.shard_ranks if place == "device" else plan.shard_ranks / plan.ranks_a_node
    sums = [sum(one.num_bytes for one in own if phase in one.phases) for phase in ("rollout", "rl", "sft")]
    return max(sums) * ranks / QWEN_7B.num_trainable


@row
def device_bytes_per_parameter() -> tuple[float, float]:
    """By the memory plan: theta_start, history, mask and what strict freezing holds, with the state on the host."""
    return _planned("device"), 0.125


@row
def host_bytes_per_parameter() -> tuple[float, float]:
    """The same on the host."""
    return _planned("host"), 8.0


def main(names: list[str]) -> None:
    """Print the rows as a table, and write them."""
    torch.set_num_threads(1)
    found = dict(json.loads(OUT.read_text())) if names and OUT.exists() else {}
    print("| row | value | goal |\n| --- | --- | --- |")
    for name in names or ROWS:
        value, goal = ROWS[name]()
        found[name] = {"value": round(value, 3), "goal": goal}
        print(f"| {name} | {value:.3f} | {goal:g} |", flush=True)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
