"""SFT in the adapter alone: what it needs of a run, and which gradients an update has. Engines: integration/test_bilevel."""

import pytest
import torch

from mifo_verl.method.constraint import CONSTRAINTS
from mifo_verl.method.importance import AbsChange
from mifo_verl.method.lora import Lora
from mifo_verl.method.top_share import OneShard
from mifo_verl.types import Phase, RunFacts

FITTING = {"lora_rank": 16, "sft_optimizer": "fresh"}


class BaseAndAdapter:
    """Six base weights and two of an adapter, and what is asked of them."""

    def __init__(self) -> None:
        self.adapter, self.shards = [1], OneShard()
        self.asked: list[str] = []

    def weights(self) -> list[torch.Tensor]:
        return [torch.zeros(6), torch.zeros(2)]

    def forget_gradients(self, of_adapter: bool) -> None:
        self.asked.append("no adapter" if of_adapter else "no base")

    def fold_adapter(self) -> None:
        self.asked.append("fold")


def test_rl_updates_have_no_gradient_of_the_adapter_sft_updates_none_of_the_base_and_the_phase_ends_with_the_fold():
    model = BaseAndAdapter()
    active = CONSTRAINTS.build({"name": "lora"}).attach(model, AbsChange())
    active.before_update(Phase.RL)
    report = active.select(None, 1, None)
    active.before_update(Phase.SFT)
    assert active.release(None) is None
    assert model.asked == ["no adapter", "no base", "fold"]
    assert (report.num_frozen, report.num_coordinates, report.frozen_share, report.threshold) == (6, 8, 0.75, None)
    assert Lora().needs == {"trainable_base"} and active.state() == {}


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"lora_rank": 0}, "actor_rollout_ref.model.lora_rank"),
        ({"sft_optimizer": "separate"}, "mifo.sft.optimizer"),
        ({"weights_dtype": "bf16"}, "actor_rollout_ref.actor.fsdp_config.model_dtype"),
        ({"has_sft_phases": False}, "mifo.constraint.name"),
    ],
)
def test_what_does_not_fit_is_said_by_its_setting(facts, said):
    assert list(Lora().problems(RunFacts(**FITTING))) == []
    assert [problem.setting for problem in Lora().problems(RunFacts(**(FITTING | facts)))] == [said]
