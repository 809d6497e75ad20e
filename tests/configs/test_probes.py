"""What the checks say of the probes: their share of the run, and the file of held-out demonstrations."""

from pathlib import Path

import pytest

from mifo_verl.checks.findings import Status
from mifo_verl.checks.memory import plan_of as memory_plan_of
from mifo_verl.checks.preflight import check_run
from mifo_verl.checks.probes import plan_of
from mifo_verl.checks.run import Run
from mifo_verl.compose import compose_config
from tests.configs.test_check import given


def finding(overrides: list[str]):
    found = check_run(compose_config(overrides).node, overrides).found
    (one,) = (finding for finding in found.all if finding.check == "probes")
    return one


def plan(overrides: list[str]):
    return plan_of(Run(compose_config(overrides).node, overrides))


def test_small_probes_are_in_order_and_their_share_is_said(tmp_path):
    one = finding(given(tmp_path))
    assert one.status is Status.OK and "% of the run's compute (around phases " in one.message


def test_large_probes_get_a_warning_with_the_cure(tmp_path):
    one = finding(given(tmp_path / "one", "mifo.probe.solved=5000"))
    assert one.status is Status.WARNING and one.message.startswith("mifo.probe.every=4 lets the probes take ")
    assert "above 5%" in one.message and "raise mifo.probe.every" in one.cure
    assert finding(given(tmp_path / "two", "mifo.probe.solved=5000", "mifo.probe.every=1000")).status is Status.OK


def test_probes_that_are_off_cost_nothing(tmp_path):
    off = plan(given(tmp_path, "mifo.probe.around_sft=false", "mifo.probe.kl_to_start=false"))
    assert (off.asked, off.demonstrations, off.shift_rollouts, off.kl_rollouts) == (0, 0, 0, 0)


def test_the_memory_of_a_start_that_only_the_inspection_needs_is_counted(tmp_path):
    off = ["mifo/constraint=none", "mifo.probe.kl_to_start=false", "mifo.probe.rollouts=0"]
    for mask in (True, False):
        overrides = given(tmp_path / str(mask), *off, f"mifo.inspect.mask={mask}")
        assert memory_plan_of(Run(compose_config(overrides).node, overrides)).keeps_start is mask


@pytest.mark.parametrize(
    ("schedule", "phases"),
    [
        (["mifo/schedule=never"], (4, 0)),
        (["mifo/schedule=always"], (0, 4)),
        (["mifo/schedule=every", "mifo.schedule.rl_steps=2"], (4, 2)),
        (["mifo/schedule=sft_then_rl", "mifo.schedule.sft_steps=1"], (3, 1)),
        (["buffer_size=1"], (4, 4)),  # no more than one a step
    ],
)
def test_the_phases_are_those_of_the_schedule(tmp_path, schedule, phases):
    made = plan(given(tmp_path, *schedule))
    assert (made.rl_steps, made.sft_phases) == phases


def test_a_file_of_demonstrations_has_to_be_there(tmp_path: Path):
    one = finding(given(tmp_path, "mifo.probe.demonstration_file=absent.parquet"))
    assert one.status is Status.ERROR and one.message.startswith("mifo.probe.demonstration_file=absent.parquet must be")
