"""What a user can get wrong stops before Ray starts: one line, setting, value, rule, cure, exit code 2."""

import shlex
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from mifo_verl.compose import compose_config, composed_defaults
from mifo_verl.data.parquet import write_rows
from mifo_verl.overrides import group_of, keys, likely, malformed
from mifo_verl.tools.prepare.addition import rows
from mifo_verl.train import main

START = Path(__file__).parents[2] / "mifo_verl" / "data" / "addition_start"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    made = rows({1: 20, 2: 20}, "train", seed=0)
    write_rows(made, folder / "train.parquet")
    write_rows([{**row, "target": None} for row in made], folder / "without.parquet")
    (folder / "broken.parquet").write_text("not a parquet file")
    return folder


WRONG = [
    (["experiment=quikstart"], "experiment=quikstart must be one of", "did you mean quickstart?"),
    (["rl=grppo"], "rl=grppo must be one of", "did you mean grpo?"),
    (["method=MIFOO"], "method=MIFOO must be one of", "did you mean mifo?"),
    (["mifo/token_selector=top"], "mifo/token_selector=top must be one of all, random, top_entropy", "files of"),
    (["data.train_batch_sze=4"], "no setting is called data.train_batch_sze", "did you mean data.train_batch_size?"),
    (["+mifo.token_selector.rato=0.1"], "mifo.token_selector.rato=0.1 must be a setting of top_entropy", "ratio"),
    (["+mifo.sft.lrr=1"], "mifo.sft.lrr must be one of lr", "did you mean lr?"),
    (["mifo.token_selector.ratio=0"], "mifo.token_selector.ratio=0 must be in (0, 1]", "mifo/token_selector=all"),
    (["mifo.gate.max_accuracy=1.5"], "mifo.gate.max_accuracy=1.5 must be a share", "0.125"),
    (["mifo.constraint.share=2"], "mifo.constraint.share=2 must be a share in [0, 1]", "write it as"),
    (["mifo.constraint.scope=layer"], "mifo.constraint.scope=layer must be one of global, per_tensor", "global"),
    (["buffer_size=0"], "error: buffer_size=0 must be a whole number of at least 1", "mifo/schedule=never"),
    (
        ["mifo.sft.optimizer=other"],
        "mifo.sft.optimizer=other must be one of shared, separate, fresh",
        "the default is separate",
    ),
    (["mifo.sft.lr=-1"], "mifo.sft.lr=-1 must be a number above 0", "1e-6"),
    (
        ["mifo.sft.surplus=keep", "mifo/schedule=every"],
        "mifo.sft.surplus=keep must be use, unless the schedule waits for a full buffer",
        "leave it out",
    ),
    (
        ["method=sft_only", "mifo.sft.max_kl=0.1"],
        "mifo.sft.max_kl=0.1 must be beside SFT phases that follow RL steps",
        "mifo/schedule=when_full",
    ),
    (["mifo.sft.max_kl=0"], "mifo.sft.max_kl=0 must be a number above 0", "null"),
    (["buffer_size=1000"], "buffer_size=1000 must be at most the 40 demonstrations", "make it smaller"),
    (["data.train_batch_size=64"], "data.train_batch_size=64 must be at most the 40 rows", "make it smaller"),
    (["data.train_batch_size=0"], "data.train_batch_size=0 must be a whole number of at least 1", "correct it"),
    (["actor_rollout_ref.actor.ppo_mini_batch_size=3"], "ppo_mini_batch_size=3 must be a divisor of", "change one"),
    (
        ["actor_rollout_ref.rollout.n=1"],
        "actor_rollout_ref.rollout.n=1 must be at least 2 for rl=dr_grpo (algorithm.adv_estimator=grpo)",
        "8",
    ),
    (["actor_rollout_ref.actor.strategy=fsdp"], "strategy=fsdp must be fsdp2", "strategy=fsdp2"),
    (["actor_rollout_ref.actor.strategy=megatron"], "strategy=megatron must be fsdp2", "fsdp2"),
    (["actor_rollout_ref.actor.fsdp_config.model_dtype=bf16"], "model_dtype=bf16 must be fp32", "mifo/constraint=none"),
    (["actor_rollout_ref.model.path=/no/such/model"], "path=/no/such/model must be an existing folder", "check"),
    (["actor_rollout_ref.model.path=Qwen/Qwen2.5"], "must be an existing folder while HF_HUB_OFFLINE=1", "check"),
    (["actor_rollout_ref.model.path=???"], "actor_rollout_ref.model.path must be set", "write"),
    (
        ["data.train_files=/no/such.parquet", "prepare=null"],
        "data.train_files=/no/such.parquet must be an existing",
        "",
    ),
    (
        ["data.val_files=/no/such.parquet"],
        "data.val_files=/no/such.parquet must be an existing",
        "mifo data",
    ),
    (["data.train_files={data}/without.parquet"], "must be data with demonstrations in the column target", "rl_only"),
    (["data.train_files={data}/broken.parquet"], "data.train_files={data}/broken.parquet", "parquet"),
    (["trainer.v1.trainer_mode=sync"], "trainer.v1.trainer_mode=sync must be mifo", "verl.trainer.main_ppo"),
    (["actor_rollout_ref.model.use_fused_kernels=true"], "use_fused_kernels=True must be false", "switch them off"),
    (["actor_rollout_ref.actor.ppo_max_token_len_per_gpu=100"], "= 128 tokens fits", "make it larger"),
    (["seed=-1"], "seed=-1 must be a whole number", "seed=0"),
    (["trainer.n_gpus_per_node=3"], "splits evenly over 3 ranks", "change"),
]


@pytest.mark.parametrize(("overrides", "message", "cure"), WRONG, ids=[wrong[0][0] for wrong in WRONG])
def test_a_mistake_stops_before_ray_in_one_line_with_its_cure(overrides, message, cure, data, capsys, monkeypatch):
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    files = [f"data.train_files={data}/train.parquet", f"data.val_files={data}/train.parquet", "buffer_size=8"]
    given = [*files, *(override.format(data=data) for override in overrides)]
    experiment = [] if overrides[0].startswith("experiment") else ["experiment=quickstart"]
    assert main([*experiment, *given]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    assert message.format(data=data) in lines[0] and cure in lines[0]
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()


def test_of_many_mistakes_each_has_its_line(data, capsys, monkeypatch):
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    files = [f"data.train_files={data}/train.parquet", f"data.val_files={data}/train.parquet", "buffer_size=8"]
    given = ["+lr=1e-5", "+rollout.n=4", "reward.reward_manager=dapo", "trainer.experiment_name=[a]"]
    given += ["actor_rollout_ref.rollout.val_kwargs.temperature=-1", "actor_rollout_ref.rollout.top_p=1.5"]
    assert main(["experiment=quickstart", *files, *given]) == 2
    said = capsys.readouterr().err
    for line in (
        "lr=1e-05 must be left out, because nothing reads it (did you mean actor_rollout_ref.actor.optim.lr?); write "
        "actor_rollout_ref.actor.optim.lr=1e-05",
        "(did you mean actor_rollout_ref.rollout.n?); write actor_rollout_ref.rollout.n=4",
        "must be a group of settings, not a value; write reward.reward_manager.name=dapo",
        "trainer.experiment_name=['a'] must be one value, not several; the default is quickstart",
        "val_kwargs.temperature=-1 must be a number of at least 0; 0 is greedy",
        "top_p=1.5 must be in (0, 1]",
    ):
        assert line in said


def test_a_choice_as_other_commands_take_it_or_misspelt_is_one_line_with_what_is_meant(capsys):
    for given, cure in {
        "--method luffy": "write method=luffy",
        "--methd=luffy": "write method=luffy",
        "--learning_rate 1e-5": "write actor_rollout_ref.actor.optim.lr=1e-5",
        "methd=luffy": "(did you mean method?); write method=luffy",
        "hardwar=cpu": "(did you mean hardware?); write hardware=cpu",
    }.items():
        assert main(["experiment=quickstart", *given.split()]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {given}") and line.endswith(cure)


def test_the_setting_that_is_meant():
    known = list(keys(composed_defaults(["experiment=quickstart"])))
    for name, meant in {
        "rollout.n": "actor_rollout_ref.rollout.n",
        "optim.lr": "actor_rollout_ref.actor.optim.lr",
        "model": "actor_rollout_ref.model.path",
        "gpus": "trainer.n_gpus_per_node",
        "reward_manager": "reward.reward_manager.name",
        "rollout.foo": "",
        "mifo.gate.p": "",
        "trainer.total_epoch": "trainer.total_epochs",
    }.items():
        assert likely(name, known) == meant, name
    assert group_of("mifo.gate.p", known) == "the settings of mifo.gate are name, max_accuracy"
    assert group_of("rollout.foo", known).startswith("the settings of actor_rollout_ref.rollout are name, mode")
    assert group_of("nobody.knows", known) == ""


@pytest.mark.parametrize("column", ["prompt", "reward_model", "data_source"])
def test_a_missing_column_is_named(column, tmp_path, data, capsys):
    import pyarrow.parquet as pq

    table = pq.read_table(data / "train.parquet")
    pq.write_table(table.drop_columns([column]), tmp_path / "bad.parquet")
    files = [f"data.train_files={tmp_path}/bad.parquet", f"data.val_files={data}/train.parquet"]
    assert main(["experiment=quickstart", *files, "buffer_size=8"]) == 2
    error = capsys.readouterr().err
    assert column in error and "bad.parquet" in error and len(error.strip().splitlines()) == 1


def test_help_and_an_empty_command_say_how_to_use_it(capsys):
    assert main(["--help"]) == 0 and "experiment=quickstart" in capsys.readouterr().out
    assert main([]) == 2


def test_cfg_prints_the_whole_config_and_starts_nothing(capsys):
    assert main(["experiment=quickstart", "--cfg"]) == 0
    assert "top_entropy" in capsys.readouterr().out


def test_a_plug_in_that_verl_may_not_load_stops_the_run(monkeypatch):
    from mifo_verl.plugin import require_loaded

    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "none")
    with pytest.raises(RuntimeError, match="VERL_USE_EXTERNAL_PLUGINS=none keeps verl from loading mifo_verl"):
        require_loaded()


def test_a_plug_in_whose_import_fails_says_why(monkeypatch):
    from mifo_verl import plugin

    def fail() -> None:
        raise ImportError("no module named tomorrow")

    monkeypatch.setattr(plugin, "_register", fail)
    with pytest.raises(RuntimeError, match="failed to load: ImportError: no module named tomorrow"):
        plugin.require_loaded()


@pytest.mark.parametrize(
    ("given", "cure", "values"),
    [
        ("run_dir=runs/epoch=1", ['run_dir="runs/epoch=1"'], {"run_dir": "runs/epoch=1"}),
        ("name=李明", ['name="李明"'], {"name": "李明"}),
        ("run_dir=~/models", ['run_dir="~/models"'], {"run_dir": "~/models"}),
        ("name=exp(1)", ['name="exp(1)"'], {"name": "exp(1)"}),
        ("name=it's", ['name="it\'s"'], {"name": "it's"}),
        ("name={a}", ['name="{a}"'], {"name": "{a}"}),
        ("name=[~/a,b]", ['name=["~/a",b]'], {"name": ["~/a", "b"]}),
        ("seed=1, ", ["seed=1"], {"seed": 1}),
        ("seed=1 name=a", ["seed=1", "name=a"], {"seed": 1, "name": "a"}),
    ],
)
def test_the_cure_of_a_value_that_hydra_cannot_read_works_when_it_is_pasted_into_a_shell(given, cure, values):
    (line,) = malformed([given])
    pasted = shlex.split(line.rpartition("; write ")[2])
    assert pasted == cure and malformed(pasted) == []
    parsed = [OverridesParser.create().parse_override(one) for one in pasted]
    assert {one.key_or_group: one.value() for one in parsed} == values


def test_the_users_folder_is_meant_by_a_tilde_in_a_list_too(monkeypatch):
    monkeypatch.setenv("HOME", "/home/lee")
    config = compose_config(["experiment=quickstart", 'data.train_files=["~/a.parquet",b.parquet]'])
    assert list(config.node.data.train_files) == ["/home/lee/a.parquet", "b.parquet"]


def test_keys_may_be_deleted_where_any_may_stand():
    assert malformed(["~env.OMP_NUM_THREADS", "~actor_rollout_ref.rollout.engine_kwargs.transformers"]) == []
