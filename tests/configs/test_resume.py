"""A run goes on only from a checkpoint of the same run; what differs is named."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mifo_verl.checks.findings import Finding, Status
from mifo_verl.checks.preflight import check_run
from mifo_verl.compose import ConfigError, compose_config
from mifo_verl.data.parquet import write_rows
from mifo_verl.loop.state import FOLDER, LoopState, SftProgress
from mifo_verl.run.checkpoints import CheckpointStore
from mifo_verl.run.journal import CONFIG
from mifo_verl.run.resume import check_resume, own_checkpoints, run_facts
from mifo_verl.tools.prepare.addition import rows
from mifo_verl.types import BufferEntry, SftExample


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_rows(rows({1: 20}, "train", seed=0), folder / "train.parquet")
    return folder


def config(folder: Path, *overrides: str):
    return compose_config(
        [
            "experiment=quickstart",
            f"run_dir={folder}",
            f"data.train_files={folder}/train.parquet",
            "trainer.resume_mode=auto",
            *overrides,
        ]
    ).node


@pytest.fixture(scope="module")
def facts(folder):
    first = config(folder)
    (folder / CONFIG).write_text(OmegaConf.to_yaml(first, resolve=True))
    return run_facts(first, step=4, during_step=False, accuracy=0.5)


def test_the_facts_say_of_what_run_and_where_in_it(facts):
    assert (facts["step"], facts["accuracy"], facts["world_size"]) == (4, 0.5, 2)
    assert facts["versions"]["verl"] == "0.9.1" and facts["versions"]["torch"].startswith("2.")
    assert facts["config"]["buffer_size"] == 26


def test_the_same_settings_go_on_without_a_word(facts, folder):
    assert check_resume(facts, config(folder)) == []


@pytest.mark.parametrize(
    "override",
    [
        "trainer.save_freq=7",
        "trainer.logger=[console]",
        "mifo.checkpoint.keep_last=5",
        "mifo.watchdog.factor=3",
        "mifo.probe.prompts=10",
        "trainer.total_training_steps=50",
        "name=other",
        "ray_kwargs.ray_init.num_cpus=8",
        "+env.MIFO_FAULT=exit:1",
    ],
)
def test_what_says_only_where_and_how_fast_may_differ(facts, folder, override):
    assert check_resume(facts, config(folder, override)) == []


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed=3", "seed=3 (the checkpoint has 0)"),
        ("buffer_size=8", "mifo.schedule.size=8 (the checkpoint has 26)"),
        ("mifo.constraint.share=0.3", "mifo.constraint.share=0.3 (the checkpoint has 0.5)"),
        ("mifo/constraint=none", "mifo.constraint.name=none"),
        # each needs what the checkpoint of a run without it lacks: a column, marks of rollouts, an anchor
        ("mifo/sft_loss=pear", "mifo.sft_loss.name=pear (the checkpoint has nll)"),
        ("mifo/on_policy=log_likelihood", "mifo.on_policy.name=log_likelihood (the checkpoint has verl)"),
        ("mifo/prefix=uniform", "mifo.prefix.name=uniform (the checkpoint has none)"),
        ("mifo/constraint=ewc", "mifo.constraint.name=ewc (the checkpoint has strict)"),
        ("mifo/constraint=kl_anchor", "mifo.constraint.name=kl_anchor (the checkpoint has strict)"),
        ("actor_rollout_ref.actor.optim.lr=1e-5", "actor_rollout_ref.actor.optim.lr=1e-05 (the checkpoint has 0.0001)"),
        ("mifo.sft.optimizer=shared", "mifo.sft.optimizer=shared (the checkpoint has separate)"),
        ("trainer.n_gpus_per_node=1", "=1 (the checkpoint has 2 ranks"),
        ("actor_rollout_ref.rollout.n=4", "actor_rollout_ref.rollout.n=4 (the checkpoint has 8)"),
        ("actor_rollout_ref.actor.optim.lr_scheduler_type=cosine", "lr_scheduler_type=cosine"),
    ],
)
def test_what_changes_the_training_is_refused_with_both_values(facts, folder, override, said):
    with pytest.raises(ConfigError) as refusal:
        check_resume(facts, config(folder, override))
    assert said in str(refusal.value)
    assert "trainer.resume_mode=auto must" in str(refusal.value) and "another run_dir" in str(refusal.value)


def test_the_length_of_a_run_is_free_only_while_the_learning_rate_does_not_depend_on_it(facts, folder):
    decaying = {**facts, "config": OmegaConf.to_container(
        config(folder, "actor_rollout_ref.actor.optim.lr_scheduler_type=cosine"), resolve=True
    )}  # fmt: skip
    longer = ["actor_rollout_ref.actor.optim.lr_scheduler_type=cosine", "trainer.total_training_steps=50"]
    with pytest.raises(ConfigError, match=r"trainer\.total_training_steps=50 \(the checkpoint has 22\)"):
        check_resume(decaying, config(folder, *longer))


@pytest.mark.parametrize(("method", "is_refused"), [("sft_only", True), ("mifo", False)])
def test_sfts_learning_rate_depends_on_the_length_of_a_run_where_its_stage_is_the_run(
    facts, folder, method, is_refused
):
    decaying = [f"method={method}", "mifo.sft.lr_scheduler_type=cosine"]
    before = {**facts, "config": OmegaConf.to_container(config(folder, *decaying), resolve=True)}
    if is_refused:
        with pytest.raises(ConfigError, match=r"trainer\.total_training_steps=50"):
            check_resume(before, config(folder, *decaying, "trainer.total_training_steps=50"))
    else:
        assert check_resume(before, config(folder, *decaying, "trainer.total_training_steps=50")) == []


@pytest.mark.parametrize("length", ["trainer.total_training_steps", "mifo.budget.flops"])
@pytest.mark.parametrize(
    ("part", "follows_length"),
    [
        (("mifo/mixing=progressive", "mifo/gate=now"), True),
        (("mifo/mixing=chord", "mifo/gate=now"), False),  # it counts steps
        (("mifo/sft_loss=idft",), True),
        (("mifo/sft_loss=sed",), False),
        (("mifo.sampling.lengths=[16,24]",), True),
        (("mifo.sampling.lengths=[24,24]",), False),
    ],
)
def test_the_length_of_a_run_is_free_only_if_no_part_reads_the_share_that_is_over(
    facts, folder, part, follows_length, length
):
    before = OmegaConf.to_container(config(folder, *part, "mifo.budget.flops=1e11"), resolve=True)
    longer = config(folder, *part, "mifo.budget.flops=1e11", f"{length}=50")
    if follows_length:
        with pytest.raises(ConfigError, match=rf"{length}=50"):
            check_resume({**facts, "config": before}, longer)
    else:
        assert check_resume({**facts, "config": before}, longer) == []


def test_data_and_model_that_have_changed_are_refused(facts, folder, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.train_files"):
        check_resume({**facts, "train_files_sha256": ["0" * 64]}, config(folder))
    with pytest.raises(ConfigError, match=r"model\.path"):
        check_resume({**facts, "model_config_sha256": "0" * 64}, config(folder))
    files = facts["model_files_sha256"] | {"tokenizer.json": "0" * 64}
    with pytest.raises(ConfigError, match=r"model\.path \(its tokenizer\.json is another one\)"):
        check_resume({**facts, "model_files_sha256": files}, config(folder))


def test_a_model_with_another_tokenizer_or_index_is_refused_by_the_file(facts, folder, tmp_path):
    moved = tmp_path / "model"
    shutil.copytree(config(folder).actor_rollout_ref.model.path, moved)
    (moved / "tokenizer_config.json").write_text("{}")
    (moved / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"\(its model\.safetensors\.index\.json, tokenizer_config\.json is another"):
        check_resume(facts, config(folder, f"actor_rollout_ref.model.path={moved}"))


def test_a_model_that_is_a_name_on_the_hub_is_compared_by_its_name(folder):
    def of_hub(name: str):
        return config(folder, f"actor_rollout_ref.model.path={name}")

    first = of_hub("Qwen/Qwen2.5-0.5B")
    (folder / CONFIG).write_text(OmegaConf.to_yaml(first, resolve=True))
    saved = run_facts(first, step=4, during_step=False, accuracy=0.5)
    assert check_resume(saved, first) == []
    with pytest.raises(ConfigError) as refusal:
        check_resume(saved, of_hub("Qwen/Qwen2.5-1.5B"))
    said = "actor_rollout_ref.model.path=Qwen/Qwen2.5-1.5B (the checkpoint has Qwen/Qwen2.5-0.5B)"
    assert str(refusal.value).count("Qwen/Qwen2.5-1.5B") == 1 and said in str(refusal.value)


def test_a_reward_function_that_was_edited_is_refused(folder, tmp_path):
    (tmp_path / "reward.py").write_text("def compute_score(**_): return 0.0\n")
    scored = config(folder, f"reward.custom_reward_function.path={tmp_path}/reward.py")
    (folder / CONFIG).write_text(OmegaConf.to_yaml(scored, resolve=True))
    saved = run_facts(scored, step=4, during_step=False, accuracy=0.5)
    assert check_resume(saved, scored) == []
    (tmp_path / "reward.py").write_text("def compute_score(**_): return 1.0\n")
    with pytest.raises(ConfigError, match=r"reward\.custom_reward_function\.path \(its content has changed\)"):
        check_resume(saved, scored)


def test_what_an_older_checkpoint_does_not_say_is_not_compared(facts, folder):
    older = {key: value for key, value in facts.items() if key not in ("model_files_sha256", "reward_sha256")}
    assert check_resume(older, config(folder)) == []


@pytest.mark.parametrize("algorithm", ["rl=ppo", "rl=grpo"])
def test_the_length_of_a_run_is_not_free_where_the_critic_s_learning_rate_depends_on_it(folder, algorithm):
    warm = [algorithm, "critic.optim.lr_warmup_steps_ratio=0.1"]
    first = config(folder, *warm)
    (folder / CONFIG).write_text(OmegaConf.to_yaml(first, resolve=True))
    saved = run_facts(first, step=4, during_step=False, accuracy=0.5)
    longer = config(folder, *warm, "trainer.total_training_steps=50")
    if algorithm == "rl=grpo":  # which has no critic
        assert check_resume(saved, longer) == []
    else:
        with pytest.raises(ConfigError, match=r"trainer\.total_training_steps=50"):
            check_resume(saved, longer)


def test_a_package_that_lies_elsewhere_is_no_other_run(facts, folder, tmp_path):
    """As every submission of a job unpacks it elsewhere; the shipped model and what repeats its path come along."""
    moved = tmp_path / "elsewhere"
    shutil.copytree(config(folder).actor_rollout_ref.model.path, moved)
    assert check_resume(facts, config(folder, f"actor_rollout_ref.model.path={moved}")) == []


def test_another_version_is_a_warning(facts, folder):
    older = {**facts, "versions": {**facts["versions"], "torch": "2.0.0"}}
    (warning,) = check_resume(older, config(folder))
    assert "torch" in warning and "2.0.0" in warning


@pytest.fixture
def saved(facts, folder, tmp_path) -> Path:
    """A run's folder with one checkpoint of these facts."""
    store = CheckpointStore(tmp_path / "checkpoints", keep_last=1, keep_best=0)
    new = store.begin() / "global_step_4"
    new.mkdir()
    (new / "data.pt").write_bytes(b"state")
    store.commit(new, facts)
    return tmp_path


def rows_of(folder: Path, saved: Path, *overrides: str) -> list[Finding]:
    overrides = (f"trainer.default_local_dir={saved}/checkpoints", "trainer.save_freq=1", *overrides)
    found = check_run(config(folder, *overrides), list(overrides)).found
    return [finding for finding in found.all if finding.check == "checkpoint"]


def test_the_check_says_what_a_run_goes_on_from_before_anything_starts(folder, saved):
    (row,) = rows_of(folder, saved)
    assert (row.status, row.message) == (Status.OK, "the run goes on from step 4")


def test_the_check_refuses_a_checkpoint_of_another_run(folder, saved):
    (row,) = rows_of(folder, saved, "seed=3")
    assert row.status is Status.ERROR
    assert "seed=3 (the checkpoint has 0)" in row.message and "another run_dir" in row.cure


def test_demonstrations_of_a_checkpoint_without_the_column_that_a_loss_needs_are_refused(folder, tmp_path):
    pear = config(folder, "mifo/sft_loss=pear")
    (folder / CONFIG).write_text(OmegaConf.to_yaml(pear, resolve=True))
    taught = SftExample("q1", (5,), (6, 7), "", teacher_log_probs=(-1.0, -2.0))
    checkpoint = tmp_path / "global_step_4"
    saved = run_facts(pear, step=4, during_step=True, accuracy=None) | {"folder": str(checkpoint)}

    def resume(*of_phase: SftExample) -> list[str]:
        state = LoopState(sft=SftProgress([BufferEntry(None, one) for one in of_phase], 1, None, {}))
        state.buffer.put(BufferEntry(None, taught))
        state.save(checkpoint / FOLDER)
        return check_resume(saved, pear)

    assert resume(taught) == []
    with pytest.raises(ConfigError) as refusal:
        resume(replace(taught, prompt_id="q2", teacher_log_probs=()))
    said = "mifo.sft_loss.name=pear must go on with demonstrations that have the teacher's log-probabilities, and 1 of the 2"
    assert said in str(refusal.value) and f"trainer.resume_from_path={checkpoint}" in str(refusal.value)


def test_without_a_checkpoint_the_check_says_that_the_run_starts(folder, tmp_path):
    (row,) = rows_of(folder, tmp_path)
    assert (row.status, row.message) == (Status.OK, "none is there: the run starts at step 0")


def test_the_check_reads_the_checkpoint_that_is_named_and_not_its_newest_neighbour(folder, saved, facts):
    store = CheckpointStore(saved / "checkpoints", keep_last=2, keep_best=0)
    new = store.begin() / "global_step_9"
    new.mkdir()
    store.commit(new, {**facts, "step": 9, "world_size": 7})
    named = ["trainer.resume_mode=resume_path", f"trainer.resume_from_path={saved}/checkpoints/global_step_4"]
    (row,) = rows_of(folder, saved, *named)
    assert (row.status, row.message) == (Status.OK, "the run goes on from step 4")


def test_the_check_refuses_a_named_checkpoint_that_is_broken(folder, saved):
    (saved / "checkpoints" / "global_step_4" / "data.pt").unlink()
    named = ["trainer.resume_mode=resume_path", f"trainer.resume_from_path={saved}/checkpoints/global_step_4"]
    (row,) = rows_of(folder, saved, *named)
    assert row.status is Status.ERROR and "global_step_4 must be a whole checkpoint" in row.message
    assert "data.pt is missing" in row.message and "resume_mode=auto" in row.cure


def test_the_check_refuses_where_every_checkpoint_is_broken(folder, saved):
    (saved / "checkpoints" / "global_step_4" / "data.pt").write_bytes(b"cut")
    warning, error = rows_of(folder, saved)
    assert warning.status is Status.WARNING and "CHECKPOINT SKIPPED" in warning.message
    assert error.status is Status.ERROR and "data.pt has 3 bytes" in error.message
    assert "resume_mode=disable" in error.cure


def test_the_check_refuses_where_records_that_a_checkpoint_was_made_with_are_gone(folder, tmp_path, facts):
    store = CheckpointStore(tmp_path / "checkpoints", keep_last=2, keep_best=0)
    new = store.begin() / "global_step_4"
    new.mkdir()
    store.commit(new, {**facts, "lines": {"metrics.jsonl": 4}})
    (row,) = rows_of(folder, tmp_path)
    assert row.status is Status.ERROR and "metrics.jsonl has 0 lines up to step 4" in row.message
    elsewhere = [f"trainer.default_local_dir={tmp_path}/new", "trainer.resume_mode=resume_path"]
    (row,) = rows_of(folder, tmp_path, *elsewhere, f"trainer.resume_from_path={tmp_path}/checkpoints/global_step_4")
    assert row.status is Status.OK  # the records of a new run begin where it does


def test_a_home_folder_is_expanded_once_for_check_and_run(folder, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    paths = ["trainer.resume_from_path='~/old/global_step_4'", "trainer.default_local_dir='~/checkpoints'"]
    trainer = config(folder, *paths).trainer
    assert trainer.resume_from_path == "/home/someone/old/global_step_4"
    assert trainer.default_local_dir == "/home/someone/checkpoints"


def test_a_restart_goes_on_as_told_until_the_run_has_a_checkpoint_of_its_own(folder, saved, facts):
    told = config(folder, f"trainer.default_local_dir={saved}/checkpoints")
    before = own_checkpoints(told)
    assert own_checkpoints(told) - before == set()
    store = CheckpointStore(saved / "checkpoints", keep_last=2, keep_best=0)
    new = store.begin() / "global_step_5"
    new.mkdir()
    store.commit(new, {**facts, "step": 5})
    assert len(own_checkpoints(told) - before) == 1
