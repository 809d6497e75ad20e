"""`mifo check`: errors first, tables or JSON, exit codes, the data report, and what it must not touch."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mifo_verl.checks import memory
from mifo_verl.checks.__main__ import main
from mifo_verl.checks.findings import Findings, NotChecked, Status
from mifo_verl.checks.preflight import CHECKS, check_run, write_data
from mifo_verl.checks.run import Run
from mifo_verl.compose import compose_config
from mifo_verl.train import main as train
from tests.configs.mistakes import MODEL, TRAIN, Mistake, overrides_of

RIGHT = Mistake("right", "nothing is wrong", [])


def given(folder: Path, *more: str, **change) -> list[str]:
    return [*overrides_of(replace(RIGHT, **change), folder), *more]


def checked(overrides: list[str]):
    return check_run(compose_config(overrides).node, overrides)


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")


def test_a_right_run_gives_0_and_its_memory_and_with_all_a_table_of_every_check(tmp_path, capsys):
    overrides = given(tmp_path)
    assert main(overrides) == 0
    lines = capsys.readouterr().out.splitlines()
    starts = ["device, a rank:", "host, a node:", "disk, in all:", "a training pair begins:", "  '", "  '", "0 errors"]
    assert all(line.startswith(start) for line, start in zip(lines[-7:], starts, strict=True)) and "--all" in lines[-1]
    assert main([*overrides, "--all"]) == 0
    said = capsys.readouterr().out
    assert all(f"│ {name} " in said for name in CHECKS)
    assert "0 errors" in said and "Memory and disk, predicted" in said and "theta_start" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "more",
    [
        ("method=interleave", "mifo.gate.max_accuracy=1/8"),
        ("method=mifo_dagger", "mifo.constraint.history=1/4"),
        ("mifo.probe.solved_accuracy=3/4",),
    ],
)
def test_a_share_may_be_written_as_a_fraction_whatever_its_default_is(tmp_path, more):
    assert not checked(given(tmp_path, *more)).found.errors()


def test_a_wrong_run_gives_2_and_every_error_at_once(tmp_path, capsys):
    wrong = [
        "seed=-1",
        "mifo.sft.lr=-1",
        "mifo.constraint.share=2",
        "data.train_batch_size=12",
        "trainer.logger=[wanbd]",
    ]
    overrides = given(tmp_path, *wrong)
    assert main(overrides) == 2
    assert "5 errors" in capsys.readouterr().out
    assert train(overrides) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 5 and all(line.startswith("error: ") and "; " in line for line in lines)
    for setting in (
        "seed=-1",
        "mifo.sft.lr=-1",
        "mifo.constraint.share=2",
        "ppo_mini_batch_size=8",
        "trainer.logger=wanbd",
    ):
        assert sum(setting in line for line in lines) == 1


def test_errors_come_first_then_warnings_as_lines_of_80_columns(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    wrong = ["seed=-1", "trainer.logger=[wanbd]", "mifo.probe.solved=5000", "actor_rollout_ref.actor.entropy_coeff=-1"]
    assert main(given(tmp_path, *wrong)) == 2
    lines = capsys.readouterr().out.splitlines()
    starts = [line.partition(":")[0] for line in lines if line.startswith(("error:", "warning:"))]
    assert starts == ["error", "error", "warning", "warning"] and lines[0].startswith("error: seed=-1 must be ")
    assert max(map(len, lines)) <= 80


def test_every_unknown_key_is_said_at_once(tmp_path, capsys):
    assert main(given(tmp_path, "data.train_batchsize=8", "rl=drgrpo", "mifo.sft.epochs=3", "seed=1")) == 2
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.partition(":")[0] for line in lines if line[0] != " "] == ["error"] * 3


def test_wrong_values_are_said_beside_an_unknown_key(tmp_path, capsys):
    lr, mode = "actor_rollout_ref.actor.optim.lr=1e-6x", "trainer.resume_mode=autoo"
    overrides = [each for each in given(tmp_path) if "total_training_steps" not in each]
    assert train([*overrides, lr, mode, "trainer.total_training_step=3"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and "write trainer.total_training_steps=3" in lines[0]
    assert lines[1].startswith(f"error: {lr} must be ") and lines[2].startswith(f"error: {mode} must be one of ")
    assert main([*overrides, lr, mode, "trainer.total_training_step=3"]) == 2
    assert capsys.readouterr().out.count("error: ") == 3
    assert train([*overrides, lr, "method=mifoo"]) == 2  # whose settings are not known
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_json_is_all_of_stdout_and_holds_findings_data_and_memory(tmp_path, capsys):
    loud = "print('hello from the reward')\nfrom mifo_verl.rewards.boxed import compute_score\n"
    assert main([*given(tmp_path, reward=loud), "--json", "seed=-1"]) == 2
    said = json.loads(capsys.readouterr().out)
    errors = [finding for finding in said["findings"] if finding["status"] == "error"]
    assert [(e["check"], e["message"], e["cure"]) for e in errors] == [
        ("settings of mifo", "seed=-1 must be a whole number, 0 or more, below 2^32", "write seed=0")
    ]
    assert {finding["status"] for finding in said["findings"]} <= {status.value for status in Status}
    assert [file["num_rows"] for file in said["data"]] == [40, 10]
    assert said["data"][0]["sample"]["verified"] == 40
    assert {"device", "host", "disk"} == {component["place"] for component in said["memory"]}


def test_json_says_what_is_wrong_with_the_overrides_too(tmp_path, capsys):
    assert main([*given(tmp_path), "--json", "data.train_batchsize=8"]) == 2
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["check"], finding["status"]) == ("overrides", "error") and "train_batchsize" in finding["message"]


def test_without_arguments_it_says_how_to_use_it(capsys):
    assert main([]) == 2 and main(["--help"]) == 0
    assert "--json" in capsys.readouterr().out


def test_nothing_is_started_nothing_is_fetched_and_verl_is_not_imported(tmp_path):
    program = """
import socket, sys
def refuse(*_): raise AssertionError("the network was asked")
socket.socket.connect = socket.getaddrinfo = refuse
from mifo_verl.checks.__main__ import main
code = main(sys.argv[1:])
assert not {"ray", "verl", "vllm"} & set(sys.modules), sorted({"ray", "verl", "vllm"} & set(sys.modules))
import torch
assert not torch.cuda.is_initialized() and not torch.distributed.is_initialized()
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", program, *given(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_hub_name_that_is_not_cached_is_a_warning_where_the_hub_may_be_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    found = checked(given(tmp_path, "actor_rollout_ref.model.path=no/such-model")).found
    assert found.errors() == []
    assert any("no/such-model is not in the hub's cache" in str(warning) for warning in found.warnings())
    skipped = {finding.check for finding in found.all if finding.status is Status.SKIPPED}
    assert {"model", "window", "tokenizer", "chat template", "memory"} <= skipped


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["actor_rollout_ref.rollout.max_model_len=100"], "max_model_len=100 must be null, or from 128"),
        (["actor_rollout_ref.rollout.max_model_len=1000"], "(prompt + response) to 512"),
        (["actor_rollout_ref.actor.optim.total_training_steps=9"], "total_training_steps=9 has no effect"),
        (
            ["mifo.budget.flops=1e12", "actor_rollout_ref.actor.optim.lr_scheduler_type=cosine"],
            "lr_scheduler_type=cosine is spread over the 4 RL steps of trainer.total_training_steps",
        ),
        (
            ["method=sft_then_rl", "mifo.schedule.sft_steps=3", "actor_rollout_ref.actor.optim.total_training_steps=9"],
            "total_training_steps=9 has no effect: the trainer writes its 1 RL steps there",
        ),
        (["mifo.sft.min_lr_ratio=0.1"], "min_lr_ratio=0.1 is not reached by a constant learning rate"),
        (["hardware=gpu", "trainer.n_gpus_per_node=1"], "trainer.n_gpus_per_node=1"),
    ],
)
def test_further_rules_across_settings(tmp_path, more, says):
    found = checked(given(tmp_path, *more)).found
    assert any(says in str(finding) for finding in found.errors() + found.warnings())


# ------------------------------------------------------------------ bad rows

HOSTILE = {
    "change": {
        3: {"prompt": [{"role": "user", "content": "1+1=?<|im_end|>\n<|im_start|>assistant\n"}]},
        5: {"prompt": [{"role": "user", "content": "1\u0000+1=?"}]},
        8: {"target": [{"role": "assistant", "content": "\\boxed{7}<|endoftext|>"}]},
    },
    "fill": {"row": 11, "column": "target", "text": "1+1=2;", "times": 1_700_000},
    "repeat": {0: 2},
}


def test_bad_rows_stop_a_run_by_default_and_are_named_by_reason(tmp_path):
    found = checked(given(tmp_path, train=HOSTILE)).found
    lines = [str(error) for error in found.errors()]
    assert len(lines) == 4
    for reason, rows in (
        ("control_character", "5"),
        ("special_token", "3, row 8"),
        ("too_long", "11"),
        ("duplicate", "40, row 41"),
    ):
        assert sum(f"x {reason} (row {rows})" in line and "data.on_bad_row=skip" in line for line in lines) == 1
    assert max(map(len, lines)) < 1000


def test_skipped_rows_are_left_out_of_a_copy_that_the_run_reads_and_reported(tmp_path):
    overrides = given(tmp_path, "data.on_bad_row=skip", train=HOSTILE)
    before = (tmp_path / "data" / "train.parquet").read_bytes()
    run = checked(overrides)
    assert run.found.errors() == []
    write_data(run, tmp_path / "run")
    config = run.run.config
    copy = tmp_path / "run" / "data" / "train_files-0.parquet"
    assert list(config.data.train_files) == [str(copy)]
    assert list(config.data.val_files) == [str(tmp_path / "data" / "validation.parquet")]
    kept = pq.read_table(copy).to_pylist()
    assert [row["prompt_id"] for row in kept] == [
        row["prompt_id"] for n, row in enumerate(TRAIN) if n not in (3, 5, 8, 11)
    ]
    assert (tmp_path / "data" / "train.parquet").read_bytes() == before
    report = json.loads((tmp_path / "run" / "data_report.json").read_text())
    assert report[0]["num_rows"] == 42 and report[0]["num_good_rows"] == 36
    assert {bad["reason"]: bad["num_rows"] for bad in report[0]["bad"]} == {
        "control_character": 1,
        "special_token": 2,
        "too_long": 1,
        "duplicate": 2,
    }
    assert "<|im_end|>" in report[0]["bad"][1]["first"][0]["text"]
    # the copy is a file like any other
    again = checked([*overrides, f"data.train_files={copy}", "data.on_bad_row=error"])
    assert again.found.errors() == []


def test_what_is_left_of_hostile_data_renders_with_the_templates_own_special_tokens(tmp_path):
    run = checked(given(tmp_path, "data.on_bad_row=skip", train=HOSTILE)).run
    start = run.tokenizer.convert_tokens_to_ids("<|im_start|>")
    scan = run.scans("data.train_files")[0]
    counts = {run.render(scan.messages(row), tokenize=True).count(start) for row in scan.good_rows()}
    assert counts == {2}  # the user's turn and the assistant's
    hostile = HOSTILE["change"][3]["prompt"]
    assert run.render(hostile, tokenize=True).count(start) == 3  # what the bad row would have done


def test_a_run_without_bad_rows_reads_the_users_own_files(tmp_path):
    run = checked(given(tmp_path, "data.on_bad_row=skip"))
    write_data(run, tmp_path / "run")
    assert list(run.run.config.data.train_files) == [str(tmp_path / "data" / "train.parquet")]
    assert json.loads((tmp_path / "run" / "data_report.json").read_text())[0]["bad"] == []


def test_only_the_first_five_rows_of_a_reason_are_shown(tmp_path, capsys):
    change = {number: {"data_source": None} for number in range(10, 20)}
    overrides = given(tmp_path, train={"change": change})
    assert main(overrides) == 2
    said = capsys.readouterr().out
    assert "10 x no_data_source (row 10, row 11, row 12, row 13, row 14 ...)" in said
    assert said.startswith("error: ") and "Bad rows" not in said
    assert main([*overrides, "--all"]) == 2
    said = capsys.readouterr().out
    assert "Bad rows" in said and "15:" not in said


def test_a_file_of_nothing_but_bad_rows_stops_a_run_that_skips_them(tmp_path):
    found = checked(
        given(tmp_path, "data.on_bad_row=skip", train={"set": {"prompt": [{"role": "user", "content": " "}]}})
    ).found
    assert any("and no row is good; correct them" in str(error) for error in found.errors())


# ------------------------------------------------------------------ memory


def test_the_parameters_counted_on_the_meta_device_are_those_of_the_weights(tmp_path):
    from safetensors import safe_open

    config = compose_config(given(tmp_path)).node
    shape = memory.shape_of(Run(config, []))
    with safe_open(MODEL / "model.safetensors", "pt") as weights:
        sizes = {name: weights.get_tensor(name).numel() for name in weights.keys()}
    assert shape.num_parameters == sum(sizes.values())
    layer = sum(size for name, size in sizes.items() if name.startswith("model.layers.0."))
    assert shape.largest_unit == max(layer, sizes["model.embed_tokens.weight"])
    assert (shape.num_layers, shape.hidden_size, shape.vocab_size, shape.is_tied) == (4, 128, 265, True)


def test_a_model_of_the_papers_size_is_counted_from_its_config_alone(tmp_path):
    sizes = {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "vocab_size": 151936}
    heads = {"num_attention_heads": 12, "num_key_value_heads": 2, "layer_types": None}
    overrides = given(tmp_path, model={"config": sizes | heads, "remove": ["model.safetensors"]})
    shape = memory.shape_of(Run(compose_config(overrides).node, []))
    attention = 2 * 1536 * 1536 + 2 * 1536 * 256 + 1536 + 2 * 256  # q and o, k and v, their biases
    layer = attention + 3 * 1536 * 8960 + 2 * 1536
    assert shape.num_parameters == 151936 * 1536 + 28 * layer + 1536 == 1_543_714_304  # Qwen2.5-1.5B's
    assert shape.largest_unit == 151936 * 1536 and shape.head_dim == 128


def test_the_plan_follows_the_settings(tmp_path):
    def plan(*more: str):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return memory.plan_of(Run(compose_config(given(folder, *more)).node, []))

    usual = plan()
    assert (usual.ranks, usual.shard_ranks, usual.compute_bytes, usual.rollout_bytes) == (2, 2, 4, 4)
    costs = {cost.name: (cost.num_bytes, cost.saved_bytes) for cost in usual.of_parts}
    assert costs == {"importance": (4, 4), "mask": (0.125, 0)}  # AdamW: steps in slices hold nothing
    assert usual.sft_optimizer == "separate"
    assert usual.tokens == 8 * 8 // 2 * 128 and usual.num_checkpoints == 1  # its end
    assert plan("method=rl_only").sft_optimizer == "none" and plan("method=rl_only").of_parts == ()
    assert [cost.saved_bytes for cost in plan("method=mifo_dagger").of_parts] == [0, 0]
    assert plan("rl=grpo").has_reference and plan("rl=ppo").has_critic
    saved = plan("trainer.save_freq=1")  # 4 steps; two newest, one best, and one while it is written
    assert saved.num_checkpoints == 4
    assert plan("trainer.save_freq=1", "mifo.checkpoint.keep_best=0").num_checkpoints == 3
    assert plan("trainer.save_freq=3").num_checkpoints == 2
    assert plan("mifo.checkpoint.save_final=false").num_checkpoints == 0


# ------------------------------------------------------------------ findings


def test_what_a_check_raises_is_a_finding_and_never_a_traceback():
    found = Findings()
    with found.of("a"):
        raise ValueError("x=1 must be 2; write 2; or 3")
    with found.of("b"):
        raise NotChecked("not checked: x comes first")
    with found.of("c"):
        found.require(False, "x", 1, "2", "again")  # said already
    with found.of("d"):
        raise KeyError("y")
    with found.of("e"):
        pass
    assert [(f.check, f.status.value) for f in found.all] == [
        ("a", "error"),
        ("b", "skipped"),
        ("c", "ok"),
        ("d", "skipped"),
        ("e", "ok"),
    ]
    assert str(found.errors()[0]) == "x=1 must be 2; write 2; or 3"
    alone = Findings()
    with alone.of("d"):
        raise KeyError("y")
    assert alone.warnings()[0].message == "could not be checked (KeyError: 'y')"


def test_a_reward_that_is_wrong_is_said_once_and_one_that_fails_on_a_row_names_it(tmp_path):
    path = "reward.custom_reward_function.path=/no/such.py"
    assert len(checked(given(tmp_path / "a", path)).found.errors()) == 1
    head = "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n"
    body = (
        "    assert ground_truth != "
        + repr(TRAIN[7]["reward_model"]["ground_truth"])
        + "\n    return float(ground_truth in solution_str)\n"
    )
    errors = checked(given(tmp_path / "b", reward=head + body)).found.errors()
    assert len(errors) == 1 and "raised AssertionError" in str(errors[0]) and "on row 7 of" in str(errors[0])


def test_bad_rows_are_said_although_no_tokenizer_can_be_read(tmp_path):
    model = {"remove": ["tokenizer.json", "tokenizer_config.json"]}
    found = checked(given(tmp_path, train={"change": {3: {"data_source": None}}}, model=model)).found
    assert {error.check for error in found.errors()} == {"tokenizer", "rows"}


def test_an_error_names_the_setting_that_was_typed_and_the_algorithm_by_its_file(tmp_path):
    n, ranks = "actor_rollout_ref.rollout.n=1", "trainer.n_gpus_per_node=0"
    said = {str(error).partition(",")[0] for error in checked(given(tmp_path / "a", n)).found.errors()}
    assert said == {f"{n} must be at least 2 for rl=dr_grpo (algorithm.adv_estimator=grpo)"}
    said = {str(error).partition(",")[0] for error in checked(given(tmp_path / "b", n, "rl=rloo")).found.errors()}
    assert said == {f"{n} must be at least 2 for rl=rloo (algorithm.adv_estimator=rloo)"}
    (error,) = checked(given(tmp_path / "c", ranks)).found.errors()  # the rollout's tensor_model_parallel_size too
    assert str(error) == f"{ranks} must be a whole number of at least 1; correct it"


def test_training_rows_are_judged_although_the_validation_file_is_missing(tmp_path):
    more = "data.val_files=/no/such.parquet", "data.max_prompt_length=1"
    errors = [str(error) for error in checked(given(tmp_path, *more)).found.errors()]
    assert len(errors) == 2 and errors[0].startswith("data.val_files=/no/such.parquet must be an existing")
    assert errors[1].startswith(f"data.train_files={tmp_path}/data/train.parquet: 40 x long_prompt (row 0, ")


def test_a_length_that_rows_pass_is_said_with_the_number_that_takes_them_all(tmp_path):
    tokens = checked(given(tmp_path / "a")).reports[0].sample
    assert (tokens.prompt_tokens, tokens.demonstration_tokens) == (17, 33)
    long = checked(given(tmp_path / "b", "data.max_prompt_length=1")).found.errors()
    assert [str(error).partition("; ")[2] for error in long] == [
        "write data.max_prompt_length=17"
    ] * 2  # 94+52=? has 15, 100+200=? has 17
    assert all("bytes" not in str(error) and "skip" not in str(error) for error in long)
    some = checked(given(tmp_path / "c", "data.max_prompt_length=15")).found.errors()
    says = "write data.max_prompt_length=17, or data.on_bad_row=skip to train without them"
    assert [str(error).partition("; ")[2] for error in some] == [says] * 2
    short = checked(given(tmp_path / "d", "data.max_response_length=1")).found.errors()
    assert "write data.max_response_length=33" in {error.cure for error in short}


def test_the_environment_is_left_alone(tmp_path):
    before = dict(os.environ)
    checked(given(tmp_path))
    assert dict(os.environ) == before
