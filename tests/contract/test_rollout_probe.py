"""What is measured on the rollouts of a step, where it has to be left out."""

from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from mifo_verl.probes import rollouts
from mifo_verl.probes.rollouts import RolloutProbe
from mifo_verl.settings import ProbeConfig
from mifo_verl.verl.actor import Actor


class Queue:
    """Two rollouts of two tokens; the second response token of the second one is padding."""

    def __init__(self) -> None:
        jagged = lambda rows: torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)  # noqa: E731
        self.data = TensorDict(
            {
                "response_mask": jagged([[1, 1], [1, 0]]),
                "entropy": jagged([[0.5, 1.0], [0.0, 9.0]]),
                "old_log_probs": jagged([[-1.0, -1.0], [-1.0, -1.0]]),
                "log_probs": jagged([[0.0, -1.0, -2.0, 0.0], [-1.0, -5.0, 0.0]]),  # of prompt and response, shifted
            },
            batch_size=2,
        )

    def kv_batch_get(self, **_):
        return self.data


class Ranks:
    """Of which some keep the interval's start."""

    def __init__(self, *keeps: bool) -> None:
        self.keeps, self.asked, self._dispatch_info = list(keeps), [], {"actor": [0]}

    def has_start(self) -> list[bool]:
        return self.keeps

    def compute_start_log_prob(self, batch: KVBatchMeta) -> None:
        self.asked.append((batch.keys, batch.extra_info["temperature"]))


ROLLOUT = SimpleNamespace(temperature=0.7, log_prob_use_dynamic_bsz=False, log_prob_micro_batch_size_per_gpu=1)


def probe(ranks: Ranks, said: list[str], number: int | None = None) -> RolloutProbe:
    actor = Actor(ranks, SimpleNamespace(use_dynamic_bsz=True), pad_token_id=0)
    return RolloutProbe(ProbeConfig(kl_rollouts=number), actor, ROLLOUT, True, lambda kind, text: said.append(text))


def batch(*keys: str) -> KVBatchMeta:
    return KVBatchMeta(partition_id="train", keys=list(keys), tags=[{} for _ in keys])


KEPT = torch.nested.as_nested_tensor([torch.tensor([-1.0, -2.0]), torch.tensor([-1.0, -5.0])], layout=torch.jagged)
"""The log-probs of the responses under the start."""


@pytest.fixture(autouse=True)
def queue(monkeypatch):
    monkeypatch.setattr(rollouts, "tq", Queue())
    monkeypatch.setattr(rollouts, "response_from_nested", lambda values, mask: KEPT)


def test_the_kl_is_the_mean_over_the_response_tokens_of_r_minus_1_minus_log_r():
    metrics, ranks = {}, Ranks(True, True)
    probe(ranks, []).measure(batch("a", "b"), metrics, {})
    # start - now: 0, -1, 0 on three tokens; r - 1 - log r: 0, e^-1 - 1 + 1, 0
    assert metrics["mifo/rl/kl_to_start"] == pytest.approx(0.36787944 / 3) and metrics["mifo/rl/kl_tokens"] == 3
    assert ranks.asked == [(["a", "b"], 0.7)]


def test_the_entropy_is_the_mean_over_the_response_tokens_and_only_if_verl_has_computed_it():
    metrics = {"actor/entropy": 3.0}
    probe(Ranks(False), []).measure(batch("a", "b"), metrics, {})
    assert metrics["mifo/rl/entropy"] == 0.5


def test_some_rollouts_are_spread_over_the_batch():
    ranks = Ranks(True)
    probe(ranks, [], number=2).measure(batch("a", "b", "c", "d"), {}, {})
    assert ranks.asked == [(["a", "c"], 0.7)]


def test_without_a_start_on_every_rank_no_kl_is_taken_until_the_next_interval_and_a_resume_says_so():
    metrics, said = {}, []
    made = probe(Ranks(True, False), said)
    made.measure(batch("a"), metrics, {})
    assert metrics == {} and len(said) == 1 and "kl_to_start is null until the next interval begins" in said[0]
    made.has_start = True
    made.measure(batch("a"), metrics, {})
    assert "mifo/rl/kl_to_start" in metrics


def test_tokens_that_were_given_and_not_sampled_are_left_out():
    rollouts.tq.data["mifo_prefix"] = torch.tensor([1, 0])
    metrics = {"actor/entropy": 1.0}
    probe(Ranks(True), []).measure(batch("a", "b"), metrics, {})
    assert metrics["mifo/rl/entropy"] == pytest.approx(0.5)  # 1.0 and 0.0
    assert metrics["mifo/rl/kl_to_start"] == pytest.approx(0.36787944 / 2) and metrics["mifo/rl/kl_tokens"] == 2
