"""Every setting by itself: its kind, its range, its choices."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

from omegaconf import OmegaConf

from mifo_verl.checks.findings import Findings
from mifo_verl.checks.run import Run
from mifo_verl.compose import composed_defaults
from mifo_verl.config import config_errors
from mifo_verl.errors import is_number, nearest
from mifo_verl.overrides import changes, parse

ACTOR, ROLLOUT, OPTIM = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "actor_rollout_ref.actor.optim"


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_betas(value: Any) -> bool:
    return len(value) == 2 and all(is_number(beta) and 0 <= beta < 1 for beta in value)


@dataclass(frozen=True)
class Rule:
    """What each of some settings must be; null is left to verl unless ``required``."""

    holds: Callable[[Any], bool]
    rule: str
    cure: str
    keys: tuple[str, ...]
    required: bool = False
    fractions: bool = False
    """Whether they need not be whole, even where verl's default is."""


def _numbers(holds: Callable[[float], bool], rule: str, cure: str, *keys: str) -> Rule:
    return Rule(lambda value: is_number(value) and holds(value), rule, cure, keys, fractions=True)


_SHARE, _OFF = "write it as a share: 0.1 for 10 %", "0 switches it off"
RULES = (
    Rule(
        lambda value: _is_whole(value) and value >= 1,
        "a whole number of at least 1",
        "correct it",
        (
            "data.train_batch_size",
            "data.max_prompt_length",
            "data.max_response_length",
            f"{ROLLOUT}.n",
            f"{ROLLOUT}.val_kwargs.n",
            f"{ROLLOUT}.agent.num_workers",
            f"{ROLLOUT}.tensor_model_parallel_size",
            f"{ACTOR}.ppo_mini_batch_size",
            f"{ACTOR}.ppo_epochs",
            "reward.num_workers",
            "trainer.n_gpus_per_node",
            "trainer.nnodes",
            "trainer.total_epochs",
        ),
        required=True,
    ),
    Rule(
        lambda value: _is_whole(value) and value >= 1,
        "null or at least 1",
        "null takes all epochs",
        ("trainer.total_training_steps",),
    ),
    _numbers(lambda v: v in (-1, 0) or v >= 1, "-1 or a whole number", "-1 takes all tokens", f"{ROLLOUT}.top_k"),
    _numbers(lambda v: v > 0, "a number above 0", "the paper's value is 1e-6", f"{OPTIM}.lr"),
    _numbers(
        lambda v: v > 0, "a number above 0", "verl's default is 1", f"{OPTIM}.clip_grad", f"{ROLLOUT}.temperature"
    ),
    _numbers(lambda v: v >= 0, "a number of at least 0", _OFF, f"{OPTIM}.weight_decay", f"{ACTOR}.kl_loss_coef"),
    _numbers(lambda v: v >= 0, "a number of at least 0", "0 is greedy", f"{ROLLOUT}.val_kwargs.temperature"),
    _numbers(lambda v: v >= 0, "a number of at least 0", _OFF, "algorithm.kl_ctrl.kl_coef", "restarts"),
    _numbers(lambda v: 0 <= v <= 1, "in [0, 1]", _SHARE, f"{OPTIM}.lr_warmup_steps_ratio", f"{OPTIM}.min_lr_ratio"),
    _numbers(lambda v: 0 <= v <= 1, "in [0, 1]", _SHARE, "algorithm.gamma", "algorithm.lam"),
    _numbers(lambda v: 0 < v <= 1, "in (0, 1]", _SHARE, f"{ROLLOUT}.top_p", f"{ROLLOUT}.val_kwargs.top_p"),
    _numbers(lambda v: 0 < v <= 1, "in (0, 1]", _SHARE, f"{ROLLOUT}.gpu_memory_utilization", f"{ACTOR}.clip_ratio"),
    Rule(_are_betas, "two numbers in [0, 1)", "AdamW's are [0.9,0.999]", (f"{OPTIM}.betas",), required=True),
)
CLIP = (  # both follow clip_ratio unless they are set
    _numbers(lambda v: 0 < v <= 1, "in (0, 1]", _SHARE, f"{ACTOR}.clip_ratio_low"),
    _numbers(
        lambda v: v > 0, "a number above 0", "DAPO's is 0.28", f"{ACTOR}.clip_ratio_high"
    ),  # 1e9 clips nothing: LUFFY
    _numbers(lambda v: v > 1, "a number above 1", "verl's default is 3, DAPO's 10", f"{ACTOR}.clip_ratio_c"),
)
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
    f"{ROLLOUT}.mode": "async",
    f"{ROLLOUT}.name": "vllm sglang trtllm transformers",
    "data.truncation": "left right middle error",
    "data.on_bad_row": "error skip",
    "reward.reward_manager.name": "naive dapo gdpo remote",
    "trainer.device": "cpu cuda",
    "trainer.resume_mode": "disable auto resume_path weights",
}
"""The choices of verl 0.9.1, which tests/contract compares with verl's own."""
_WORDS = {"yes": True, "on": True, "1": True, "no": False, "off": False, "0": False}
_NO_NULLS = ("trainer.", "data.")
"""Nodes whose numbers verl compares as they are."""


def check_settings(run: Run, found: Findings) -> None:
    """The settings of mifo, all of them, and the seed."""
    for error in config_errors(run.config.mifo):
        name, value, rest = re.match(r"([\w.]*)(=?)(.*)", error, re.DOTALL).groups()  # type: ignore[union-attr]
        found.error(f"{run.origin(name) if value else name}{value}{rest}")
    seed = run.get("seed")
    fits = _is_whole(seed) and 0 <= seed < 2**32
    found.require(fits, "seed", seed, "a whole number, 0 or more, below 2^32", "write seed=0")


def check_kinds(run: Run, found: Findings) -> None:
    """Each override is of its default's kind: Hydra takes ``yes`` and ``1e-6x`` for text."""
    defaults = composed_defaults(run.overrides)
    for key, default, value in changes(defaults, run.config, run.overrides):
        is_compared = value is None and key.startswith(_NO_NULLS) and _kind_of(default)
        null = is_compared or (value == "None" and default is None)
        rule = "a value: verl compares it" if value is None else "null, which is how YAML writes None"
        cure = f"the default is {str(default).lower()}" if value is None else f"write {key}=null"
        found.require(not null, key, value, rule, cure)
        finite = not isinstance(value, float) or isfinite(value)
        found.require(finite, key, value, "a finite number", f"the default is {default}")
        if OmegaConf.is_dict(default) and value is not None:
            first = next((name for name in ("name", "path", "enable") if name in default), next(iter(default), "<key>"))
            names = ", ".join(key for key in default if key[0] != "_")
            cure = f"write {key}.{first}={value}, of {names}" if names else f"write +{key}.<key>={value}"
            found.require(False, key, value, "a group of settings, not a value", cure)
            continue
        fractions = any(key in rule.keys for rule in (*RULES, *CLIP) if rule.fractions)
        kind = None if fractions or key.startswith("mifo.") else _kind_of(default)  # those are built: check_settings
        if kind is not None and value is not None:
            rule, accepts = kind
            found.require(accepts(value), key, value, rule, _meant(key, value, accepts, default))
        elif isinstance(value, str) and any(key in rule.keys for rule in (*RULES, *CLIP)):
            meant = _meant(key, value, is_number, default)
            found.require(not meant.startswith("write"), key, repr(value), "a number without quotes", meant)


def _meant(key: str, value: Any, accepts: Callable[[Any], bool], default: Any) -> str:
    """The cure of a text that was meant for a value: the value, or the default."""
    text = str(value).strip("'\" ").replace("\u2212", "-")
    parsed = None if OmegaConf.is_config(value) else parse(f"x={text}")
    read = parsed.value() if parsed else None
    guesses = [read, _WORDS.get(text.lower()), int(read) if isinstance(read, float) and read.is_integer() else None]
    meant = [guess for guess in guesses if guess is not None and accepts(guess)]
    return f"write {key}={str(meant[0]).lower()}" if meant else f"the default is {str(default).lower()}"


def check_ranges(run: Run, found: Findings) -> None:
    """Numbers in their range, words among the choices."""
    for rule in RULES:
        _apply(rule, run, found)
    if not found.has_error(f"{ACTOR}.clip_ratio"):
        for rule in CLIP:
            _apply(rule, run, found)
    for key, names in CHOICES.items():
        value, choices = run.get(key), names.split()
        if value is not None:
            several = f"one of {', '.join(choices)}{nearest(str(value), choices)}"
            text = several if choices[1:] else f"{names}, the only one"
            found.require(str(value) in choices, run.origin(key), value, text, "choose one of them")


def _apply(rule: Rule, run: Run, found: Findings) -> None:
    for key in rule.keys:
        value = run.get(key)
        if value is not None or rule.required:
            fits = value is not None and rule.holds(value)
            found.require(fits, key if fits else run.origin(key), value, rule.rule, rule.cure)


def check_magnitudes(run: Run, found: Findings) -> None:
    """Settings that are allowed and hardly meant, alone or beside others."""
    for key in (f"{OPTIM}.lr", "mifo.sft.lr"):
        lr = run.get(key)
        found.advise(not is_number(lr) or lr <= 1e-2, key, lr, "is large for AdamW", "the paper's value is 1e-6")
    key, entropy = f"{ACTOR}.entropy_coeff", run.get(f"{ACTOR}.entropy_coeff")
    rewards = is_number(entropy) and entropy < 0
    found.advise(not rewards, key, entropy, "rewards low entropy", "the paper's value is 0.001")
    if run.get("algorithm.use_kl_in_reward") is True and run.get(f"{ACTOR}.use_kl_loss") is True:
        both = f"algorithm.use_kl_in_reward=True beside {ACTOR}.use_kl_loss=True"
        found.warn(f"{both} counts the KL twice", "switch one off")
    if run.get("algorithm.filter_groups.enable") is True:
        key, metrics = "algorithm.filter_groups.metric", ("acc", "score", "reward")
        rule = f"one of {', '.join(metrics)}, which the reward returns"
        found.require(run.get(key) in metrics, key, run.get(key), rule, "rl=dapo takes acc")
    clip, low, high = (run.get(f"{ACTOR}.clip_ratio{side}") for side in ("", "_low", "_high"))
    is_given = any(given.startswith(f"{ACTOR}.clip_ratio=") for given in run.overrides)
    rule = f"left out where clip_ratio_low={low} and clip_ratio_high={high} are set, which are what the loss reads"
    found.require(not is_given or clip in (low, high), f"{ACTOR}.clip_ratio", clip, rule, "set these two in its place")


def _kind_of(default: Any) -> tuple[str, Callable[[Any], bool]] | None:
    if isinstance(default, bool):
        return "true or false", lambda value: isinstance(value, bool)
    if isinstance(default, int):
        return "a whole number", _is_whole
    if isinstance(default, float):
        return "a number", is_number
    if isinstance(default, str) and not default.endswith(".parquet"):
        return "one value, not several", lambda value: not OmegaConf.is_config(value)
    return None
