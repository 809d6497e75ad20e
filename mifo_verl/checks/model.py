"""The model's folder, its config.json, its tokenizer and its chat template, without loading a weight."""

import inspect
import re
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mifo_verl.checks.findings import Findings, NotChecked
from mifo_verl.checks.model_files import has_tokenizer, read_json, rope_errors, weight_errors, window
from mifo_verl.checks.run import FILES, HUB_NAME, OPTIONS, Run, is_offline
from mifo_verl.errors import nearest

PATH = "actor_rollout_ref.model.path"


def check_folder(run: Run, found: Findings) -> None:
    """The model is there, weights and all."""
    if run.get(PATH) is None:
        what = "<Hugging Face folder, or a hub name such as Qwen/Qwen2.5-Math-1.5B>"
        raise ValueError(f"{PATH} must be set; write {PATH}={what}")
    path = str(run.get(PATH))
    folder = Path(path).expanduser()
    if folder.is_dir():
        rule = "a Hugging Face folder, which holds a config.json"
        if found.require((folder / "config.json").exists(), PATH, path, rule, "give a Hugging Face folder"):
            for error in weight_errors(folder):
                found.error(f"{PATH}={path} must be complete: {error}")
        return
    hub_name = HUB_NAME.fullmatch(path)
    if run.model_folder is not None:
        found.note(f"{path}, from the hub's cache")
    elif not hub_name or is_offline():
        where = "while HF_HUB_OFFLINE=1" if hub_name else "or a hub name such as Qwen/Qwen2.5-Math-1.5B"
        comma = "" if hub_name else ","
        found.require(False, PATH, path, f"an existing folder{comma} {where}", "check the path")
    else:
        found.warn(f"{PATH}={path} is not in the hub's cache: the model is not checked", f"hf download {path} first")


def check_model(run: Run, found: Findings) -> None:
    """config.json describes a causal language model that transformers knows and this run can train."""
    config = run.model_config
    kind, names = config.get("model_type"), config.get("architectures") or []
    if not kind and not config.get("auto_map"):
        raise ValueError("config.json: model_type must be set, e.g. qwen2; download the model again")
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if not config.get("auto_map"):
        cure = "install the version that the model asks for, or take another model"
        known = f"a model that the installed transformers knows (architectures={list(names)})"
        if not found.require(kind in CONFIG_MAPPING_NAMES, "config.json: model_type", kind, known, cure):
            return
        causal = names and all(name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() for name in names)
        rule = f"one causal language model (architectures={list(names)})"
        found.require(bool(causal) and len(names) == 1, "config.json: model_type", kind, rule, "take another model")
    key, quantised = "config.json: quantization_config", config.get("quantization_config")
    rule, cure = "left out: a quantised model cannot be trained in full", "take the model that it was made from"
    found.require(not quantised, key, quantised, rule, cure)
    override = run.get("actor_rollout_ref.model.override_config") or {}
    for key in ("rope_theta", "rope_scaling", "rope_parameters"):
        rule = "left out: it is set after the model has made its rotation out of config.json"
        name, cure = f"actor_rollout_ref.model.override_config.{key}", "write it into rope_parameters of config.json"
        found.require(key not in override, name, override.get(key), rule, cure)
    for error in rope_errors(dict(config)):
        found.error(error)
    width, heads = config.get("hidden_size"), config.get("num_attention_heads")
    if isinstance(width, int) and isinstance(heads, int) and not config.get("head_dim"):
        rule = f"a divisor of hidden_size={width}"
        found.require(heads > 0 and width % heads == 0, "config.json: num_attention_heads", heads, rule, "correct it")


def check_window(run: Run, found: Findings) -> None:
    """Prompt and response within the model's window."""
    longest = window(dict(run.model_config))
    if longest is None:
        raise NotChecked("not checked: config.json has no max_position_embeddings")
    rule = f"at least data.max_prompt_length + data.max_response_length = {run.max_tokens}"
    cure = "make the lengths smaller, or make a copy with a longer one by mifo data model (docs/start.md)"
    found.require(run.max_tokens <= longest, "config.json: max_position_embeddings", longest, rule, cure)
    served, name = run.get("actor_rollout_ref.rollout.max_model_len"), "actor_rollout_ref.rollout.max_model_len"
    rule = f"null, or from {run.max_tokens} (prompt + response) to {longest}"
    found.require(served is None or run.max_tokens <= served <= longest, name, served, rule, "leave it out")
    found.note(f"{run.max_tokens} of {longest} tokens")


def check_tokenizer(run: Run, found: Findings) -> None:
    """The tokenizer is there and fits the model."""
    if run.model_folder is None:
        raise NotChecked("not checked: the model's folder comes first")
    key = "actor_rollout_ref.model.tokenizer_path"
    name = key if run.get(key) else PATH
    folder = Path(run.get(key) or run.model_folder)
    rule = "a folder that holds a tokenizer (tokenizer.json or tokenizer.model)"
    if not found.require(has_tokenizer(folder), name, run.get(name), rule, "copy the tokenizer's files there"):
        return
    try:
        tokenizer = run.tokenizer
    except NotChecked as error:
        rule = f"must hold a tokenizer that transformers reads {str(error).partition('no tokenizer ')[2]}"
        raise ValueError(f"{name}={run.get(name)} {rule}; correct it") from None
    largest, size = max(tokenizer.get_vocab().values(), default=-1) + 1, run.model_config.get("vocab_size")
    if isinstance(size, int):
        rule = f"at least the {largest} tokens of its tokenizer"
        found.require(largest <= size, "config.json: vocab_size", size, rule, "resize the embeddings, or take its own")
    key, eos, pad, stops = "tokenizer_config.json: eos_token", tokenizer.eos_token, tokenizer.pad_token, _stop_ids(run)
    rule = "set: a demonstration ends with it, and a rollout"
    found.require(eos is not None, key, eos, rule, "write it, e.g. <|im_end|>")
    rule = "is not set: verl pads with the end token"
    found.advise(pad is not None, "tokenizer_config.json: pad_token", pad, rule, "write one of its own")
    rule = "is the end token too: what skips padding by its token skips the ends of demonstrations"
    both = pad is not None and pad == eos
    found.advise(not both, "tokenizer_config.json: pad_token", pad, rule, "write one of its own")
    rule = f"(token {tokenizer.eos_token_id}) is none of the model's end tokens {sorted(stops)}: "
    rule += "demonstrations and rollouts end differently"
    cure = f"write eos_token_id={sorted({*stops, tokenizer.eos_token_id} - {None})} into generation_config.json"
    found.advise(eos is None or not stops or tokenizer.eos_token_id in stops, key, eos, rule, cure)
    found.note(f"{largest} tokens")


def _stop_ids(run: Run) -> set[int]:
    """The end tokens of config.json and generation_config.json."""
    found: set[int] = set()
    assert run.model_folder is not None
    generation = run.model_folder / "generation_config.json"
    for config in (run.model_config, read_json(generation) if generation.exists() else {}):
        ids: Any = config.get("eos_token_id")
        found |= set(ids) if isinstance(ids, list) else {ids} - {None}
    return found


def check_template(run: Run, found: Findings) -> None:
    """The chat template renders every message of every kind of prompt, and opens the assistant's turn."""
    name, cure = "chat_template", "take the instruct model's, or set actor_rollout_ref.model.custom_chat_template"
    template = run.tokenizer.chat_template
    if not found.require(bool(template), name, template, "set: prompts are conversations", cure):
        return
    key, given = "actor_rollout_ref.model.custom_chat_template", run.get("actor_rollout_ref.model.custom_chat_template")
    rule = "the template's text, not the path of its file"
    is_text = given is None or "{" in given
    found.require(is_text, key, given, rule, f"copy the file to {run.model_folder}/chat_template.jinja, leave it out")
    _check_options(run, found, str(template))
    prompts = _prompts(run)
    for prompt in prompts if is_text else []:
        text = run.render(prompt, tokenize=False)
        for message in (message for message in prompt if message["role"] in ("system", "user")):
            content = (message["content"] or "").strip()
            rule = f"one that renders the {message['role']} message, and {content[:40]!r} is not in its text"
            found.require(content in text, name, "the tokenizer's", rule, cure)
    text, closed = run.render(prompts[0], tokenize=False), run.render(prompts[0], False, add_generation_prompt=False)
    before = run.render_answered(prompts[0])[0].removeprefix(closed)
    rule = f"renders no generation prompt: the model has to open its turn with {before!r} itself"
    found.advise(text != closed or not before.strip(), name, "the tokenizer's", rule, cure)
    changes = "strftime_now" in str(template) and not run.get(OPTIONS)
    rule = "writes the day's date: a run that goes on tomorrow has other prompts"
    found.advise(not changes, name, "the tokenizer's", rule, f"set it, e.g. '+{OPTIONS}.date_string=26 Jul 2024'")


def _prompts(run: Run) -> list[list[dict[str, str]]]:
    """The first good prompt of every order of roles in the data; one made up where there is none."""
    scans = [scan for setting in FILES for scan in run.scans(setting)]
    rows = [row["prompt"] for scan in scans for number, row in scan.sample.items() if number not in scan.bad]
    by_roles = {tuple(message["role"] for message in prompt): prompt for prompt in reversed(rows)}
    return list(by_roles.values()) or [[{"role": "user", "content": "1+1=?"}]]


def _check_options(run: Run, found: Findings, template: str) -> None:
    """What the template is told: neither what verl says itself, nor what it does not read."""
    options = run.get(OPTIONS)
    words = sorted(set(re.findall(r"[a-z]\w+", template)))
    of_tokenizer = inspect.signature(run.tokenizer.apply_chat_template).parameters
    for option, value in options.items() if OmegaConf.is_dict(options) else ():
        key, verls = f"{OPTIONS}.{option}", option in ("tokenize", "add_generation_prompt", "tools", "conversation")
        found.require(not verls, key, value, "left out: verl sets it itself", "remove it")
        rule = f"is not read by the chat template{nearest(option, words)}"
        found.advise(option in words or option in of_tokenizer, key, value, rule, "correct its name, or leave it out")
