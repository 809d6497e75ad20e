"""Every setting of every part changes what the part decides or computes: two values each, and the results differ."""

from dataclasses import fields
from functools import partial
from typing import Any

import pytest
import torch

from mifo_verl.config import (
    CONSTRAINTS,
    GATES,
    IMPORTANCES,
    MIXINGS,
    OFF_POLICIES,
    ON_POLICIES,
    PREFIXES,
    SCHEDULES,
    SFT_LOSSES,
    TOKEN_SELECTORS,
)
from mifo_verl.loop.mixed import mix
from mifo_verl.method.coordinates import ShardRange
from mifo_verl.method.gate import Now
from mifo_verl.method.importance import AbsChange
from mifo_verl.method.part import OWN_KL, OWN_LOG_PROB
from mifo_verl.method.prefix import Session
from mifo_verl.method.sampling import SAMPLINGS
from mifo_verl.method.token_facts import BEFORE, TEACHER, facts_of_logits, token_facts
from mifo_verl.types import Phase, Progress, PromptGroup, RunFacts, SftExample
from tests.unit.test_constraint import OneTensor

REGISTRIES = (
    GATES,
    SCHEDULES,
    TOKEN_SELECTORS,
    SFT_LOSSES,
    IMPORTANCES,
    CONSTRAINTS,
    PREFIXES,
    OFF_POLICIES,
    ON_POLICIES,
    MIXINGS,
    SAMPLINGS,
)
DRAW = torch.Generator().manual_seed(3)
B, T, V = 4, 12, 30
LOGITS_NV = 3 * torch.randn(B * T, V, generator=DRAW) * torch.rand(B * T, 1, generator=DRAW)
TOKEN_BT = torch.randint(V, (B, T), generator=DRAW)
LOG_PROB_BT = LOGITS_NV.log_softmax(-1).view(B, T, V).gather(-1, TOKEN_BT[..., None]).squeeze(-1)
ON_BT = torch.ones(B, T, dtype=torch.bool)
STEPS = [Progress(step, 1, rl_steps, 300) for step in (0, 5, 60, 150, 250) for rl_steps in (0, 5, 12)]


def facts_of(part: Any) -> dict[str, torch.Tensor]:
    found = token_facts(LOGITS_NV, facts_of_logits(part.needs | {"entropy"}))
    return {name: fact_N.view(B, T) for name, fact_N in found.items()} | {
        "given": ON_BT,
        "first": ON_BT.triu(),
        TEACHER: LOG_PROB_BT.roll(1, 0),
    }


def of_gate(gate: Any) -> Any:
    return [gate(PromptGroup(f"q{number}", right, 8, step=2)) for number in range(9) for right in range(9)]


def of_schedule(schedule: Any) -> Any:
    return [schedule(progress, size) for progress in STEPS for size in (1, 10, 70)]


def of_token_selector(selector: Any) -> Any:
    return selector(facts_of(selector), ON_BT, torch.arange(B)).tolist()


def of_sft_loss(loss: Any) -> Any:
    times = [torch.tensor(progress) for progress in (0.1, 0.25, 0.4, 0.9)]
    return [loss(LOG_PROB_BT, ON_BT, ON_BT, facts_of(loss) | {"progress": now}).tolist() for now in times]


def of_importance(importance: Any) -> Any:
    return importance(torch.zeros(9), torch.arange(9.0), ShardRange("w", 0), 1).tolist()


def of_constraint(constraint: Any) -> Any:
    """The weights after two intervals of one tensor, the mask of two tensors, and the penalty on given KLs."""
    model, found = OneTensor([0.5, 4.0, 2.0, 3.0]), list[Any]()
    active, optimizer = constraint.attach(model, AbsChange()), torch.optim.SGD([model.parameter], lr=0.1)

    def update(phase: Phase, gradient: list[float]) -> None:
        model.parameter.grad = torch.tensor(gradient)
        active.before_update(phase)
        optimizer.step()
        active.after_update(phase, optimizer)

    # of RL's changes, (0, 0.9, 0, 0.3) and (0.32, 0.2, 0.25, 0.1) count: half of the history keeps coordinates 0 and 1
    for interval, of_rl in enumerate(([1.0, 9.0, 2.0, 3.0], [3.2, 2.0, 2.5, 1.0]), start=1):
        start = [model.parameter.detach().clone()]
        active.begin()
        update(Phase.RL, of_rl)
        active.select(start, interval, None)
        active.enter(optimizer)
        for _ in range(2):
            update(Phase.SFT, [2.0, -1.0, 1.0, 1.0])
        active.release(optimizer)
        found.append(model.parameter.tolist())
    kls = {"kl_to_before": LOG_PROB_BT, "kl_from_before": 2 * LOG_PROB_BT, BEFORE: LOG_PROB_BT - 0.4}
    if needed := {name: kls[name] for name in constraint.needs & kls.keys()}:
        found.append(constraint.penalty(needed | {"log_prob": LOG_PROB_BT}, ON_BT).tolist())
    if "own_rollouts" in constraint.needs:
        own = {"log_prob": LOG_PROB_BT, OWN_LOG_PROB: LOG_PROB_BT - 0.4, OWN_KL: -LOG_PROB_BT}
        found.append((constraint.own_loss(own, ON_BT).tolist(), constraint.own_weight))
    mask = constraint.choose([torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([5.0, 6.0, 7.0, 8.0])])
    return found, mask and [frozen_N.tolist() for frozen_N in mask.frozen]


def of_prefix(prefix: Any) -> Any:
    sessions = [
        Session(number, 8, 100, (7, 31, 44, 68, 90, 100), progress, seed)
        for number in range(8)
        for progress in STEPS
        for seed in (1, 2)
    ]
    return [(prefix(one, right), prefix.waits_for(one.number, 8)) for one in sessions for right in (0, 2)]


def of_off_policy(rule: Any) -> Any:
    advantage_BT = torch.linspace(-1, 1, B)[:, None].expand(B, T)
    return rule(LOG_PROB_BT, LOG_PROB_BT - 0.4, advantage_BT, facts_of(rule)).tolist(), rule.aggregation


def of_on_policy(rule: Any) -> Any:
    if rule.is_verls:
        return None
    return rule(LOG_PROB_BT, ON_BT, facts_of(rule) | {"correct": torch.tensor([True, False] * 2)}).tolist()


class Asked:
    """An update that notes what a mixing asks of it."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def both_losses(self) -> None:
        self.calls.append("both")

    def adapter_gradients(self) -> list[torch.Tensor]:
        return []

    def rl_at_second_policy(self, is_own_anchor: bool) -> list[torch.Tensor]:
        self.calls.append(("second", is_own_anchor))
        return []

    def rl_one_step_ahead(self, is_own_anchor: bool) -> list[torch.Tensor]:
        self.calls.append(("ahead", is_own_anchor))
        return []


def of_mixing(mixing: Any) -> Any:
    """Weights, whose mean the SFT loss is, what an update is asked for, and where memory is held."""
    update, group = Asked(), {"u": PromptGroup("q", 0, 8, 1)}
    mixing.gradients(update, 0.5)
    example = partial(lambda uid: SftExample("q", (1,), (2,), "ab"))
    found = [mix(Now(), mixing, progress, group, example, lambda: [example("v")]) for progress in STEPS]
    taken = [(one.weights, one.per_question, [entry.group is None for entry in one.entries]) for one in found]
    return taken, update.calls, list(mixing.costs(RunFacts()))


def of_sampling(sampling: Any) -> Any:
    entropies, temperatures = (0.01, 0.2, 0.31, 0.5, float("nan")), (0.45, 0.8, 1.7)
    asked = [sampling.next_temperature(now, entropy) for now in temperatures for entropy in entropies]
    return [sampling.max_tokens(progress) for progress in STEPS], asked


COMPUTED = {
    "mifo/gate": of_gate,
    "mifo/schedule": of_schedule,
    "mifo/token_selector": of_token_selector,
    "mifo/sft_loss": of_sft_loss,
    "mifo/importance": of_importance,
    "mifo/constraint": of_constraint,
    "mifo/prefix": of_prefix,
    "mifo/off_policy": of_off_policy,
    "mifo/on_policy": of_on_policy,
    "mifo/mixing": of_mixing,
    "mifo/sampling": of_sampling,
}
# group/part: for each setting, two values; a dict beside them holds what else has to be set for it to count
CHANGES: dict[str, dict[str, tuple[Any, ...]]] = {
    "gate/max_accuracy": {"max_accuracy": ("1/8", "3/8")},
    "gate/random": {"share": ("1/4", "3/4"), "seed": (0, 1)},
    "gate/hpt": {"threshold": (0, "2/8")},
    "schedule/when_full": {"size": (64, 8)},
    "schedule/every": {"rl_steps": (10, 4), "min_size": (1, 64, {"rl_steps": 10})},
    "schedule/sft_then_rl": {"sft_steps": (100, 20)},
    "token_selector/top_entropy": {"ratio": (0.2, 0.5)},
    "token_selector/random": {"ratio": (0.2, 0.5)},
    "sft_loss/trsft": {"alpha": (0.1, 0.5)},
    "sft_loss/idft": {
        "beta": (1.0, 2.0),
        "start": (0.2, 0.3),
        "length": (0.1, 0.4),
        "low": (0.1, 0.5),
        "high": (2.0, 1.5),
    },
    "sft_loss/entropy_gate": {"k": (20, 5), "power": (1.0, 2.0)},
    "sft_loss/sequence_entropy": {"scale": (0.5, 1.0)},
    "sft_loss/sed": {"k": (10, 3), "strength": (0.2, 0.4), "threshold": (0.95, 0.5)},
    "sft_loss/pear": {
        "gamma": (0.999, 0.9),
        "low": (-0.08, -0.5),
        "high": (0.3, 0.1),
        "total_low": (-10.0, -0.1),
        "total_high": (5.0, 0.1),
        "per": ("suffix", "sequence"),
        "block": (1, 4),
    },
    "importance/random": {"seed": (0, 1)},
    "constraint/gradient": {
        "share": (0.5, 0.25),
        "history": (0.5, 0.9),
        "scope": ("global", "per_tensor"),
        "side": ("top", "bottom", {"history": 0}),
    },
    "constraint/strict": {
        "share": (0.5, 0.25),
        "history": (0.5, 0.9),
        "scope": ("global", "per_tensor"),
        "side": ("top", "bottom", {"history": 0}),
    },
    "constraint/ewc": {"strength": (1.0, 5.0), "fisher": ("importance", "ones"), "decoupled": (False, True)},
    "constraint/kl_anchor": {"strength": (0.1, 0.2), "reverse": (False, True), "estimator": ("exact", "token")},
    "constraint/kl_rollouts": {"strength": (1.0, 0.5), "estimator": ("token", "exact")},
    "constraint/replay": {"weight": (1.0, 0.5)},
    "constraint/sparsify": {"rate": (0.5, 0.25), "phase": ("both", "rl"), "seed": (0, 1)},
    "prefix/whole": {"members": (1, 2)},
    "prefix/random": {"members": (1, 2), "low": (0.05, 0.5), "high": (0.95, 0.6), "decay": (0, 100)},
    "prefix/annealed": {"high": (0.95, 0.6), "low": (0.05, 0.4), "steps": (300, 100), "segments": (5, 2)},
    "prefix/stepwise": {"steps": (300, 100), "segments": (5, 2)},
    "prefix/uniform": {"segments": (5, 2)},
    "prefix/staged": {
        "groups": ([4, 2, 1, 1], [2, 2, 2, 2]),
        "ratios": ([0, 0.2, 0.5, 1], [0, 0.4, 0.5, 1]),
        "thresholds": ([-1, 0.5, 0.7, 0.9], [-1, 0.6, 0.7, 0.9]),
        "cut": ("step", "token"),
    },
    "off_policy/shaped": {"gamma": (0.1, 0.3)},
    "off_policy/ratio": {"share": (0.2, 0.5), "clip": (0.2, 0.6)},
    "off_policy/supervised": {
        "loss": ({"name": "nll"}, {"name": "dft"}),
        "coefficient": (1.0, 0.5),
        "per": ("trajectory", "token_mean"),
        "members": ("all", "first"),
    },
    "on_policy/log_likelihood": {"positive": (0.1, 0.2), "negative": (1.0, 0.5), "by_entropy": (True, False)},
    "mixing/constant": {"sft": (1.0, 0.5), "rl": (1.0, 0.5), "per": ("demonstration", "question")},
    "mixing/chord": {
        "warmup": (0, 100),
        "decay": (200, 50),
        "peak": (0.9, 0.5),
        "valley": (0.05, 0.3),
        "per": ("demonstration", "question"),
        "demonstrations": ("questions", "dataset"),
    },
    "mixing/progressive": {"stages": ([0.9, 0.5, 0.1], [0.9, 0.1]), "per": ("demonstration", "question")},
    "mixing/bilevel": {
        "lambda_start": (0.5, 0.9, {"lambda_steps": 100}),
        "lambda_end": (0.5, 0.9),
        "lambda_steps": (0, 100, {"lambda_start": 0.9}),
        "auxiliary": ("tracked", "one_step"),
        "anchor": ("behaviour", "own"),
        "offload": (False, True),
        "demonstrations": ("questions", "dataset"),
    },
    "sampling/fixed": {"lengths": ([], [8, 16])},
    "sampling/by_entropy": {
        "lengths": ([], [8, 16]),
        "target": (0.3, 0.4),
        "gain": (0.05, 0.1),
        "low": (0.5, 0.3),
        "high": (1.5, 2.0),
    },
}
ON_THE_ENGINE = {"mixing/bilevel.adapter_lr"}  # test_settings_are_read.py: a learning rate of verl's optimizer
CASES = [(part, setting, values) for part, settings in CHANGES.items() for setting, values in settings.items()]


@pytest.mark.parametrize(("part", "setting", "values"), CASES, ids=[f"{part}.{name}" for part, name, _ in CASES])
def test_a_setting_of_a_part_changes_what_it_decides_or_computes(part, setting, values):
    group, _, name = part.partition("/")
    first, second, *beside = values
    registry = next(one for one in REGISTRIES if one.group == f"mifo/{group}")
    others = {"name": name} | (beside[0] if beside else {})
    ours, theirs = (COMPUTED[registry.group](registry.build(others | {setting: value})) for value in (first, second))
    assert ours != theirs


def test_no_setting_of_a_part_is_left_out():
    required: dict[str, dict[str, Any]] = {"every": {"rl_steps": 1}, "sft_then_rl": {"sft_steps": 1}}
    offered = {
        f"{registry.group.removeprefix('mifo/')}/{name}.{field.name}"
        for registry in REGISTRIES
        for name in registry.names()
        for field in fields(type(registry.build({"name": name} | required.get(name, {}))))
    }
    covered = {f"{part}.{setting}" for part, setting, _ in CASES}
    assert offered == covered | ON_THE_ENGINE and not covered & ON_THE_ENGINE
