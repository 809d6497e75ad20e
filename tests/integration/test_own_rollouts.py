"""Own rollouts beside demonstrations on FSDP2 shards over gloo, asked for as the controller does it.

Log-probs and losses are held against logits straight from the module, one row at a time; gradients against autograd's.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from mifo_verl.types import SftExample
from tests.integration.engine_ranks import batch_of, examples, full, make_engine, run_on_ranks, update
from tests.integration.test_extremes import PLAIN, held, sha256_of

ALL: dict[str, Any] = {"use_dynamic_bsz": True, "max_token_len_per_gpu": 4096}
BY_TOKENS: dict[str, Any] = {"use_dynamic_bsz": True, "max_token_len_per_gpu": 60}
BY_ROWS: dict[str, Any] = {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 2}
TOKEN, EXACT = held("kl_rollouts", strength=50), held("kl_rollouts", strength=50, estimator="exact")
REPLAY = held("replay", weight=50)
STEP = {"mifo.sft.lr": 1e-3}


class RanksHere:
    """verl's handle of the ranks, on every rank: each gets its part of a batch, and what all return comes back."""

    def __init__(self, engine: Any, cut: dict[str, Any]) -> None:
        self._dispatch_info = {"actor": list(range(dist.get_world_size()))}
        self._engine, self._cut = engine, cut

    def _part(self, data: Any) -> Any:
        from verl.utils import tensordict_utils as tu

        part = tu.chunk_tensordict(data, dist.get_world_size())[dist.get_rank()]
        tu.assign_non_tensor(part, use_remove_padding=False, use_fused_kernels=False, **self._cut)
        return part

    def stage_sft(self, data: Any) -> None:
        from mifo_verl.verl.own_step import OwnLossOfBatch

        self._engine.stage_sft(self._part(data), OwnLossOfBatch(self._engine.mifo))

    def take_staged(self) -> list[Any]:
        return self._everywhere(self._engine.take_staged())

    def log_probs(self, data: Any) -> Any:
        from verl.utils import tensordict_utils as tu

        from mifo_verl.verl.own_step import LogProbsOfBatch
        from mifo_verl.verl.sft_step import ROWS

        with self._engine.eval_mode():
            output = self._engine.infer_batch(self._part(data), LogProbsOfBatch())
        return tu.get_tensordict({}, {"metrics": {ROWS: self._everywhere(output["metrics"][ROWS])}})

    @staticmethod
    def _everywhere(value: Any) -> list[Any]:
        found: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(found, value)
        return found


class LosesARow(RanksHere):
    """One of what comes back is lost on the way."""

    @staticmethod
    def _everywhere(value: Any) -> list[Any]:
        return [value[1:]]


def own_of(engine: Any, cut: dict[str, Any], ranks: type[RanksHere] = RanksHere) -> Any:
    from mifo_verl.verl.actor import Actor
    from mifo_verl.verl.own_rollouts import OwnRollouts

    rows = cut.get("micro_batch_size_per_gpu", 1)
    settings = SimpleNamespace(use_dynamic_bsz=cut["use_dynamic_bsz"], ppo_micro_batch_size_per_gpu=rows)
    actor = Actor(ranks(engine, cut), settings, pad_token_id=0)
    return OwnRollouts(actor, engine.mifo, num_weights=1000, event=lambda *_: None)


def rollouts(number: int = 5) -> list[SftExample]:
    """Stand-ins for the policy's own; any text does, since the KL is taken at its tokens."""
    return examples(number, seed=11)


def begun(settings: dict[str, Any], cut: dict[str, Any]) -> tuple[Any, Any, list[SftExample]]:
    """An engine behind an RL-like update, at the begin of its SFT phase; its own rollouts."""
    engine = make_engine(PLAIN | STEP | settings)
    engine.interval.begin()
    update(engine, examples(8))
    own = own_of(engine, cut)
    with engine.train_mode():
        engine.begin_sft(interval=1)
    return engine, own, own.begun(rollouts(), 1)


def log_softmax(engine: Any) -> list[torch.Tensor]:
    """(response tokens, V) of every rollout, straight from the module."""
    found = []
    for one in rollouts():
        logits = engine.module(input_ids=torch.tensor([one.prompt_ids + one.response_ids])).logits[0]
        found.append(logits.double().log_softmax(-1)[len(one.prompt_ids) - 1 : -1])
    return found


def at_tokens(rows: list[torch.Tensor]) -> list[torch.Tensor]:
    """Of the tokens that stand in the rollouts."""
    drawn = [torch.tensor(one.response_ids)[:, None] for one in rollouts()]
    return [row.gather(1, ids)[:, 0] for row, ids in zip(rows, drawn, strict=True)]


def expected_loss(before: list[torch.Tensor], now: list[torch.Tensor], kind: str) -> torch.Tensor:
    """Mean over rollouts of the mean over tokens of KL(before || now), of its estimate at the token, or of -log p."""
    if kind == "replay":
        kls = [-one for one in at_tokens(now)]
    elif kind == "exact":
        kls = [(old.exp() * (old - new)).sum(-1) for old, new in zip(before, now, strict=True)]
    else:
        log_r = [new - old for old, new in zip(at_tokens(before), at_tokens(now), strict=True)]
        kls = [one.exp() - 1 - one for one in log_r]
    return torch.stack([kl.mean() for kl in kls]).mean()


def _phase(settings: dict[str, Any]) -> dict[str, Any]:
    """Three updates of six demonstrations: the weights behind them, and what came of the own rollouts."""
    engine, own, kept = begun(settings, ALL)
    used, flops, calls = [], [], 0
    for number in range(3):
        rows = own.stage(kept, number, 6)
        calls += bool(rows)
        update(engine, examples(6))
        used.append(own.used(rows) if rows else None)
        flops.append(own.flops(rows, kept))
    engine.end_sft()
    with torch.no_grad():
        return {"sha256": sha256_of(engine), "after": log_softmax(engine), "used": used, "flops": flops, "calls": calls}


PHASES = {
    "none": {},
    "strength 0": held("kl_rollouts", strength=0),
    "exact at strength 0": held("kl_rollouts", strength=0, estimator="exact"),
    "replay at weight 0": held("replay", weight=0),
    "token": TOKEN,
    "exact": EXACT,
    "replay": REPLAY,
}


@pytest.fixture(scope="module", params=[1, 2], ids=["one rank", "two ranks"])
def phases(request) -> dict[str, dict[str, Any]]:
    cases = [(settings,) for settings in PHASES.values()]
    return dict(zip(PHASES, run_on_ranks(_phase, request.param, cases), strict=True))


def test_a_strength_of_0_has_the_weights_of_no_constraint_to_the_bit(phases):
    for name in ("strength 0", "exact at strength 0", "replay at weight 0"):
        assert phases[name]["sha256"] == phases["none"]["sha256"] and phases[name]["calls"] == 0
    assert len({phases[name]["sha256"] for name in ("none", "token", "exact", "replay")}) == 4


def test_the_loss_is_0_before_the_first_update_and_every_use_is_recorded(phases):
    tokens = sum(len(one.response_ids) for one in rollouts())
    for name in ("token", "exact"):
        used = phases[name]["used"]
        assert [(one.rollouts, one.tokens) for one in used] == [
            (5, tokens)
        ] * 3  # of five, not the six that an update has
        assert abs(used[0].loss) < 1e-8 and used[1].loss > 1e-5
        length = tokens + sum(len(one.prompt_ids) for one in rollouts())
        assert phases[name]["flops"] == [(6 + 2) * 1000 * length] * 3
    replay = phases["replay"]
    assert replay["flops"] == [6 * 1000 * length] * 3 and replay["used"][0].loss > replay["used"][2].loss > 0


def _distance(settings: dict[str, Any]) -> list[float]:
    """How far a phase of five updates has moved the policy on its rollouts, at their tokens and by the exact KL."""
    engine, own, kept = begun(settings | {"mifo.sft.lr": 1e-4}, ALL)
    with torch.no_grad():
        before = log_softmax(engine)
    for number in range(5):
        rows = own.stage(kept, number, 6)
        update(engine, examples(6))
        own.used(rows)
    with torch.no_grad():
        now = log_softmax(engine)
    return [float(expected_loss(before, now, kind)) for kind in ("token", "exact")]


def test_the_anchor_holds_the_policy_back_on_its_own_rollouts():
    plain, token, exact = run_on_ranks(_distance, 1, [({},), (TOKEN,), (EXACT,)])
    assert token[0] < 0.5 * plain[0] and exact[1] < 0.5 * plain[1]


def _gradient(settings: dict[str, Any], cut: dict[str, Any]) -> dict[str, Any]:
    """The gradient of an update with own rollouts, the policy being an update away from its anchor."""
    from mifo_verl.verl.sft_step import SftLossOfBatch

    engine, own, kept = begun(settings, cut)
    update(engine, examples(8))
    rows = own.stage(kept, 0, 8)
    demonstrations = batch_of(examples(7), engine, cut.get("micro_batch_size_per_gpu", 1), **cut)
    with engine.train_mode():
        engine.optimizer_zero_grad()
        engine.forward_backward_batch(demonstrations, SftLossOfBatch(engine.mifo))
        gradient = torch.cat(full(engine.interval.model.gradients()))
    return {"gradient": gradient, "loss": own.used(rows).loss, "log_probs": [one.teacher_log_probs for one in kept]}


def _reference(settings: dict[str, Any], kind: str) -> dict[str, Any]:
    """The same by autograd: of the demonstrations alone, and of the KL of logits straight from the module."""
    from mifo_verl.verl.sft_step import SftLossOfBatch

    engine, _, _ = begun(settings, ALL)
    with torch.no_grad():
        before = log_softmax(engine)
    update(engine, examples(8))
    with engine.train_mode():
        engine.optimizer_zero_grad()
        loss = expected_loss(before, log_softmax(engine), kind)
        (50 * loss).backward()
        of_kl = torch.cat(full(engine.interval.model.gradients()))
        engine.optimizer_zero_grad()
        engine.forward_backward_batch(batch_of(examples(7), engine, **ALL), SftLossOfBatch(engine.mifo))
        of_sft = torch.cat(full(engine.interval.model.gradients()))
    return {"of_kl": of_kl, "of_sft": of_sft, "loss": float(loss), "log_probs": at_tokens(before)}


@pytest.mark.parametrize(("kind", "settings"), {"token": TOKEN, "exact": EXACT, "replay": REPLAY}.items())
def test_the_gradient_is_that_of_both_losses_however_the_update_is_cut(kind, settings):
    (expected,) = run_on_ranks(_reference, 1, [(settings, kind)])
    found = run_on_ranks(_gradient, 1, [(settings, ALL), (settings, BY_TOKENS)])
    found += run_on_ranks(_gradient, 2, [(settings, BY_ROWS), (settings, BY_TOKENS)])
    whole = expected["of_kl"] + expected["of_sft"]
    assert float(expected["of_kl"].norm()) > 0.1 * float(expected["of_sft"].norm())
    for run in found:
        assert run["loss"] == pytest.approx(expected["loss"], rel=1e-3)
        assert float((run["gradient"] - whole).norm()) <= 1e-3 * float(whole.norm())
        assert float((run["gradient"] - found[0]["gradient"]).norm()) <= 1e-5 * float(whole.norm())


def test_the_log_probs_of_the_phases_begin_are_the_modules_own():
    (expected,) = run_on_ranks(_reference, 1, [(TOKEN, "token")])
    for num_ranks in (1, 2):
        (run,) = run_on_ranks(_gradient, num_ranks, [(TOKEN, BY_TOKENS)])
        for own, of_module in zip(run["log_probs"], expected["log_probs"], strict=True):
            assert list(own) == pytest.approx(of_module.tolist(), abs=1e-4)


def _refuses_lost_rows() -> str:
    engine = make_engine(PLAIN | TOKEN)
    try:
        own_of(engine, ALL, LosesARow).begun(rollouts(), 1)
    except RuntimeError as error:
        return str(error)
    return ""


def test_a_rollout_that_does_not_come_back_is_an_error():
    assert run_on_ranks(_refuses_lost_rows, 1, [()])[0].startswith("5 own rollouts came back as [(1, ")
