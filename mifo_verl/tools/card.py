"""The model card of an export: how the model was made, on which data, what it scored, with what."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from mifo_verl.run.journal import CONFIG
from mifo_verl.run.versions import VERSIONS
from mifo_verl.tools.evaluate.report import cell
from mifo_verl.tools.ledger.account import account
from mifo_verl.tools.parts import described
from mifo_verl.tools.run_files import Line, RunFiles, lookup, read_run

_MODEL = "actor_rollout_ref.model.path"
_SETTINGS = {
    "seed": "seed",
    "algorithm": "algorithm.adv_estimator",
    "prompts a step": "data.train_batch_size",
    "rollouts a prompt": "actor_rollout_ref.rollout.n",
    "response tokens, at most": "data.max_response_length",
    "RL learning rate": "actor_rollout_ref.actor.optim.lr",
    "SFT learning rate": "mifo.sft.lr",
    "LoRA rank (folded in)": "actor_rollout_ref.model.lora_rank",
}


def card(checkpoint: Path, dtype: str, evaluations: list[dict[str, Any]]) -> str:
    """Markdown with the hub's front matter. ``checkpoint`` is global_step_<n>; of a run whose records are not above it
    the card has the evaluations alone. ``evaluations`` are models' tables of a ``results.json``.
    """
    folder = next((parent for parent in checkpoint.resolve().parents if (parent / CONFIG).is_file()), None)
    step = int(checkpoint.name.rpartition("_")[2])
    run = None if folder is None else read_run(folder)
    about, base = ([], None) if run is None else (list(_of_run(run, step)), lookup(run.config, _MODEL))
    front: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    front |= {"tags": ["mifo_verl", "reinforcement-learning", "sft"]}
    lines = ["---", yaml.safe_dump(front, sort_keys=False).strip(), "---", "", f"# {checkpoint.name}, {dtype}", ""]
    lines += [f"Trained with `mifo_verl` from `{Path(str(base)).name}`." if base else "No records of a run were there."]
    return "\n".join([*lines, "", *about, *_numbers(evaluations)]) + "\n"


def _of_run(run: RunFiles, step: int) -> Iterator[str]:
    yield from _section("Method", {name: words for name, words in described(run.config).items() if words})
    settings = {name: lookup(run.config, key) for name, key in _SETTINGS.items()}
    yield from _section("Settings", {name: value for name, value in settings.items() if value is not None})
    yield from _section(f"Data, up to step {step}", _data(_until(run, step)))
    found = {line["step"]: line["accuracy"].get("mean") for line in run.validation if line["step"] <= step}
    if found:
        told = {f"step {at}": "-" if value is None else f"{value:.4f}" for at, value in found.items()}
        yield from _section("Validation in the run (means, without intervals)", told)
    versions = run.folder / VERSIONS
    if versions.is_file():
        yield from _section("Versions", json.loads(versions.read_text()))
    yield from ("## Config", "", "<details><summary>config.yaml of the run</summary>", "", "```yaml")
    yield from ((run.folder / CONFIG).read_text().rstrip(), "```", "", "</details>", "")


def _until(run: RunFiles, step: int) -> RunFiles:
    """What the run had recorded when this checkpoint was made."""

    def old(lines: list[Line]) -> list[Line]:
        return [line for line in lines if line["step"] <= step]

    prompts = None if run.prompts is None else old(run.prompts)
    return replace(run, ledger=old(run.ledger), rl=old(run.rl), sft=old(run.sft), prompts=prompts)


def _data(run: RunFiles) -> dict[str, Any]:
    counted = account(run, None)
    return {
        "training files": lookup(run.config, "data.train_files"),
        "prompts in RL, distinct": counted.distinct_rl_prompts,
        "rollouts": counted.rollouts,
        "demonstrations used, distinct": counted.distinct_demonstrations,
        "uses of a demonstration": counted.demonstrations,
        "their response tokens": counted.response_tokens,
        "of these in the loss": counted.kept_tokens,
    }


def _numbers(evaluations: list[dict[str, Any]]) -> Iterator[str]:
    """The means with their 95 % bootstrap intervals over questions, as ``mifo evaluate`` has found them."""
    for table in evaluations:
        yield from (
            f"## Evaluation of `{table['digest'][:16]}`",
            "",
            "Percent, with 95 % intervals over questions.",
            "",
        )
        yield from ("| benchmark | questions | metric | value |", "| --- | --- | --- | --- |")
        for name, benchmark in table["benchmarks"].items():
            for metric, value in benchmark["metrics"].items():
                told = cell(value) if value["low"] is not None else f"{100 * value['mean']:.1f}"
                yield f"| {name} | {benchmark['num_questions']} | {metric} | {told} |"
        asked = ", ".join(f"{key} {value}" for key, value in table["settings"].items() if value not in (None, False))
        yield from ("", f"Settings: {asked}.", "")


def _section(title: str, rows: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"## {title}", "", "| | |", "| --- | --- |")
    yield from (f"| {name} | {'not recorded' if value is None else value} |" for name, value in rows.items())
    yield ""
