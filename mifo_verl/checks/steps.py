"""How long the run is, whether its parts and its warm-up fit into it, what its checkpoints hold and it goes on from."""

from pathlib import Path

from omegaconf import DictConfig

from mifo_verl.checks.findings import Findings, NotChecked
from mifo_verl.checks.run import Run, good_copy
from mifo_verl.method.own_rollouts import own_problems
from mifo_verl.run import resume
from mifo_verl.run.checkpoints import NAME, verify
from mifo_verl.verl.critic import has_critic

_WHOLE = ("model", "optimizer", "extra")
OPTIM = "actor_rollout_ref.actor.optim"
LENGTH = ("data.train_batch_size", "trainer.total_epochs", "trainer.total_training_steps")
"""Settings that say how many steps a run makes."""
OF_RATE = ("lr", "lr_scheduler_type", "lr_warmup_steps_ratio", "min_lr_ratio")
OF_PHASES = (*OF_RATE, "batch_size", "cut", "passes", "clip_grad", "optimizer", "surplus", "own_rollouts", "max_kl")
"""Settings of ``mifo.sft`` that SFT phases alone read."""


def check_steps(run: Run, found: Findings) -> None:
    """Rows and steps, and the learning rate's schedule, which is spread over the RL steps of the run."""
    key, batch, rows = "data.train_batch_size", run.get("data.train_batch_size"), run.num_rows
    if not found.require(batch <= rows, key, batch, f"at most the {rows} rows of data.train_files", "make it smaller"):
        return
    if found.has_error(*LENGTH):
        raise NotChecked("not checked: the run's length comes first")
    steps, in_epochs, asked = run.num_steps, run.epoch_steps, run.get("trainer.total_training_steps")
    rule = (
        f"is more than the {in_epochs} steps of trainer.total_epochs={run.get('trainer.total_epochs')}: the run ends "
        "with its epochs, without a last checkpoint and validation"
    )
    fits = asked is None or asked <= in_epochs
    found.advise(fits, "trainer.total_training_steps", asked, rule, "raise trainer.total_epochs")
    key, given = f"{OPTIM}.total_training_steps", run.get(f"{OPTIM}.total_training_steps")
    cure, rl_steps = "leave it out and set trainer.total_training_steps", run.mifo.schedule.num_rl_steps(steps)
    found.advise(given == -1, key, given, f"has no effect: the trainer writes its {rl_steps} RL steps there", cure)
    key = f"{OPTIM}.lr_scheduler_type"
    fits = run.get("mifo.budget.flops") is None or run.get(key) == "constant"
    rule = f"is spread over the {rl_steps} RL steps of trainer.total_training_steps, and mifo.budget may end sooner"
    found.advise(fits, key, run.get(key), rule, "set trainer.total_training_steps to the steps that the budget buys")
    key, warmup = f"{OPTIM}.lr_warmup_steps", run.get(f"{OPTIM}.lr_warmup_steps")
    rule = f"is no less than the run's {steps} steps: the learning rate never reaches its value"
    found.advise(not isinstance(warmup, int) or warmup < steps, key, warmup, rule, "make it smaller")
    found.note(f"{rows} rows, {steps} steps")


def check_demonstrations(run: Run, found: Findings) -> None:
    """The data has demonstrations, if the run trains on any."""
    if not run.trains_on_demonstrations:
        raise NotChecked("not needed: no demonstration is trained on")
    key, rule = "data.train_files", "data with demonstrations in the column target, each one message of the assistant"
    found.require(run.num_demonstrations > 0, key, run.get(key), rule, "use method=rl_only for RL alone")
    found.note(f"{run.num_demonstrations} demonstrations")


def check_unused(run: Run, found: Findings) -> None:
    """Settings of SFT phases that were typed for a run without any, or that a constant learning rate does not read."""
    if run.has_sft_phases:
        ratio, sft = "mifo.sft.min_lr_ratio", run.mifo.sft
        rule, cure = "is not reached by a constant learning rate", "set mifo.sft.lr_scheduler_type=cosine or linear"
        found.advise(not sft.min_lr_ratio or sft.lr_scheduler_type != "constant", ratio, sft.min_lr_ratio, rule, cure)
        return
    for key in OF_PHASES:
        name = f"mifo.sft.{key}"
        is_given = any(given.startswith(f"{name}=") for given in run.overrides)
        rule = "is of SFT phases, and mifo.schedule has none: nothing reads it"
        cure = "leave it out"
        if run.mifo.gate.trains_now:
            rule += f" (demonstrations train in RL's own updates, with {OPTIM})"
            cure = {
                **{name: f"set {OPTIM}.{name}, and the weight of their loss in mifo.mixing" for name in OF_RATE},
                "clip_grad": f"set {OPTIM}.clip_grad",
                "batch_size": "set data.train_batch_size, whose questions they are of",
                "passes": "set actor_rollout_ref.actor.ppo_epochs",
            }.get(key, cure)
        found.advise(not is_given, name, run.get(name), rule, cure)


def check_parts(run: Run, found: Findings) -> None:
    """What every part says of the run around it."""
    if found.has_error(*LENGTH, "actor_rollout_ref.rollout.n"):
        raise NotChecked("not checked: the run's length comes first")
    facts, max_kl = run.facts(), run.mifo.sft.max_kl
    problems = [problem for part in run.mifo.parts for problem in part.problems(facts)]
    if max_kl is not None and facts.has_sft_phases:  # without any, nothing reads it
        problems += own_problems("mifo.sft.max_kl", max_kl, facts)
    for problem in problems:
        say = found.require if problem.is_error else found.advise
        say(False, run.origin(problem.setting), problem.value, problem.rule, problem.cure)


def check_resume(run: Run, found: Findings) -> None:
    """What a run resumes from is there."""
    mode, path, save_freq = (run.get(f"trainer.{key}") for key in ("resume_mode", "resume_from_path", "save_freq"))
    if mode in ("resume_path", "weights"):
        name = "trainer.resume_from_path"
        given = found.require(bool(path), name, path, f"set with trainer.resume_mode={mode}", "give the folder")
        folder = Path(str(path))
        rule = "a checkpoint's own folder, called global_step_<number>"
        if given and found.require(bool(NAME.fullmatch(folder.name)), name, path, rule, "give that folder"):
            found.require(folder.is_dir(), name, path, "a folder that exists", "check the path")
    rule = f"is read with trainer.resume_mode=resume_path alone, and it is {mode}"
    reads = path is None or mode in ("resume_path", "weights")
    found.advise(reads, "trainer.resume_from_path", path, rule, "write trainer.resume_mode=resume_path")
    is_there = Path(str(run.get("trainer.default_local_dir"))).exists()
    rule = f"finds nothing to resume from, and trainer.save_freq={save_freq} saves nothing for later"
    useful = mode != "auto" or save_freq > 0 or is_there
    found.advise(useful, "trainer.resume_mode", mode, rule, "set trainer.save_freq")


def check_contents(run: Run, found: Findings) -> None:
    """A checkpoint, which a stop makes without trainer.save_freq too, holds all that a resumed run goes on with."""
    roles = ["actor_rollout_ref.actor", *(["critic"] if has_critic(run.config) else [])]
    for role in roles:
        for part in ("save_contents", "load_contents"):
            key, rule = f"{role}.checkpoint.{part}", f"at least [{', '.join(_WHOLE)}], or no run goes on as it was"
            contents = run.get(key) or []
            found.require(set(_WHOLE) <= set(contents), key, list(contents), rule, "leave it out")
        key = f"{role}.checkpoint.async_save"
        rule = "False: a checkpoint counts when its files are written"
        found.require(not run.get(key), key, run.get(key), rule, "leave it out")


def check_checkpoint(run: Run, found: Findings) -> None:
    """The checkpoint that is resumed is there, and its settings are the run's, as compared again before Ray starts."""
    if run.get("trainer.resume_mode") == "disable" or found.has_failed("resume"):
        raise NotChecked("not needed: nothing is resumed")
    if run.get("trainer.resume_mode") == "weights":
        step = verify(Path(run.get("trainer.resume_from_path")), checksums=False).facts["step"]
        found.note(f"the run begins with the weights of step {step} of another run")
        return
    config = _as_trained(run)
    facts = resume.checkpoint_facts(config, lambda text: found.warn(text, "look at the disk"))
    if facts is None:
        found.note("none is there: the run starts at step 0")
        return
    for warning in resume.check_resume(facts, config):
        found.warn(warning, "go on with the checkpoint's versions where every bit counts")
    found.note(f"the run goes on from step {facts['step']}")


def _as_trained(run: Run) -> DictConfig:
    """The config with the training files that the run reads: where bad rows are skipped, those of its own folder."""
    config = run.config.copy()
    if config.data.on_bad_row == "skip":
        folder, scans = Path(run.config.run_dir), run.scans("data.train_files")
        copies = [good_copy(folder, "data.train_files", number) for number in range(len(scans))]
        config.data.train_files = [
            str(copy if scan.bad and copy.exists() else scan.path) for scan, copy in zip(scans, copies, strict=True)
        ]
    return config
