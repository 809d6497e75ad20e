"""Forks of a run: overrides on its config, and a plan of arms from a command line."""

import pytest

from mifo_verl.compose import ConfigError, compose_config, composed_on
from mifo_verl.config import build_config
from mifo_verl.loop.state import LoopState
from mifo_verl.run.checkpoints import write_manifest
from mifo_verl.tools.fork.definition import read_definition
from mifo_verl.tools.fork.fork import fork
from mifo_verl.tools.fork.plan import ALWAYS, plain, read_plan
from tests.unit.test_fork import records


def test_overrides_on_a_runs_config_exchange_whole_parts_and_keep_all_else():
    run = compose_config(["experiment=quickstart", "method=random_mask", "mifo.sft.lr=0.25"]).to_dict()
    strict = {"name": "strict", "share": 0.5, "history": 0, "scope": "global", "side": "top"}
    assert composed_on(run, []).mifo.constraint == strict
    node = composed_on(run, ["mifo/constraint=kl_anchor", "mifo.constraint.strength=3"])
    assert node.mifo.constraint == {"name": "kl_anchor", "strength": 3, "reverse": False, "estimator": "exact"}
    assert (node.mifo.sft.lr, node.mifo.importance.name, node.actor_rollout_ref.actor.optim.lr) == (
        0.25,
        "random",
        1e-4,
    )
    plain = composed_on(run, ["method=interleave", "mifo/schedule=when_full", "actor_rollout_ref.actor.optim.lr=0.5"])
    assert (plain.mifo.constraint.name, plain.mifo.importance.name, plain.mifo.sft.lr) == ("none", "abs_change", 0.25)
    assert plain.actor_rollout_ref.actor.optim.lr == 0.5
    assert run["mifo"]["importance"]["name"] == "random"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("mifo.sft.lrr=1", "mifo.sft.lrr=1: no setting is called mifo.sft.lrr (did you mean mifo.sft.lr?)"),
        ("mifo/constraint=strct", "mifo/constraint=strct must be one of"),
        ("experiment=mifo", "experiment=mifo must be a method, a part or a value, because the run is made already"),
    ],
)
def test_a_wrong_override_of_an_arm_is_named(override, said):
    run = compose_config(["experiment=quickstart"]).to_dict()
    with pytest.raises(ConfigError) as error:
        composed_on(run, [override])
    assert said in str(error.value)


@pytest.fixture
def asked(tmp_path) -> list[str]:
    """A command line: a checkpoint of one rank that holds a manifest alone, an arms file, and data."""
    checkpoint = tmp_path / "runs" / "one" / "checkpoints" / "global_step_3"
    (checkpoint / "actor").mkdir(parents=True)
    config = compose_config(["experiment=quickstart"]).to_dict()
    write_manifest(checkpoint, {"step": 3, "during_step": False, "world_size": 1, "config": config})
    arms = "{title: T, updates: 4, at: [4], arms: {plain: method=interleave, frozen: mifo/constraint=strict}}"
    (tmp_path / "arms.yaml").write_text(arms)
    for name in ("train", "own", "gained"):
        (tmp_path / name).write_text(name)
    files = [f"{name}={tmp_path}/{name}" for name in ("train", "own", "gained")]
    return [str(tmp_path / "runs" / "one"), f"sweep={tmp_path}/arms.yaml", f"out={tmp_path}/out", *files]


def test_what_is_done_is_left_out_of_the_plan_and_the_page_is_made_without_a_model(asked, tmp_path, capsys):
    plan = read_plan(asked)
    [plain, frozen] = plan.left["one_global_step_3"]
    assert (plain.name, plain.overrides, frozen.overrides) == (
        "plain",
        ["method=interleave"],
        ["mifo/constraint=strict"],
    )
    assert plain.key != frozen.key and plan.bed.gain == 0.1
    for arm in (plain, frozen):
        records(tmp_path / "out", arm.name, "one_global_step_3", 6, arm.key)
    assert read_plan(asked).left == {"one_global_step_3": []}
    fork(asked)
    assert "| plain | 1 of 1 |" in (tmp_path / "out" / "fork.md").read_text()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["mifo.sft.lr=0.5"], "must be a folder for these settings and data, and "),
        (["order=1"], "must be a folder for these settings and data, and "),
        (["only=plan"], "only=plan must be one of plain, frozen (did you mean plain?)"),
        (["updates=0"], "updates=0 must be a whole number of at least 1"),
        (["mifo.sft.lr=-1"], "mifo.sft.lr=-1 must be a number above 0"),
        (["mifo.sft.batchsize=8"], "no setting is called mifo.sft.batchsize (did you mean mifo.sft.batch_size?)"),
        (["train=nowhere.parquet"], "train=nowhere.parquet must be a file that exists"),
    ],
)
def test_mistakes_are_named_before_anything_is_run(asked, tmp_path, more, said):
    [plain, _] = read_plan(asked).left["one_global_step_3"]
    records(tmp_path / "out", "plain", "one_global_step_3", 6, plain.key)
    with pytest.raises(ValueError) as error:
        read_plan([*asked, *more])
    assert said in str(error.value)


def test_an_arm_that_needs_own_rollouts_asks_the_questions_that_its_run_trained_on(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the run's file is not
    (tmp_path / "arms.yaml").write_text(
        "{title: T, updates: 4, at: [4], arms: {plain: '', kept: mifo/constraint=replay}}"
    )
    LoopState().save(tmp_path / "runs" / "one" / "checkpoints" / "global_step_3" / "mifo")
    with pytest.raises(ValueError, match=r"prompts=data/addition/train.parquet must be a file that exists"):
        read_plan(asked)
    (tmp_path / "asked.parquet").write_text("")
    [plain, kept] = read_plan([*asked, f"prompts={tmp_path}/asked.parquet"]).left["one_global_step_3"]
    assert (plain.prompts, kept.prompts) == ([], [tmp_path / "asked.parquet"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({0: "runs/none"}, "checkpoint=runs/none must be one of a run, or a run with one"),
        ({3: "gain=0.5"}, "train= must be given; write train=<parquet file>"),
    ],
)
def test_what_is_missing_is_named(asked, change, said):
    with pytest.raises(ValueError) as error:
        read_plan([change.get(place, one) for place, one in enumerate(asked)])
    assert said in str(error.value)


def test_the_arms_of_the_recipe_differ_in_one_part_or_setting_and_build():
    recipe = read_definition("recipe")
    run = compose_config(["experiment=fork_rl", "actor_rollout_ref.model.path=m"]).to_dict()
    nodes = {arm: composed_on(run, [*ALWAYS, *recipe.overrides, *own]) for arm, own in recipe.arms.items()}
    mifo = {arm: build_config(plain(node.mifo)) for arm, node in nodes.items()}
    parts = {"constraint", "importance", "token_selector", "sft_loss", "sft"}
    differ = {
        arm: {part for part in parts if getattr(own, part) != getattr(mifo["plain"], part)} for arm, own in mifo.items()
    }
    assert differ == {
        "plain": set(),
        "half_lr": {"sft"},
        "freeze_top": {"constraint"},
        "random_mask": {"constraint", "importance"},
        "entropy": {"token_selector"},
        "random_tokens": {"token_selector"},
        "mifo": {"constraint", "token_selector"},
        "eaft": {"sft_loss"},
        "dft": {"sft_loss"},
        "kl_anchor": {"constraint"},
        "ewc": {"constraint"},
        "double_lr": {"sft"},
        "freeze_bottom": {"constraint"},
        "freeze_fisher": {"constraint", "importance"},
        "freeze_by_tensor": {"constraint"},
        "kl_rollouts": {"constraint"},
        "replay": {"constraint"},
        "shared": {"sft"},
        "no_clip": {"sft"},
        "lora": set(),
    }
    assert {arm: node.actor_rollout_ref.model.lora_rank for arm, node in nodes.items() if arm in ("plain", "lora")} == {
        "plain": 0,
        "lora": 8,
    }
    assert all((own.sft.batch_size, own.keeps_before_sft) == (32, True) for own in mifo.values())
    assert {arm for arm, own in mifo.items() if own.sft.optimizer != "fresh"} == {"shared"}
    masked = {"freeze_top", "random_mask", "mifo", "freeze_bottom", "freeze_fisher", "freeze_by_tensor"}
    assert {arm for arm, own in mifo.items() if own.keeps_start} == masked | {"ewc"}
    assert {arm for arm, own in mifo.items() if own.keeps_own_rollouts} == {"kl_rollouts", "replay"}
    assert (len(recipe.pairs), recipe.updates, recipe.at) == (6, 60, (4, 8, 12, 16, 20, 30, 40, 60))
