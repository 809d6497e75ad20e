"""Checkpoints of a run: the loop's state, verl's files, and what every rank keeps of its interval.

A checkpoint is made when the step's records are written, so that a resumed run has every line once. A run that is asked
to stop ends at the next of these places: between rollouts, before an RL update, between two SFT updates, at a step's
end. What it then saves is the end of the last step, or the SFT phase as far as it is.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from ray.exceptions import RayTaskError

from mifo_verl.loop.state import FOLDER, LoopState
from mifo_verl.run.checkpoints import Checkpoint, CheckpointStore, verify
from mifo_verl.run.journal import RunRecords
from mifo_verl.run.resume import require_lines, run_facts
from mifo_verl.settings import CheckpointConfig
from mifo_verl.verl.actor import Actor
from mifo_verl.verl.shards import rank_file


class Stopped(Exception):
    """The run was asked to stop and has saved what it had."""


class NotSaved(Exception):
    """The run was asked to stop, and the disk refused what it had."""


@dataclass(frozen=True)
class StepEnd:
    """The state between two steps, as far as the next step changes it before its update."""

    state: LoopState
    dataloader: dict[str, Any]


class Saver:
    """Makes and finds checkpoints."""

    _actor: Actor
    _groups: dict[str, Any]
    """verl's worker groups by the name of their folder: actor, critic."""
    _dataloader: Any

    def __init__(self, config: DictConfig, settings: CheckpointConfig, records: RunRecords) -> None:
        self.stopping = threading.Event()
        self.due = False
        """Whether a checkpoint is made once the step is recorded."""
        self.resumed: Checkpoint | None = None
        self._config = config
        self._records = records
        self._store = CheckpointStore(config.trainer.default_local_dir, settings.keep_last, settings.keep_best)
        self._save_final = settings.save_final
        self._on_failed_save = settings.on_failed_save
        self._saved: tuple[int, bool] | None = (0, False)
        """(step, whether inside the next one) of what a run in this folder goes on from, be it step 0. None if that is
        nothing yet: the checkpoint resumed is another run's.
        """
        self._step_end: StepEnd | None = None
        self._seconds = 0.0
        self.began = float(config.get("began") or time.time())
        """When this process's part of the run began, Ray's start included; seconds since 1970."""

    # ------------------------------------------------------------------ stopping

    def step_begins(self, state: LoopState) -> None:
        """Remember the state that a stop inside this step's rollouts goes back to."""
        self._step_end = StepEnd(state.snapshot(), self._dataloader.state_dict())
        self.stop_here(state)

    def stop_here(self, state: LoopState) -> None:
        """A place where a run that was asked to stop ends, if it can be saved as it is. Raises Stopped."""
        if self.stopping.is_set() and (self._step_end is not None or state.sft is not None):
            raise Stopped

    def weights_change(self, state: LoopState) -> None:
        """The last place of a step from which the end of the step before can be saved."""
        self.stop_here(state)
        self._step_end = None

    def write_stopped(self, state: LoopState, accuracy: float | None) -> Path | None:
        """Save what a run that stops has: the step before, or the SFT phase as it is. Raises NotSaved."""
        end = self._step_end
        if end is None and state.sft is not None:
            self._actor.leave_sft()
            end = StepEnd(state, self._dataloader.state_dict())
        elif end is None or self._saved == (state.step, end.state.sft is not None):
            return None
        with suppress(OSError):  # which has been told; this run ends anyway
            if folder := self.write(end.state, end.dataloader, accuracy):
                return folder
        raise NotSaved(
            f"the disk refused the checkpoint of step {state.step}, and what came after the last good one is lost"
        )

    # ------------------------------------------------------------------ saving

    def write(self, state: LoopState, dataloader: dict[str, Any], accuracy: float | None) -> Path | None:
        """Make a checkpoint of ``state.step``; its folder. If the disk refuses it, say so and keep the one before."""
        started, step, during_step = time.time(), state.step, state.sft is not None
        state = replace(state, elapsed_seconds=state.elapsed_seconds + started - self.began)
        try:
            folder = self._store.begin() / f"global_step_{step}"
            state.save(folder / FOLDER)
            self._actor.save(folder / FOLDER)
            for name, workers in self._groups.items():
                workers.save_checkpoint(str(folder / name), None, step, max_ckpt_to_keep=None)
            torch.save(dataloader, folder / "data.pt")
            facts = run_facts(self._config, step, during_step, accuracy)
            require_every_rank(folder, facts["world_size"], list(self._groups))
            facts["lines"] = self._records.sync()
            folder = self._store.commit(folder, facts, lambda text: self._records.event("checkpoint_untidy", text))
        except (OSError, RayTaskError) as error:
            free = self._store.free_bytes()
            self._store.abandon()
            self._failed(step, error, free)
            return None
        self._saved = step, during_step
        self._seconds = time.time() - started
        self._records.event("saved", f"checkpoint of step {step} in {self._seconds:.1f} s: {folder}")
        return folder

    def write_due(self, state: LoopState, accuracy: float | None) -> Path | None:
        """Make the checkpoint of a step that verl has asked for."""
        self.due = False
        return self.write(state, self._dataloader.state_dict(), accuracy)

    def write_final(self, state: LoopState, accuracy: float | None) -> Path | None:
        """Make the checkpoint of a run's end, if it is wanted and not there yet."""
        is_due = self._save_final and self._saved != (state.step, False)
        return self.write_due(state, accuracy) if is_due else None

    def take_seconds(self) -> float:
        """What the last checkpoint took, told once."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _failed(self, step: int, error: Exception, free: int) -> None:
        cause = getattr(error, "cause", error)
        if not isinstance(cause, OSError):
            raise error
        text = (
            f"CHECKPOINT FAILED at step {step} with {free / 2**30:.2f} GiB left on the disk of {self._store.folder}: "
            f"{cause}; the last good one is kept (mifo.checkpoint.on_failed_save={self._on_failed_save})"
        )
        self._records.event("save_failed", text)
        if self._on_failed_save == "stop":
            raise OSError(text) from error

    # ------------------------------------------------------------------ resuming

    @contextmanager
    def found(self) -> Iterator[None]:
        """verl loads what is resumed, be it nothing: the checkpoint that is named, or the newest that is whole."""
        trainer = self._config.trainer
        asked = trainer.resume_mode, trainer.resume_from_path
        if trainer.resume_mode == "resume_path":
            self.resumed = verify(Path(trainer.resume_from_path))
        elif trainer.resume_mode == "auto":
            self.resumed = self._store.newest(lambda text: self._records.event("checkpoint_skipped", text))
        trainer.resume_mode = "disable"
        if self.resumed is not None:
            trainer.resume_mode, trainer.resume_from_path = "resume_path", str(self.resumed.folder.absolute())
        try:
            yield
        finally:
            trainer.resume_mode, trainer.resume_from_path = asked

    def resume(self, actor: Actor, groups: dict[str, Any], dataloader: Any) -> LoopState:
        """The state to go on with, the ranks' part loaded, the records rewound to it; a new one if nothing is resumed.

        ``groups`` are verl's worker groups by the name of their folder: actor, critic. Raises ValueError if the records
        lack lines that the checkpoint was made with.
        """
        self._actor, self._groups, self._dataloader = actor, groups, dataloader
        if self.resumed is None:
            self._leave_behind(-1)
            self._records.begin(None)
            return LoopState()
        folder = self.resumed.folder / FOLDER
        self._saved = self.resumed.order if self._store.holds(self.resumed) else None
        state = LoopState.load(folder)
        if self._saved is not None:
            require_lines(self._records.folder, state.step, self.resumed.facts.get("lines", {}))
        self._actor.load(folder)
        self._leave_behind(state.step)
        if self._saved is None:
            self._records.begin(state.origin(self.resumed.folder))
        phase = "at its end"
        if state.sft is not None:
            phase = f"inside the SFT phase of step {state.step + 1}, after {len(state.sft.updates)} updates"
        self._records.event(
            "resumed",
            f"resumed from {self.resumed.folder} (step {state.step}, {phase}): weights, optimizers, "
            f"learning-rate schedule, theta_start, importance history, interval {state.interval}, "
            f"{len(state.buffer)} prompts in the buffer, {state.drawn} prompts drawn, random states, the records up to "
            "this step",
        )
        return state

    def _leave_behind(self, step: int) -> None:
        """What this run does not go on from: later checkpoints are moved aside, later lines of the records dropped."""
        aside = self._store.go_on_from(self.resumed)
        if aside is not None:
            text = f"checkpoints that this run does not go on from were moved to {aside}; nothing reads or deletes them"
            self._records.event("moved_aside", text)
        self._records.rewind(step)


def require_every_rank(folder: Path, ranks: int, roles: Iterable[str]) -> None:
    """Every rank's files are in a checkpoint's folder, as seen here. Raises OSError with those that are not."""
    engine = ("model", "optim", "extra_state")
    names = [
        f"{role}/{part}_world_size_{ranks}_rank_{rank}.pt" for role in roles for part in engine for rank in range(ranks)
    ]
    names += [str(rank_file(Path(FOLDER), rank, ranks)) for rank in range(ranks)]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise OSError(
            f"{len(missing)} of the ranks' {len(names)} files are missing, such as {', '.join(missing[:3])}: "
            "trainer.default_local_dir must be a folder that all nodes share"
        )
