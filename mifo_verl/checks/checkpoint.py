"""What checkpoints hold, and whether a run is that of the checkpoint that it would go on from."""

from pathlib import Path

from omegaconf import DictConfig

from mifo_verl.checks.findings import Findings, NotChecked
from mifo_verl.checks.run import Run, good_copy
from mifo_verl.run.checkpoints import verify
from mifo_verl.run.resume import check_resume, checkpoint_facts
from mifo_verl.verl.critic import has_critic

_WHOLE = ("model", "optimizer", "extra")


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
    facts = checkpoint_facts(config, lambda text: found.warn(text, "look at the disk"))
    if facts is None:
        found.note("none is there: the run starts at step 0")
        return
    for warning in check_resume(facts, config):
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
