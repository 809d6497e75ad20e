"""Whether anything reads a setting: what was added, and what verl keeps from earlier versions or for other trainers."""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mifo_verl.checks.findings import Findings
from mifo_verl.checks.ranges import ACTOR, CHOICES, OPTIM, ROLLOUT, RULES
from mifo_verl.checks.run import Run
from mifo_verl.compose import composed_defaults, known_settings
from mifo_verl.overrides import added, changes, keys, likely

REWARD, MODEL = "reward.reward_model", "actor_rollout_ref.model"
DEAD = {
    "custom_reward_function": "reward.custom_reward_function",
    "reward_model.num_workers": "reward.num_workers",
    "reward_model.reward_manager": "reward.reward_manager.name",
    "reward_model.model.path": f"{REWARD}.model_path",
    "reward_model": REWARD,
    "sandbox_fusion": "reward.sandbox_fusion",
    f"{ACTOR}.grad_clip": f"{OPTIM}.clip_grad",
    "critic.grad_clip": "critic.optim.clip_grad",
}
"""What verl 0.9.1 keeps in its config and reads nowhere, and what it reads in its place."""
UNREAD = (
    "data.return_raw_input_ids data.return_raw_chat data.return_full_prompt data.return_multi_modal_inputs "
    "trainer.balance_batch trainer.esi_redundant_time trainer.ray_wait_register_center_timeout "
    "algorithm.use_pf_ppo algorithm.pf_ppo actor_rollout_ref.nccl_timeout "
    f"{ACTOR}.freeze_vision_tower {ACTOR}.use_prefix_grouper {ROLLOUT}.over_sample_rate {ROLLOUT}.multi_stage_wake_up "
    f"{ROLLOUT}.multi_turn.use_inference_chat_template {ROLLOUT}.multi_turn.tokenization_sanity_check_mode "
    f"data.reward_fn_key {ACTOR}.fsdp_config.turbo_config {MODEL}.lora.dropout_position {MODEL}.lora.a2a_experimental "
    f"{MODEL}.lora.lora_A_init_method {MODEL}.lora.lora_B_init_method {MODEL}.lora.freeze_language_model "
    f"{MODEL}.lora.freeze_vision_model {MODEL}.lora.freeze_vision_projection "
    f"{ROLLOUT}.multi_turn.num_repeat_rollouts critic.forward_max_token_len_per_gpu critic.forward_micro_batch_size "
    "critic.forward_micro_batch_size_per_gpu trainer.v1.colocate_async trainer.v1.separate_async"
).split()
"""The same, of which nothing is read in its place by this trainer."""


def check_read(run: Run, found: Findings) -> None:
    """Each setting is read by something."""
    base, defaults = composed_defaults([]), composed_defaults(run.overrides)
    typed = {given.partition("=")[0].lstrip("+") for given in run.overrides}
    for key in added(base, run.config):
        _check_added(run, found, key)
    for key in keys(run.config):
        dead = next((dead for dead in DEAD if f"{key}.".startswith(f"{dead}.")), None)
        is_set = key in typed or run.get(key) != OmegaConf.select(base, key)
        if dead and is_set and not OmegaConf.is_dict(run.get(key)):
            live = DEAD[dead] + key.removeprefix(dead)
            there = OmegaConf.select(base, live.rpartition(".")[0]) or {}
            refused = next((rule for rule in RULES if live in rule.keys and not rule.holds(run.get(key))), None)
            choices = CHOICES.get(live, str(run.get(key))).split()
            value = f"<{refused.rule}>" if refused else run.get(key) if str(run.get(key)) in choices else choices[0]
            cure = f"write {live}={value}" if live.rpartition(".")[2] in there else "leave it out"
            found.require(False, key, run.get(key), "left out, because nothing reads it", cure)
    for key, _, value in changes(defaults, run.config, run.overrides):
        unread = any(f"{key}.".startswith(f"{node}.") for node in UNREAD) and value != OmegaConf.select(base, key)
        found.advise(not unread, key, value, "is read by nothing of this trainer", "leave it out")


def _check_added(run: Run, found: Findings, key: str) -> None:
    """A key that was added: verl's typed nodes refuse one that they do not have, and the others keep it in silence."""
    parent, _, word = key.rpartition(".")
    value, close = run.get(key), _meant(key, 0.85)
    cure = f"write {close}={_written(value)}"
    guess = close or _meant(key)
    is_near = not parent or close.endswith(f".{key}") or close.partition(".")[0] == key.partition(".")[0]
    close = close if is_near else ""
    near = f" (did you mean {guess}?)" if guess else ""
    if parent and str((run.get(parent) or {}).get("_target_", "")).startswith("verl."):
        rule = f"left out, because verl has no such setting in {parent}{near}"
        found.require(_is_declared(word), key, value, rule, cure if close else "leave it out")
    elif close:
        found.require(False, key, value, f"left out, because nothing reads it{near}", cure)
    else:
        rule = f"is read neither by verl nor by mifo_verl{near}"
        cure = "leave it out, if no code of your own reads it"
        found.advise(_is_read(parent.rpartition(".")[2] or "config", word), key, value, rule, cure)


@cache
def _meant(key: str, cutoff: float = 0.6) -> str:
    return likely(key, known_settings(), cutoff)


@cache
def _is_declared(word: str) -> bool:
    """Whether a config class of verl has such a field."""
    return any(re.match(rf"    {re.escape(word)}\s*:", line) for line in sources("workers/config"))


@cache
def _is_read(node: str, word: str) -> bool:
    """Whether a line of verl or of ours takes the word out of a node of this name."""
    node, name = re.escape(node), re.escape(word)
    read = rf"""get\(\s*["']{name}["']|["']{name}["']\s*(\]|in\b)|\b(config|{node})\.{name}\b"""
    return any(re.search(read, line) for line in sources("") if word in line)


@cache
def sources(folder: str) -> list[str]:
    """The lines of verl's Python files in a folder; of all of them and of ours if it is empty."""
    verl = find_spec("verl")
    assert verl is not None and verl.origin is not None
    roots = Path(verl.origin).parent / folder, *([] if folder else [Path(__file__).parents[1]])
    files = (file for root in roots for file in sorted(root.rglob("*.py")))
    return [line for file in files for line in file.read_text(errors="ignore").splitlines()]


def _written(value: Any) -> str:
    return "<value>" if OmegaConf.is_config(value) else str(value)
