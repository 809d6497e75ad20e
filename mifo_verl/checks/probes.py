"""What the probes measure on, and what they cost."""

from pathlib import Path

from mifo_verl.checks.findings import Findings
from mifo_verl.checks.run import Run
from mifo_verl.data.parquet import check_columns, count_demonstrations
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
    if run.mifo.schedule.buffer_limit is not None:
        parts += f"; {HARD_SHARE:.0%} of the prompts taken for hard, as in the paper"
    says = f"{border + kl:.1%} of the run's compute"
    cure = "raise mifo.probe.every, lower the sizes, or switch probes off (docs/results.md)"
    rule = f"lets the probes take {says}, above {MOST:.0%} ({parts})"
    if found.advise(border + kl <= MOST, "mifo.probe.every", plan.every, rule, cure):
        found.note(f"{says} ({parts})")


def plan_of(run: Run) -> CostPlan:
    """The run as the estimate sees it."""
    probe, prompts, each = run.mifo.probe, run.get("data.train_batch_size"), run.get(f"{ROLLOUT}.n")
    validation = sum(scan.num_rows for scan in run.scans("data.val_files"))
    held_out = min(validation, probe.prompts or validation)
    phases = run.mifo.schedule.expected(run.facts(), HARD_SHARE)
    examples = phases.demonstrations
    on = probe.around_sft
    return CostPlan(
        rl_steps=phases.rl_steps,
        sft_phases=phases.sft_phases,
        rollouts=prompts * each,
        rollout_units=rollout_units(run.get(f"{ACTOR}.ppo_epochs"), run.has_reference, has_critic(run.config)),
        sft_sequences=examples * run.mifo.sft.passes,
        every=probe.every,
        asked=on * (held_out + probe.solved + min(probe.hard, examples)) * run.get(f"{ROLLOUT}.val_kwargs.n"),
        demonstrations=on * probe.demonstrations,
        shift_rollouts=on * min(probe.rollouts, held_out),
        kl_rollouts=probe.kl_to_start * min(probe.kl_rollouts or prompts * each, prompts * each),
    )
