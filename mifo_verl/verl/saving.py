"""verl's trainer with checkpoints that hold all state, and that can be stopped inside a step without losing it.

A checkpoint is made when the step's records are written, so that a resumed run has every line once. A run that is asked
to stop ends at the next of these places: between rollouts, before an RL update, between two SFT updates, at a step's
end. What it then saves is the end of the last step, or the SFT phase as far as it is.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from ray.exceptions import RayTaskError
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from mifo_verl.config import CheckpointConfig
from mifo_verl.run.checkpoints import Checkpoint, CheckpointStore, verify
from mifo_verl.run.faults import reach
from mifo_verl.run.journal import RunRecords, require_lines
from mifo_verl.run.resume import run_facts
from mifo_verl.run.watchdog import timed
from mifo_verl.verl.checkpoint import (
    FOLDER,
    ControllerState,
    load_controller,
    require_every_rank,
    save_controller,
)


class Stopped(Exception):
    """The run was asked to stop and has saved what it had."""


class NotSaved(Exception):
    """The run was asked to stop, and the disk refused what it had."""


@dataclass(frozen=True)
class _StepEnd:
    """The state between two steps, as far as the next step changes it before its update."""

    state: ControllerState
    dataloader: dict[str, Any]


class SavingTrainer(PPOTrainerSync):
    """``PPOTrainerSync`` whose subclass says what the controller's state is."""

    global_steps: int
    checkpoint_callback: Any
    _sft_entered: bool
    """Whether the workers are inside an SFT phase."""

    def __init__(self, config: DictConfig, settings: CheckpointConfig, records: RunRecords) -> None:
        self.records = records
        self.stopping = threading.Event()
        self._store = CheckpointStore(config.trainer.default_local_dir, settings.keep_last, settings.keep_best)
        self._on_failed_save = settings.on_failed_save
        self._save_due = False
        self._save_seconds = 0.0
        self._resumed: Checkpoint | None = None
        self._saved: tuple[int, bool] | None = (0, False)
        """(step, whether inside the next one) of what a run in this folder goes on from, be it step 0. None where that
        is nothing yet: the checkpoint resumed is another run's.
        """
        self._step_end: _StepEnd | None = None
        self._started = time.time()
        self._seconds_before = 0.0
        """What this run took in the processes before this one."""
        super().__init__(config)

    # ------------------------------------------------------------------ what a subclass says

    def _state(self) -> ControllerState:
        """The controller's state now."""
        raise NotImplementedError

    def _restore(self, state: ControllerState) -> None:
        """Take a saved state up."""
        raise NotImplementedError

    def _accuracy_now(self) -> float | None:
        """Validation accuracy of the weights as they are, None where it was not measured."""
        raise NotImplementedError

    # ------------------------------------------------------------------ stopping

    def _stop_here(self) -> None:
        """A place where a run that was asked to stop ends, if it can be saved as it is. Raises Stopped."""
        if self.stopping.is_set() and (self._step_end is not None or self._sft_entered):
            raise Stopped

    def _weights_change(self) -> None:
        """The last place of a step from which the end of the step before can be saved."""
        self._stop_here()
        self._step_end = None

    def _update_critic(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        self._weights_change()
        return super()._update_critic(batch, metrics)

    def _update_actor(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        self._weights_change()
        return super()._update_actor(batch, metrics)

    def on_step_begin(self) -> None:
        """Remember the state that a stop inside this step's rollouts goes back to."""
        super().on_step_begin()
        self._step_end = _StepEnd(self._state(), self.train_dataloader.state_dict())
        self._stop_here()

    def _save_where_stopped(self) -> None:
        step, end = self.global_steps - 1, self._step_end
        if self._sft_entered:
            self.actor_rollout_wg.leave_sft()
            end = _StepEnd(self._state(), self.train_dataloader.state_dict())
        elif end is None or self._saved == (step, end.state.sft is not None):
            return
        with suppress(OSError):  # which has been told; this run ends anyway
            if self._write(step, end.state, end.dataloader):
                return
        raise NotSaved(f"the disk refused the checkpoint of step {step}, and what came after the last good one is lost")

    def fit(self, agent_loop_manager: Any) -> None:
        """verl's training loop. Where the run was asked to stop: raises Stopped with all saved, NotSaved otherwise."""
        try:
            super().fit(agent_loop_manager)
        except Stopped:
            self._save_where_stopped()
            raise

    # ------------------------------------------------------------------ saving

    def _save_checkpoint(self) -> None:
        """verl asks here, before the step is recorded; ``_save_if_due`` does it after."""
        self._save_due = True

    def _save_if_due(self) -> None:
        if self._save_due:
            self._save_due = False
            self._write(self.global_steps, self._state(), self.train_dataloader.state_dict())

    @timed("checkpoint")
    def _write(self, step: int, state: ControllerState, dataloader: dict[str, Any]) -> bool:
        """Make a checkpoint; where the disk refuses it, say so and keep the one before. Whether it was made."""
        started, during_step = time.time(), state.sft is not None
        try:
            folder = self._store.begin() / f"global_step_{step}"
            save_controller(folder / FOLDER, replace(state, elapsed_seconds=self._elapsed()))
            reach("checkpoint_file")
            self.actor_rollout_wg.save_interval(str(folder / FOLDER))
            with self._placed(folder.parent, step):
                super()._save_checkpoint()
            torch.save(dataloader, folder / "data.pt")
            facts = run_facts(self.config, step, during_step, self._accuracy_now())
            require_every_rank(folder, facts["world_size"], ["actor", "critic"] if self.use_critic else ["actor"])
            facts["lines"] = self.records.sync()
            folder = self._store.commit(folder, facts, lambda text: self.records.event("checkpoint_untidy", text))
        except (OSError, RayTaskError) as error:
            free = self._store.free_bytes()
            self._store.abandon()
            self._save_failed(step, error, free)
            return False
        else:
            self._saved = step, during_step
            self._save_seconds = time.time() - started
            self.records.event("saved", f"checkpoint of step {step} in {self._save_seconds:.1f} s: {folder}")
            self.checkpoint_callback.on_save(
                trainer=self, global_step=step, checkpoint_dir=str(folder), async_save=False
            )
            return True

    def _save_failed(self, step: int, error: Exception, free: int) -> None:
        cause = getattr(error, "cause", error)
        if not isinstance(cause, OSError):
            raise error
        text = (
            f"CHECKPOINT FAILED at step {step} with {free / 2**30:.2f} GiB left on the disk of {self._store.folder}: "
            f"{cause}; the last good one is kept (mifo.checkpoint.on_failed_save={self._on_failed_save})"
        )
        self.records.event("save_failed", text)
        if self._on_failed_save == "stop":
            raise OSError(text) from error

    @contextmanager
    def _placed(self, folder: Path, step: int) -> Iterator[None]:
        """verl's own save, sent to another folder under the number of another step, its callback not called yet."""
        trainer, callback = self.config.trainer, self.checkpoint_callback
        before = trainer.default_local_dir, self.global_steps
        trainer.default_local_dir, self.global_steps = str(folder), step
        self.checkpoint_callback = _NoCallback()
        try:
            yield
        finally:
            trainer.default_local_dir, self.global_steps = before
            self.checkpoint_callback = callback

    def _elapsed(self) -> float:
        """Seconds of this run so far, in all of its processes."""
        return self._seconds_before + time.time() - self._started

    # ------------------------------------------------------------------ resuming

    def _load_checkpoint(self) -> None:
        """verl's part of the newest whole checkpoint; ours follows when the workers are configured."""
        trainer = self.config.trainer
        self.global_steps = 0
        if trainer.resume_mode == "disable":
            return
        if trainer.resume_mode == "resume_path":
            self._resumed = verify(Path(trainer.resume_from_path))
        else:
            self._resumed = self._store.newest(lambda text: self.records.event("checkpoint_skipped", text))
        if self._resumed is None:
            return
        asked = trainer.resume_mode, trainer.resume_from_path
        trainer.resume_mode, trainer.resume_from_path = "resume_path", str(self._resumed.folder.absolute())
        try:
            super()._load_checkpoint()
        finally:
            trainer.resume_mode, trainer.resume_from_path = asked

    def _load_interval(self) -> None:
        """Our part, and the records rewound to the step resumed; a run without a checkpoint starts its records."""
        if self._resumed is None:
            self._leave_behind()
            self.records.begin(None)
            return
        folder = self._resumed.folder / FOLDER
        self._saved = self._resumed.order if self._store.holds(self._resumed) else None
        if self._saved is not None:
            require_lines(self.records.folder, self.global_steps, self._resumed.facts.get("lines", {}))
        state = load_controller(folder)
        self._seconds_before = state.elapsed_seconds
        self.actor_rollout_wg.load_interval(str(folder))
        self._leave_behind()
        if self._saved is None:
            self.records.begin(state.as_origin(self._resumed.folder, self.global_steps))
        self._restore(state)
        self.config.trainer.val_before_train = False  # these weights were validated in their own step
        phase = (
            f"inside the SFT phase of step {self.global_steps + 1}, after {len(state.sft.updates)} updates"
            if state.sft
            else "at its end"
        )
        self.records.event(
            "resumed",
            f"resumed from {self._resumed.folder} (step {self.global_steps}, {phase}): weights, optimizers, "
            f"learning-rate schedule, theta_start, importance history, interval {state.interval}, "
            f"{len(state.buffer)} prompts in the buffer, {state.drawn} prompts drawn, random states, the records up to "
            "this step",
        )

    def _leave_behind(self) -> None:
        """What this run does not go on from: later checkpoints are moved aside, later lines of the records dropped."""
        aside = self._store.go_on_from(self._resumed)
        if aside is not None:
            text = f"checkpoints that this run does not go on from were moved to {aside}; nothing reads or deletes them"
            self.records.event("moved_aside", text)
        self.records.rewind(-1 if self._resumed is None else self.global_steps)


class _NoCallback:
    def on_save(self, **_: Any) -> None:
        return None
