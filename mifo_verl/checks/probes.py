"""What the probes measure on, and what they cost."""

from pathlib import Path

from mifo_verl.checks.findings import Findings
from mifo_verl.checks.run import Run
from mifo_verl.checks.steps import num_steps
from mifo_verl.data.parquet import check_columns, count_demonstrations
from mifo_verl.method.schedule import Always, Every, Never, SftThenRl, WhenFull
from mifo_verl.probes.cost import HARD_SHARE, MOST, CostPlan, expected, rollout_units
from mifo_verl.verl.critic import has_critic

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"


def check_probes(run: Run, found: Findings) -> None:
    """The held-out demonstrations' file, and the share of the run that the probes take."""
    path = run.mifo.probe.demonstration_file
    if path is not None:
        name = "mifo.probe.demonstration_file"
        check_columns(Path(path).expanduser(), name)
        some = count_demonstrations(Path(path).expanduser())[1]
        found.require(some > 0, name, path, "a file with demonstrations in target", "use null for the validation data")
    plan = plan_of(run)
    border, kl = expected(plan)
    parts = f"around phases {border:.1%}, KL to the start {kl:.1%}"
    if isinstance(run.mifo.schedule, WhenFull):
        parts += f"; {HARD_SHARE:.0%} of the prompts taken for hard, as in the paper"
    says = f"{border + kl:.1%} of the run's compute"
    cure = "raise mifo.probe.every, lower the sizes, or switch probes off (docs/probes.md)"
    rule = f"lets the probes take {says}, above {MOST:.0%} ({parts})"
    if found.advise(border + kl <= MOST, "mifo.probe.every", plan.every, rule, cure):
        found.note(f"{says} ({parts})")


def plan_of(run: Run) -> CostPlan:
    """The run as the estimate sees it."""
    probe, prompts, each = run.mifo.probe, run.get("data.train_batch_size"), run.get(f"{ROLLOUT}.n")
    validation = sum(scan.num_rows for scan in run.scans("data.val_files"))
    held_out = min(validation, probe.prompts or validation)
    rl_steps, phases, examples = _phases(run)
    on = probe.around_sft
    has_reference = run.get(f"{ACTOR}.use_kl_loss") is True or run.get("algorithm.use_kl_in_reward") is True
    return CostPlan(
        rl_steps=rl_steps,
        sft_phases=phases,
        rollouts=prompts * each,
        rollout_units=rollout_units(run.get(f"{ACTOR}.ppo_epochs"), has_reference, has_critic(run.config)),
        sft_sequences=examples * run.mifo.sft.passes,
        every=probe.every,
        asked=on * (held_out + probe.solved + min(probe.hard, examples)) * run.get(f"{ROLLOUT}.val_kwargs.n"),
        demonstrations=on * probe.demonstrations,
        shift_rollouts=on * min(probe.rollouts, held_out),
        kl_rollouts=probe.kl_to_start * min(probe.kl_rollouts or prompts * each, prompts * each),
    )


def _phases(run: Run) -> tuple[float, float, int]:
    """(RL steps of the run, its SFT phases, demonstrations of a phase)."""
    schedule, steps, prompts = run.mifo.schedule, num_steps(run)[0], run.get("data.train_batch_size")
    if isinstance(schedule, Never):
        return steps, 0, 0
    if isinstance(schedule, Always):
        return 0, steps, prompts
    if isinstance(schedule, SftThenRl):
        return steps - schedule.sft_steps, schedule.sft_steps, prompts
    if isinstance(schedule, Every):
        hard = max(schedule.min_size, round(schedule.rl_steps * prompts * HARD_SHARE))
        return steps, steps / schedule.rl_steps, hard
    assert isinstance(schedule, WhenFull)
    return steps, steps * min(1, prompts * HARD_SHARE / schedule.size), schedule.size
