"""Every setting by itself: its kind, its range, its choices."""

from collections.abc import Callable
from typing import Any

from mifo_verl.checks.findings import Findings
from mifo_verl.checks.run import Run
from mifo_verl.compose import composed_defaults
from mifo_verl.config import config_errors
from mifo_verl.errors import nearest
from mifo_verl.overrides import changes, chosen, misspelt

ACTOR, ROLLOUT, OPTIM = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "actor_rollout_ref.actor.optim"
COUNTS = (
    "data.train_batch_size",
    "data.max_prompt_length",
    "data.max_response_length",
    f"{ROLLOUT}.n",
    f"{ROLLOUT}.agent.num_workers",
    f"{ROLLOUT}.tensor_model_parallel_size",
    f"{ACTOR}.ppo_mini_batch_size",
    f"{ACTOR}.ppo_epochs",
    "reward.num_workers",
    "trainer.n_gpus_per_node",
    "trainer.nnodes",
    "trainer.total_epochs",
)
POSITIVE = (
    f"{OPTIM}.lr",
    f"{OPTIM}.clip_grad",
    f"{ROLLOUT}.temperature",
    f"{ACTOR}.clip_ratio_high",  # 1e9 clips nothing: LUFFY
    f"{ACTOR}.clip_ratio_c",
)
NOT_NEGATIVE = (f"{OPTIM}.weight_decay", f"{ACTOR}.kl_loss_coef", "algorithm.kl_ctrl.kl_coef", "restarts")
SHARES = (  # in [0, 1]
    f"{OPTIM}.lr_warmup_steps_ratio",
    f"{OPTIM}.min_lr_ratio",
    "algorithm.gamma",
    "algorithm.lam",
)
FRACTIONS = (  # in (0, 1]
    f"{ACTOR}.clip_ratio",
    f"{ACTOR}.clip_ratio_low",
    f"{ROLLOUT}.top_p",
    f"{ROLLOUT}.val_kwargs.top_p",
    f"{ROLLOUT}.gpu_memory_utilization",
)
EXACT_SHARES = (
    "mifo.gate.max_accuracy",
    "mifo.token_selector.ratio",
    "mifo.constraint.share",
    "mifo.constraint.history",
    "mifo.probe.solved_accuracy",
)
"""0, 0.125 and 1/8 are all of their kind; ``check_settings`` looks at them."""
CHOICES = {
    "algorithm.adv_estimator": (
        "gae grpo reinforce_plus_plus reinforce_plus_plus_baseline remax rloo opo grpo_passk gpg rloo_vectorized "
        "grpo_vectorized optimal_token_baseline tir_optimal_token_baseline gdpo"
    ),
    "algorithm.kl_penalty": "kl k1 abs mse k2 low_var_kl k3 full kl+ k1+ abs+ mse+ k2+ low_var_kl+ k3+",
    f"{ACTOR}.loss_agg_mode": ("token-mean token-sum seq-mean-token-sum seq-mean-token-mean seq-mean-token-sum-norm"),
    f"{ACTOR}.kl_loss_type": "kl k1 abs mse k2 low_var_kl k3 full kl+ k1+ abs+ mse+ k2+ low_var_kl+ k3+",
    f"{ACTOR}.policy_loss.loss_mode": (
        "vanilla dppo_tv dppo_kl gspo sapo gpg clip_cov kl_cov geo_mean dro cispo bypass_mode"
    ),
    f"{OPTIM}.lr_scheduler_type": "constant cosine",
    f"{ROLLOUT}.name": "vllm sglang trtllm transformers",
    "data.truncation": "left right middle error",
    "data.on_bad_row": "error skip",
    "reward.reward_manager.name": "naive dapo gdpo remote",
    "trainer.device": "cpu cuda",
    "trainer.resume_mode": "disable auto resume_path",
}
"""The choices of verl 0.9.1, which tests/contract compares with verl's own."""


def check_settings(run: Run, found: Findings) -> None:
    """The settings of mifo, all of them, and the seed."""
    for error in config_errors(run.config.mifo):
        found.error(error)
    seed = run.get("seed")
    found.require(isinstance(seed, int) and seed >= 0, "seed", seed, "a whole number, 0 or more", "write seed=0")


def check_kinds(run: Run, found: Findings) -> None:
    """Each override is of its default's kind: Hydra takes ``yes`` and ``1e-6x`` for text."""
    if len(chosen(run.overrides)) == len(run.overrides):
        return
    defaults = composed_defaults(run.overrides)
    for text in misspelt(defaults, run.overrides):
        message, _, cure = text.partition("; ")
        found.warn(message, cure)
    for key, default, value in changes(defaults, run.config, run.overrides):
        kind = None if key in EXACT_SHARES else _kind_of(default)
        if kind is not None and value is not None:
            rule, accepts = kind
            found.require(accepts(value), key, value, rule, f"the default is {str(default).lower()}")


def check_ranges(run: Run, found: Findings) -> None:
    """Numbers in their range, words among the choices."""
    for key in COUNTS:
        value = run.get(key)
        found.require(_is_whole(value) and value >= 1, key, value, "a whole number of at least 1", "correct it")
    steps = run.get("trainer.total_training_steps")
    whole = steps is None or (_is_whole(steps) and steps >= 1)
    found.require(whole, "trainer.total_training_steps", steps, "null or at least 1", "null takes all epochs")
    paper, share = "the paper's value is in the README", "write it as a share: 0.1 for 10 %"
    _require_all(run, found, POSITIVE, lambda v: v > 0, "a number above 0", paper)
    _require_all(run, found, NOT_NEGATIVE, lambda v: v >= 0, "a number of at least 0", "0 switches it off")
    _require_all(run, found, SHARES, lambda v: 0 <= v <= 1, "in [0, 1]", share)
    _require_all(run, found, FRACTIONS, lambda v: 0 < v <= 1, "in (0, 1]", share)
    for key, names in CHOICES.items():
        value, choices = run.get(key), names.split()
        if value is not None:
            rule = f"one of {', '.join(choices)}{nearest(str(value), choices)}"
            found.require(str(value) in choices, key, value, rule, "choose one of them")
    betas = run.get(f"{OPTIM}.betas")
    pair = betas is not None and len(betas) == 2 and all(_is_number(beta) and 0 <= beta < 1 for beta in betas)
    found.require(pair, f"{OPTIM}.betas", betas, "two numbers in [0, 1)", "AdamW's are [0.9,0.999]")


def check_magnitudes(run: Run, found: Findings) -> None:
    """Numbers that are allowed and hardly meant."""
    for key in (f"{OPTIM}.lr", "mifo.sft.lr"):
        lr = run.get(key)
        found.advise(not _is_number(lr) or lr <= 1e-2, key, lr, "is large for AdamW", "the paper's value is 1e-6")
    entropy = run.get(f"{ACTOR}.entropy_coeff")
    found.advise(
        not _is_number(entropy) or entropy >= 0,
        f"{ACTOR}.entropy_coeff",
        entropy,
        "rewards low entropy",
        "the paper's value is 0.001",
    )
    if run.get("algorithm.use_kl_in_reward") is True and run.get(f"{ACTOR}.use_kl_loss") is True:
        found.warn(
            f"algorithm.use_kl_in_reward=True beside {ACTOR}.use_kl_loss=True counts the KL twice", "switch one off"
        )
    if run.get("algorithm.filter_groups.enable") is True:
        metric = run.get("algorithm.filter_groups.metric")
        rule = "one of acc, score, reward, which the reward returns"
        found.require(
            metric in ("acc", "score", "reward"), "algorithm.filter_groups.metric", metric, rule, "rl=dapo takes acc"
        )


def _require_all(
    run: Run, found: Findings, keys: tuple[str, ...], holds: Callable[[float], bool], rule: str, cure: str
) -> None:
    for key in keys:
        value = run.get(key)
        if value is not None:
            found.require(_is_number(value) and holds(value), key, value, rule, cure)


def _kind_of(default: Any) -> tuple[str, Callable[[Any], bool]] | None:
    if isinstance(default, bool):
        return "true or false", lambda value: isinstance(value, bool)
    if isinstance(default, int):
        return "a whole number", _is_whole
    if isinstance(default, float):
        return "a number", _is_number
    return None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
