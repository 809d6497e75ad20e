"""A run goes on only from a checkpoint of the same run; what differs is named."""

import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mifo_verl.bridge.checkpoint_store import CheckpointStore
from mifo_verl.bridge.checks.findings import Finding, Status
from mifo_verl.bridge.compose import ConfigError, compose_config
from mifo_verl.bridge.preflight import check_run
from mifo_verl.bridge.records import CONFIG
from mifo_verl.bridge.resume import check_resume, run_facts
from mifo_verl.data.addition import rows
from mifo_verl.data.parquet import write_rows


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
        ("mifo.freeze.share=0.3", "mifo.freeze.share=0.3 (the checkpoint has 0.5)"),
        ("mifo/freeze=none", "mifo.freeze.name=none"),
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


def test_data_and_model_that_have_changed_are_refused(facts, folder, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.train_files"):
        check_resume({**facts, "train_files_sha256": ["0" * 64]}, config(folder))
    with pytest.raises(ConfigError, match=r"model\.path"):
        check_resume({**facts, "model_config_sha256": "0" * 64}, config(folder))


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


def test_without_a_checkpoint_the_check_says_that_the_run_starts(folder, tmp_path):
    (row,) = rows_of(folder, tmp_path)
    assert (row.status, row.message) == (Status.OK, "none is there: the run starts at step 0")
