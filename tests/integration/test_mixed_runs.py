"""Runs with demonstrations in RL updates, on Ray: they train, and go on from a checkpoint. Neutral parts: test_staging."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mifo_verl.data.parquet import write_rows
from mifo_verl.tools.ledger.audit import audit
from mifo_verl.tools.prepare import addition, teacher
from mifo_verl.tools.prepare.tiny_model import START_MODEL
from mifo_verl.tools.run_files import read_run
from tests.integration.test_run import train

SMALL = [
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "actor_rollout_ref.rollout.n=4",
    "mifo.probe.kl_to_start=false",
    "trainer.val_before_train=false",
    "trainer.test_freq=-1",
]
ALL = [
    "method=luffy",
    "mifo/gate=hpt",
    "mifo.gate.threshold=1/4",
    "mifo/mixing=chord",
    "mifo.mixing.per=question",
    "mifo/sft_loss=chord_phi",
    "mifo/token_selector=all",
    "trainer.save_freq=2",
]
"""LUFFY's member, HPT's gate and CHORD's weights at once."""


def prompts_of(folder: Path) -> list[list[Any]]:
    """(prompt, correct rollouts, rollouts) of every step."""
    return [json.loads(line)["prompts"] for line in (folder / "prompts.jsonl").read_text().splitlines()]


def without_times(run: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in run["metrics"]]


@pytest.fixture
def taught(tmp_path) -> Path:
    """Training rows with the start model as the teacher that PEAR compares with."""
    write_rows(addition.rows(dict.fromkeys(addition.LEVELS, 4), "train", 0), tmp_path / "rows.parquet")
    teacher.make(str(tmp_path / "rows.parquet"), str(tmp_path / "taught.parquet"), str(START_MODEL), str(START_MODEL))
    return tmp_path / "taught.parquet"


def test_a_run_whose_rollouts_start_in_stages_goes_on_from_its_middle_as_if_never_stopped(tmp_path, taught):
    """With SRFT's loss of the sampled tokens, and an SFT phase of PEAR under EWC's spring behind both steps."""
    staged = ["method=bread", "mifo/off_policy=supervised", "mifo.off_policy.members=first"]
    staged += ["mifo.prefix.groups=[2,1,1]", "mifo.prefix.ratios=[0,1/2,1]", "mifo.prefix.thresholds=[-1,0.6,0.9]"]
    phase = ["mifo/gate=any", "mifo/schedule=every", "mifo.schedule.rl_steps=2", "mifo.sft.batch_size=8"]
    phase += ["mifo/sft_loss=pear", "mifo.off_policy.loss={name: nll}", "mifo/constraint=ewc"]
    phase += [f"data.{files}={taught}" for files in ("train_files", "val_files")]
    phase += ["mifo/on_policy=log_likelihood", "mifo.probe.around_sft=false"]
    steps = ["trainer.total_training_steps=2", "trainer.save_freq=1", "trainer.resume_mode=auto"]
    one = train(tmp_path / "one", *SMALL, *staged, *phase, *steps)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "checkpoints" / "global_step_2")
    (tmp_path / "two" / "summary.json").unlink()
    two = train(tmp_path / "two", *SMALL, *staged, *phase, *steps)
    assert one["summary"]["weights_sha256"] == two["summary"]["weights_sha256"]
    assert without_times(one) == without_times(two) and one["ledger"] == two["ledger"]
    assert audit(read_run(tmp_path / "one")) == []
    # two rollouts of each question, then one with half of its demonstration below 0.6, then it below 0.9
    given = [use for use in one["ledger"] if use["kind"] == "rollout"]
    half, whole = (
        sum((2 * use["kept_tokens"] >= use["response_tokens"] + 2) is is_whole for use in given)
        for is_whole in (False, True)
    )
    rl = [line for line in one["metrics"] if line["phase"] == "rl"]
    assert half > 0 and whole > 0 and sum(line["members"] for line in rl) == half + whole
    # what the first step put into the buffer, with the teacher's column, is trained on behind the second
    assert {use["step"] for use in one["ledger"] if use["kind"] != "rollout"} == {2}
    assert len(one["metrics"]) - len(rl) == 2 and len(one["ledger"]) - len(given) == 16


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("mixed") / "whole"
    return folder, train(folder, *SMALL, *ALL, "trainer.total_training_steps=4")


def test_luffys_member_is_trained_on_and_counts_in_no_accuracy(mixed):
    folder, run = mixed
    for line, prompts in zip(run["metrics"], prompts_of(folder), strict=True):
        assert line["members"] == 8 and line["rollouts"] == 24  # 8 questions, 3 rollouts of their own each
        assert all(count == 3 for _, _, count in prompts)
        assert 0 < line["prefix_tokens"] < line["response_tokens"]
        given = [use for use in run["ledger"] if (use["step"], use["kind"]) == (line["step"], "rollout")]
        assert sorted(use["prompt_id"] for use in given) == sorted(prompt for prompt, _, _ in prompts)
        assert sum(use["kept_tokens"] for use in given) == line["prefix_tokens"]
    assert audit(read_run(folder)) == []


def test_hpts_questions_are_trained_on_by_demonstration_with_chords_weights(mixed):
    folder, run = mixed
    staged = 0
    for line, prompts in zip(run["metrics"], prompts_of(folder), strict=True):
        gated = [prompt for prompt, correct, count in prompts if correct * 4 <= count]
        uses = [use for use in run["ledger"] if (use["step"], use["kind"]) == (line["step"], "update")]
        assert sorted(use["prompt_id"] for use in uses) == sorted(gated)
        if uses:
            staged += len(uses)
            assert line["staged"]["demonstrations"] == line["staged"]["without_rl"] == len(uses)
            for key in ("response_tokens", "kept_tokens"):
                assert line["staged"][key] == sum(use[key] for use in uses)
            assert line["mixing"]["rl"] + line["mixing"]["sft"] == pytest.approx(1) and line["staged"]["loss"] > 0
    assert staged > 0
    assert run["metrics"][0]["mixing"] == {"rl": pytest.approx(0.1), "sft": 0.9}


def test_a_second_policy_trains_beside_the_actor_with_a_reference_of_its_own(tmp_path):
    steps = ["trainer.total_training_steps=2", "trainer.save_freq=1", "trainer.resume_mode=auto"]
    one_update = [setting for setting in SMALL if "ppo_mini_batch_size" not in setting]
    own = ["method=bridge", "rl=grpo", "mifo.mixing.demonstrations=dataset"]
    own += ["mifo.mixing.adapter_lr=1e-7"]  # theta moves, w hardly does: the actor without w would be as near as itself
    run = train(tmp_path / "run", *one_update, *steps, *own)
    logged = EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    to_reference = [scalar.value for scalar in logged.Scalars("actor/kl_loss")]
    assert to_reference[0] == pytest.approx(0, abs=1e-9) and to_reference[1] > 1e-6
    first, second = (line["policies"] for line in run["metrics"])
    assert first["cooperative_gain"] == 0.0 != second["cooperative_gain"]  # theta-hat begins as theta
    assert all(line["adapter_grad_norm"] > 0 and line["second_grad_norm"] > 0 for line in (first, second))
    assert all(line["mixing"] == {"rl": 0.5, "sft": 0.5} for line in run["metrics"])
    assert [line["staged"]["demonstrations"] for line in run["metrics"]] == [8, 8]
    assert all("reference" in line["seconds"] for line in run["metrics"])
    assert audit(read_run(tmp_path / "run")) == [] and all(use["num_rollouts"] is None for use in run["ledger"])
    # and it goes on from its middle as if never stopped: both policies, the adapter, and the place in the data set
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "global_step_2")
    (tmp_path / "again" / "summary.json").unlink()
    again = train(tmp_path / "again", *one_update, *steps, *own)
    assert again["summary"]["weights_sha256"] == run["summary"]["weights_sha256"]
    assert without_times(again) == without_times(run) and again["ledger"] == run["ledger"]
