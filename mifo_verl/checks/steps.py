"""How long the run is, and whether its phases, warm-up, checkpoints and resume fit into it."""

from pathlib import Path

from mifo_verl.checks.findings import Findings
from mifo_verl.checks.run import Run
from mifo_verl.errors import exact_share
from mifo_verl.method.gate import MaxAccuracy
from mifo_verl.method.schedule import Always, Every, SftThenRl, WhenFull
from mifo_verl.run.checkpoints import NAME

OPTIM, ROLLOUT = "actor_rollout_ref.actor.optim", "actor_rollout_ref.rollout"


def num_rows(run: Run) -> int:
    """Training rows that the run reads. Raises what reading the files raised."""
    scans = run.scans("data.train_files")
    skips = run.get("data.on_bad_row") == "skip"
    rows = sum(scan.num_rows - (len(scan.bad) if skips else 0) for scan in scans)
    limit = run.get("data.train_max_samples")
    return min(rows, limit) if isinstance(limit, int) and limit > 0 else rows


def num_steps(run: Run) -> tuple[int, int]:
    """(steps that the run makes, steps that its epochs hold)."""
    in_epochs = num_rows(run) // run.get("data.train_batch_size") * run.get("trainer.total_epochs")
    asked = run.get("trainer.total_training_steps")
    return (in_epochs if asked is None else min(asked, in_epochs)), in_epochs


def check_selection(run: Run, found: Findings) -> None:
    """p against the number of rollouts."""
    selector, num_rollouts = run.mifo.gate, run.get(f"{ROLLOUT}.n")
    if not isinstance(selector, MaxAccuracy) or not run.trains_on_demonstrations:
        return
    name, p = "mifo.gate.max_accuracy", exact_share("max_accuracy", selector.max_accuracy)
    found.advise(
        not 0 < p * num_rollouts < 1,
        name,
        selector.max_accuracy,
        f"is below one rollout of {num_rollouts} and acts as 0: hard is a prompt without any correct rollout",
        f"write '1/{num_rollouts}' for one, or 0",
    )
    found.advise(p < 1, name, selector.max_accuracy, "takes every prompt for hard", "use mifo/gate=any for that")


def check_steps(run: Run, found: Findings) -> None:
    """Rows, steps, and the SFT phases that fit into them."""
    batch, rows = run.get("data.train_batch_size"), num_rows(run)
    fits = found.require(
        batch <= rows, "data.train_batch_size", batch, f"at most the {rows} rows of data.train_files", "make it smaller"
    )
    if not fits:
        return
    steps, in_epochs = num_steps(run)
    asked = run.get("trainer.total_training_steps")
    found.advise(
        asked is None or asked <= in_epochs,
        "trainer.total_training_steps",
        asked,
        f"is more than the {in_epochs} steps of trainer.total_epochs={run.get('trainer.total_epochs')}: "
        "the run ends with its epochs, without a last checkpoint and validation",
        "raise trainer.total_epochs",
    )
    _check_phases(run, found, steps)
    _check_learning_rate(run, found, steps)
    found.note(f"{rows} rows, {steps} steps")


def _check_learning_rate(run: Run, found: Findings, steps: int) -> None:
    """verl's schedule takes a step with every RL step and none with an SFT update."""
    schedule, kind, total = run.mifo.schedule, run.get(f"{OPTIM}.lr_scheduler_type"), f"{OPTIM}.total_training_steps"
    given, warmup = run.get(total), run.get(f"{OPTIM}.lr_warmup_steps")
    cure = "leave it out and set trainer.total_training_steps"
    found.advise(given == -1, total, given, f"has no effect: the trainer writes its own {steps} there", cure)
    if isinstance(schedule, SftThenRl) and schedule.sft_steps < steps:
        found.advise(
            kind == "constant",
            f"{OPTIM}.lr_scheduler_type",
            kind,
            f"is spread over {steps} steps, of which {steps - schedule.sft_steps} are RL steps: it ends early",
            "use constant",
        )
    found.advise(
        not isinstance(warmup, int) or warmup < steps,
        f"{OPTIM}.lr_warmup_steps",
        warmup,
        f"is no less than the run's {steps} steps: the learning rate never reaches its value",
        "make it smaller",
    )


def _check_phases(run: Run, found: Findings, steps: int) -> None:
    schedule, batch = run.mifo.schedule, run.get("data.train_batch_size")
    if isinstance(schedule, WhenFull):
        found.advise(
            schedule.size <= steps * batch,
            "buffer_size",
            schedule.size,
            f"is more than the {steps * batch} prompts of the whole run: no SFT phase ever comes",
            "make it smaller, or the run longer",
        )
    if isinstance(schedule, Every):
        found.advise(
            schedule.rl_steps <= steps,
            "mifo.schedule.rl_steps",
            schedule.rl_steps,
            f"is more than the run's {steps} steps: no SFT phase ever comes",
            "make it smaller, or the run longer",
        )
    if isinstance(schedule, SftThenRl):
        found.advise(
            schedule.sft_steps < steps,
            "mifo.schedule.sft_steps",
            schedule.sft_steps,
            f"is no less than the run's {steps} steps (trainer.total_training_steps): no RL step ever comes",
            "make it smaller, or the run longer",
        )


def check_buffer(run: Run, found: Findings) -> None:
    """Demonstrations for the buffer."""
    if not run.trains_on_demonstrations:
        return
    demonstrations = sum(scan.num_demonstrations() for scan in run.scans("data.train_files"))
    some = found.require(
        demonstrations > 0,
        "data.train_files",
        run.get("data.train_files"),
        "data with demonstrations in the column target, each one message of the assistant",
        "use mifo/schedule=never for RL alone",
    )
    schedule = run.mifo.schedule
    size = schedule.size if isinstance(schedule, WhenFull) else schedule.min_size if isinstance(schedule, Every) else 1
    key = "mifo.schedule.min_size" if isinstance(schedule, Every) else "mifo.schedule.size"
    if some and not isinstance(schedule, Always | SftThenRl):
        found.require(
            size <= demonstrations,
            key,
            size,
            f"at most the {demonstrations} demonstrations of data.train_files",
            "make it smaller, or no SFT phase ever comes",
        )
    found.note(f"{demonstrations} demonstrations")


def check_resume(run: Run, found: Findings) -> None:
    """What a run resumes from is there."""
    mode, path, save_freq = (run.get(f"trainer.{key}") for key in ("resume_mode", "resume_from_path", "save_freq"))
    if mode == "resume_path":
        name = "trainer.resume_from_path"
        given = found.require(bool(path), name, path, "set with trainer.resume_mode=resume_path", "give the folder")
        folder = Path(str(path))
        rule = "a checkpoint's own folder, called global_step_<number>"
        if given and found.require(bool(NAME.fullmatch(folder.name)), name, path, rule, "give that folder"):
            found.require(folder.is_dir(), name, path, "a folder that exists", "check the path")
    empty = not Path(str(run.get("trainer.default_local_dir"))).exists()
    found.advise(
        mode != "auto" or save_freq > 0 or not empty,
        "trainer.resume_mode",
        mode,
        f"finds nothing to resume from, and trainer.save_freq={save_freq} saves nothing for later",
        "set trainer.save_freq",
    )
