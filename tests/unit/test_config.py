"""MifoConfig from a plain mapping, and what it refuses, section by section."""

import copy
from dataclasses import asdict

import pytest
import yaml

from mifo_verl.compose import config_folder
from mifo_verl.config import MifoConfig, build_config, config_errors
from mifo_verl.method.gate import MaxAccuracy
from mifo_verl.method.importance import AbsChange
from mifo_verl.method.mask import StrictMask
from mifo_verl.method.schedule import WhenFull
from mifo_verl.method.sft_loss import Nll
from mifo_verl.method.token_selection import TopEntropy
from mifo_verl.settings import BudgetConfig, CheckpointConfig, InspectConfig, ProbeConfig, SftConfig, WatchdogConfig

PAPER = {
    "gate": {"name": "max_accuracy", "max_accuracy": "1/8"},
    "token_selector": {"name": "top_entropy", "ratio": 0.2},
    "sft_loss": {"name": "nll"},
    "importance": {"name": "abs_change"},
    "schedule": {"name": "when_full", "size": 64},
    "constraint": {"name": "strict", "share": 0.5, "history": 0.5, "scope": "global"},
    "sft": {},
    "probe": {},
    "inspect": {},
    "checkpoint": {},
    "watchdog": {},
    "budget": {},
}


def changed(section: str, **settings) -> dict:
    node = copy.deepcopy(PAPER)
    node[section].update(settings)
    return node


def message(node: dict) -> str:
    with pytest.raises(ValueError) as error:
        build_config(node)
    return str(error.value)


def test_the_papers_settings_are_the_defaults_of_every_section():
    expected = MifoConfig(
        MaxAccuracy(), TopEntropy(), Nll(), AbsChange(), WhenFull(), StrictMask(), SftConfig(), ProbeConfig(),
        InspectConfig(), CheckpointConfig(), WatchdogConfig(), BudgetConfig(),
    )  # fmt: skip
    assert build_config(PAPER) == expected
    assert (
        build_config({key: {k: v for k, v in node.items() if k == "name"} for key, node in PAPER.items()}) == expected
    )


def test_the_defaults_of_the_sft_phase_are_those_of_the_method():
    sft = SftConfig()
    assert (sft.lr, sft.batch_size, sft.passes, sft.clip_grad) == (1e-6, 64, 1, 1.0)
    assert (sft.optimizer, sft.surplus) == ("separate", "use")


FOUR = [(done / 4, (done + 1) / 4) for done in range(4)]
RATES = {
    # rates of the four updates of a stage, over 8e-4
    (): [1, 1, 1, 1],
    (("lr_scheduler_type", "linear"),): [1, 0.75, 0.5, 0.25],
    (("lr_scheduler_type", "cosine"),): [1, 0.85355339, 0.5, 0.14644661],  # (1 + cos(pi * done / 4)) / 2
    (("lr_scheduler_type", "linear"), ("min_lr_ratio", 0.2)): [1, 0.8, 0.6, 0.4],
    (("lr_warmup_steps_ratio", 0.5),): [0.5, 1, 1, 1],
    (("lr_warmup_steps_ratio", 0.5), ("lr_scheduler_type", "linear")): [0.5, 1, 1, 0.5],
}


@pytest.mark.parametrize("settings", RATES)
def test_the_learning_rate_of_sft_rises_and_falls_over_its_stage(settings):
    sft = SftConfig(lr=8e-4, **dict(settings))
    assert [sft.rate(*span) / 8e-4 for span in FOUR] == pytest.approx(RATES[settings], abs=1e-8)
    assert sft.has_constant_rate == (settings == ())


def test_a_constant_learning_rate_of_sft_is_the_setting_to_the_bit():
    assert [SftConfig(lr=1e-4 / 3).rate(*span) for span in FOUR] == [1e-4 / 3] * 4


def test_every_second_interval_is_measured_from_the_first_on():
    assert [ProbeConfig(every=2).is_due(interval) for interval in (1, 2, 3, 4)] == [True, False, True, False]
    assert not ProbeConfig(around_sft=False).is_due(1) and not ProbeConfig(around_sft=False).shifts
    assert ProbeConfig().shifts and not ProbeConfig(rollouts=0).shifts


NOTHING_MEASURED = {
    "probe": {"kl_to_start": False, "rollouts": 0},
    "inspect": {"mask": False},
    "constraint": {"name": "none"},
}


@pytest.mark.parametrize(
    ("settings", "keeps"),
    [
        ({}, False),
        ({"constraint": {"name": "gradient"}}, True),
        ({"inspect": {"mask": True}}, True),
        ({"probe": {"kl_to_start": False}}, False),
        ({"probe": {"rollouts": 0}}, True),
    ],
)
def test_the_start_of_an_interval_is_kept_where_something_needs_it_and_without_sft_for_the_kl_alone(settings, keeps):
    node = PAPER | NOTHING_MEASURED | settings
    assert build_config(node).keeps_start is keeps
    alone = build_config(node | {"schedule": {"name": "never"}})
    assert alone.keeps_start is ("kl_to_start" not in settings.get("probe", NOTHING_MEASURED["probe"]))


@pytest.mark.parametrize(
    ("settings", "keeps"),
    [
        ({}, False),
        ({"constraint": {"name": "strict"}}, False),
        ({"inspect": {"mask": True}}, True),
        ({"probe": {"kl_to_start": False}}, True),
    ],
)
def test_the_weights_before_sft_are_kept_to_inspect_or_measure_what_sft_changes(settings, keeps):
    node = PAPER | NOTHING_MEASURED | settings
    assert build_config(node).keeps_before_sft is keeps
    assert build_config(node | {"schedule": {"name": "never"}}).keeps_before_sft is False


def test_a_phase_takes_s_entries_only_where_surplus_is_kept():
    assert build_config(PAPER).sft_limit is None
    assert build_config(changed("sft", surplus="keep")).sft_limit == 64
    every = {"schedule": {"name": "every", "rl_steps": 2}}
    assert build_config(changed("sft", surplus="keep") | every).sft_limit is None


@pytest.mark.parametrize("section", sorted(PAPER))
def test_a_missing_section_is_named(section):
    node = {key: value for key, value in PAPER.items() if key != section}
    assert message(node) == f"mifo.{section} must be set; start from trainer_configs/mifo.yaml, which sets it"


def test_an_unknown_section_is_named_with_the_nearest():
    assert message(PAPER | {"freezing": {}}) == (
        "mifo.freezing must be one of gate, token_selector, sft_loss, importance, schedule, constraint, prefix, off_policy, on_policy, mixing, sampling, sft, "
        "probe, inspect, checkpoint, watchdog, budget, state; remove it"
    )


@pytest.mark.parametrize(
    ("old", "now"), [("freeze", "constraint"), ("prompt_selector", "gate"), ("sparsify", "constraint")]
)
def test_a_node_of_an_earlier_version_is_told_what_it_is_now(old, now):
    assert message(PAPER | {old: {}}) == f"mifo.{old} must be called mifo.{now}; choose its part with mifo/{now}=<name>"


@pytest.mark.parametrize("section", [key for key, node in PAPER.items() if "name" in node])
def test_an_unknown_member_is_refused_in_every_group(section):
    assert message(changed(section, name="zzz")).startswith(f"mifo.{section}.name=zzz must be one of ")
    assert message(changed(section, name="zzz")).endswith(f"; choose it with mifo/{section}=<name>")


@pytest.mark.parametrize("section", [key for key, node in PAPER.items() if "name" in node])
def test_an_unknown_setting_is_refused_in_every_group(section):
    assert message(changed(section, zzz=1)).startswith(f"mifo.{section}.zzz=1 must be a setting of ")


@pytest.mark.parametrize(
    ("section", "settings", "expected"),
    [
        ("sft", {"lr": 0}, "mifo.sft.lr=0 must be a number above 0; the paper's value is 1e-6"),
        ("sft", {"lr": -1e-6}, "mifo.sft.lr=-1e-06 must be a number above 0; the paper's value is 1e-6"),
        (
            "sft",
            {"batch_size": 0},
            "mifo.sft.batch_size=0 must be a whole number of at least 1; the paper's value is 64",
        ),
        (
            "sft",
            {"passes": 0},
            "mifo.sft.passes=0 must be a whole number of at least 1; use method=rl_only for RL alone",
        ),
        (
            "sft",
            {"clip_grad": 0},
            "mifo.sft.clip_grad=0 must be a number above 0; use a large number to switch clipping off",
        ),
        (
            "sft",
            {"learning_rate": 1e-5},
            "mifo.sft.learning_rate must be one of lr, batch_size, passes, clip_grad, optimizer, surplus, normalise, cut, own_rollouts, max_kl, lr_scheduler_type, lr_warmup_steps_ratio, min_lr_ratio; remove it",
        ),
        ("inspect", {"mask": 1}, "mifo.inspect.mask=1 must be true or false; the default is true"),
        (
            "inspect",
            {"examples": -1},
            "mifo.inspect.examples=-1 must be a whole number of at least 0; 0 keeps no demonstration",
        ),
        (
            "checkpoint",
            {"keep_last": 0},
            "mifo.checkpoint.keep_last=0 must be a whole number of at least 1; the newest checkpoint is always kept",
        ),
        (
            "checkpoint",
            {"keep_best": -1},
            "mifo.checkpoint.keep_best=-1 must be a whole number of at least 0; use 0 to keep none",
        ),
        (
            "checkpoint",
            {"on_failed_save": "ignore"},
            "mifo.checkpoint.on_failed_save=ignore must be one of continue, stop; the default is continue",
        ),
        (
            "watchdog",
            {"limit_seconds": 0},
            "mifo.watchdog.limit_seconds=0 must be a number above 0; the default is 3600.0",
        ),
        (
            "probe",
            {"kl_to_strat": True},
            "mifo.probe.kl_to_strat must be one of around_sft, every, prompts, solved, solved_accuracy, hard, "
            "demonstrations, demonstration_file, rollouts, kl_to_start, kl_rollouts (did you mean kl_to_start?); "
            "remove it",
        ),
        (
            "probe",
            {"every": 0},
            "mifo.probe.every=0 must be a whole number of at least 1; use around_sft=false to measure nothing",
        ),
        (
            "probe",
            {"solved": -1},
            "mifo.probe.solved=-1 must be a whole number of at least 0; use 0 to switch it off",
        ),
        (
            "probe",
            {"kl_rollouts": 0},
            "mifo.probe.kl_rollouts=0 must be a whole number of at least 1; use null for the whole batch",
        ),
        (
            "probe",
            {"solved_accuracy": 0},
            "mifo.probe.solved_accuracy=0 must be a share in (0, 1], such as 1 or '3/4'; 1 asks for every rollout to be right",
        ),
        (
            "constraint",
            {"share": 0},
            "mifo.constraint.share=0 must be in (0, 1]; use mifo/constraint=none to freeze nothing",
        ),
        (
            "token_selector",
            {"ratio": 0},
            "mifo.token_selector.ratio=0 must be in (0, 1]; use mifo/token_selector=all to keep every token",
        ),
        (
            "gate",
            {"max_accuracy": 2},
            "mifo.gate.max_accuracy=2 must be a share in [0, 1]; write it as 0.125 or '1/8'",
        ),
        (
            "schedule",
            {"size": 0},
            "mifo.schedule.size=0 must be a whole number of at least 1; use mifo/schedule=never for RL alone",
        ),
    ],
)
def test_a_value_out_of_range_is_refused_with_setting_value_rule_and_cure(section, settings, expected):
    assert message(changed(section, **settings)) == expected


@pytest.mark.parametrize(
    ("settings", "start"),
    [
        (
            {"optimizer": "shard"},
            "mifo.sft.optimizer=shard must be one of shared, separate, fresh (did you mean shared?)",
        ),
        ({"surplus": "drop"}, "mifo.sft.surplus=drop must be one of use, keep"),
    ],
)
def test_a_choice_of_the_sft_phase_that_does_not_exist_is_refused(settings, start):
    assert message(changed("sft", **settings)).startswith(start)


@pytest.mark.parametrize("optimizer", ["shared", "separate", "fresh"])
@pytest.mark.parametrize("surplus", ["use", "keep"])
def test_every_choice_of_the_sft_phase_is_taken(optimizer, surplus):
    sft = build_config(changed("sft", optimizer=optimizer, surplus=surplus)).sft
    assert (sft.optimizer, sft.surplus) == (optimizer, surplus)


def test_a_value_of_the_wrong_type_in_a_section_is_a_value_error_that_names_the_section():
    assert message(changed("sft", lr="fast")).startswith("mifo.sft.")


@pytest.mark.parametrize(
    ("section", "settings", "expected"),
    [
        ("budget", {"flops": 0}, "mifo.budget.flops=0 must be a number above 0; use null for no limit"),
    ],
)
def test_the_settings_of_a_section_are_checked(section, settings, expected):
    assert message(changed(section, **settings)) == expected


def test_every_wrong_setting_of_a_section_is_said_at_once():
    assert config_errors(changed("sft", lr=0, batch_size=True, learning_rate=1)) == [
        "mifo.sft.lr=0 must be a number above 0; the paper's value is 1e-6",
        "mifo.sft.batch_size=True must be a whole number of at least 1; the paper's value is 64",
        "mifo.sft.learning_rate must be one of lr, batch_size, passes, clip_grad, optimizer, surplus, normalise, cut, own_rollouts, max_kl, lr_scheduler_type, lr_warmup_steps_ratio, min_lr_ratio; remove it",
    ]


def test_a_section_that_is_no_group_is_refused():
    assert config_errors(PAPER | {"budget": 3}) == [
        "mifo.budget=3 must be a group of settings (flops); set them one by one"
    ]


def test_the_defaults_of_the_classes_are_those_of_the_yaml():
    node = yaml.safe_load((config_folder() / "mifo.yaml").read_text())["mifo"]
    config = build_config(PAPER)
    for section in ("sft", "probe", "inspect", "checkpoint", "watchdog", "budget"):
        assert asdict(getattr(config, section)) == node[section]
