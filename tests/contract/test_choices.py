"""The words that a check accepts are verl's own."""

import inspect

from verl.experimental.reward_loop.reward_manager.registry import REWARD_MANAGER
from verl.trainer.ppo import core_algos
from verl.utils.reward_score import default_compute_score
from verl.utils.tracking import Tracking
from verl.workers.config import FSDPOptimizerConfig
from verl.workers.config import actor as actor_config

from mifo_verl.checks.machine import TRACKERS
from mifo_verl.checks.ranges import ACTOR, CHOICES, OPTIM


def test_trackers():
    assert sorted(TRACKERS) == sorted(Tracking.supported_backend)


def test_advantage_estimators_and_policy_losses():
    assert set(CHOICES["algorithm.adv_estimator"].split()) == set(core_algos.ADV_ESTIMATOR_REGISTRY)
    assert set(CHOICES[f"{ACTOR}.policy_loss.loss_mode"].split()) == set(core_algos.POLICY_LOSS_REGISTRY)


def test_loss_aggregation():
    source = inspect.getsource(actor_config.ActorConfig.__post_init__)
    assert all(f'"{mode}"' in source for mode in CHOICES[f"{ACTOR}.loss_agg_mode"].split())


def test_learning_rate_schedules():
    assert CHOICES[f"{OPTIM}.lr_scheduler_type"] == "constant cosine"
    assert '["constant", "cosine"]' in inspect.getsource(FSDPOptimizerConfig)


def test_reward_managers():
    import verl.experimental.reward_loop.reward_manager  # noqa: F401

    assert set(CHOICES["reward.reward_manager.name"].split()) <= set(REWARD_MANAGER)


def test_kl_estimators():
    import torch

    log_prob = torch.zeros(1, 2)
    for name in CHOICES[f"{ACTOR}.kl_loss_type"].split():
        if not name.startswith("full"):
            core_algos.kl_penalty(log_prob, log_prob, name)


def test_data_sources_are_read_from_the_source_of_the_default_reward():
    source = inspect.getsource(default_compute_score)
    assert '"openai/gsm8k"' in source and 'startswith("aime")' in source
