"""RL updates whose rollouts begin with given tokens, on FSDP2 shards over gloo: neutral to the bit, cut as one likes."""

from typing import Any

import pytest
import torch

from tests.integration.engine_ranks import batch_of, examples, full, make_engine, run_on_ranks

SETTINGS = {"actor_rollout_ref.actor.optim.lr": 1e-3}
ALL = {"use_dynamic_bsz": True, "max_token_len_per_gpu": 4096}
ONE_BY_ONE = {"use_dynamic_bsz": False, "micro_batch_size_per_gpu": 1}
NONE = [0] * 8
SOME = [0, 0, 2, 2, 0, 3, 0, 1]
"""Given tokens of eight rollouts, of which none is so short."""
WHOLE = [0, 99, 0, 0, 99, 0, 0, 0]
"""Two of them are demonstrations from their first token to their last."""


def rl_batch(engine: Any, prefix: list[int], cut: dict[str, Any]) -> Any:
    """This rank's rollouts: random tokens, advantages of both signs, old log-probs near the start model's."""
    import torch.distributed as dist
    from verl.utils import tensordict_utils as tu

    from mifo_verl.verl.rl_loss import CORRECT, FIRST, PREFIX

    batch = batch_of(examples(8), engine, **cut)
    own = slice(dist.get_rank() * len(batch), (dist.get_rank() + 1) * len(batch))
    lengths = [len(row) for row in batch["responses"].unbind()]

    def column(values: list[float]) -> Any:
        rows = [torch.full((length,), value) for length, value in zip(lengths, values, strict=True)]
        return torch.nested.as_nested_tensor(rows, layout=torch.jagged)

    advantages = [0.75, -0.25, 0.5, -0.5, 0.25, 0.75, -0.75, 0.5][own]
    batch["response_mask"] = column([1] * len(batch)).long()
    batch["advantages"], batch["old_log_probs"] = column(advantages), column([-5.4] * len(batch))
    batch["entropy"] = torch.nested.as_nested_tensor(
        [(row % 7).float() for row in batch["responses"].unbind()], layout=torch.jagged
    )
    batch[CORRECT] = torch.tensor([1, 0, 1, 0, 1, 1, 0, 1][own])
    tu.assign_non_tensor_stack(batch, PREFIX, prefix[own])
    tu.assign_non_tensor_stack(batch, FIRST, [1, 0, 1, 0, 1, 1, 1, 1][own])
    return batch


def one_update(
    rule: dict[str, Any] | None, prefix: list[int], cut: dict[str, Any], on_policy: str = "verl"
) -> dict[str, Any]:
    """The gradient and the weights of one update with verl's loss alone, or with a rule for given tokens."""
    from functools import partial

    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.utils.losses import ppo_loss

    from mifo_verl.method.off_policy import OFF_POLICIES
    from mifo_verl.method.on_policy import ON_POLICIES
    from mifo_verl.verl.rl_loss import rl_loss
    from tests.integration.engine_ranks import _quickstart

    engine = make_engine(SETTINGS)
    config = omega_conf_to_dataclass(_quickstart().actor_rollout_ref.actor)
    off_policy = OFF_POLICIES.build(rule or {"name": "none"})
    sampled = ON_POLICIES.build({"name": on_policy})
    loss = rl_loss(partial(ppo_loss, config=config), off_policy, sampled, has_prefixes=rule is not None)
    with engine.train_mode():
        engine.optimizer_zero_grad()
        engine.forward_backward_batch(rl_batch(engine, prefix, cut), loss)
        gradient = torch.cat(full(engine.interval.model.gradients()))
        engine.optimizer_step()
    return {"gradient": gradient, "weights": torch.cat(full(engine.interval.model.weights()))}


SUPERVISED = {"name": "supervised", "coefficient": 0.5}
METHODS: dict[str, tuple[Any, ...]] = {
    "uft": (SUPERVISED | {"per": "token_mean"}, SOME),
    "trapo": (SUPERVISED | {"members": "first"}, SOME),
    "luffy": ({"name": "shaped"}, WHOLE),
    "prefix_rft": ({"name": "ratio", "share": "1/2"}, SOME),
    "srft": ({"name": "shaped"}, WHOLE, "log_likelihood"),
}
"""The loss of given tokens, how many are given, and the loss of sampled ones, where it is not verl's."""
CASES: dict[str, tuple[Any, ...]] = {
    "rl": (None, NONE, ALL),
    "nothing given": (SUPERVISED, NONE, ALL),
    "not trained": ({"name": "none"}, SOME, ALL),
    "coefficient 0": (SUPERVISED | {"coefficient": 0, "per": "token_mean"}, SOME, ALL),
    **{name: (rule, given, ALL, *sampled) for name, (rule, given, *sampled) in METHODS.items()},
    **{f"{name}, cut": (rule, given, ONE_BY_ONE, *sampled) for name, (rule, given, *sampled) in METHODS.items()},
}


@pytest.fixture(scope="module", params=[1, 2], ids=["one rank", "two ranks"])
def found(request) -> dict[str, Any]:
    return dict(zip(CASES, run_on_ranks(one_update, request.param, list(CASES.values())), strict=True))


def test_where_nothing_is_given_the_weights_are_rls_to_the_bit(found):
    assert torch.equal(found["nothing given"]["weights"], found["rl"]["weights"])
    assert not torch.equal(found["not trained"]["weights"], found["rl"]["weights"])


def test_supervision_at_coefficient_0_leaves_the_weights_of_untrained_prefixes_to_the_bit(found):
    assert torch.equal(found["coefficient 0"]["weights"], found["not trained"]["weights"])


@pytest.mark.parametrize("method", METHODS)
def test_the_gradient_does_not_depend_on_how_the_update_is_cut(found, method):
    whole, cut = (found[name]["gradient"] for name in (method, f"{method}, cut"))
    assert float((whole - cut).norm()) <= 2e-6 * float(whole.norm())
    assert float((whole - found["not trained"]["gradient"]).norm()) > 1e-3 * float(whole.norm())
