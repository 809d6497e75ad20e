"""What the watchdog watches of a trainer: every actor by name, and what a stage waits for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from mifo_verl.run.journal import FIRST_VALIDATION, START_UP, RunRecords
from mifo_verl.run.processes import free_resources
from mifo_verl.run.stacks import write_stacks
from mifo_verl.run.watchdog import Stages, Watchdog, timed
from mifo_verl.settings import WatchdogConfig
from mifo_verl.verl.saving import NotSaved, Stopped

START = "start-up: "
"""How the stages of a start begin."""
STARTS = {
    "resource_pool_manager": "worker processes",
    "critic_wg": "critic",
    "actor_rollout_wg": "actor and reference",
    "reward_loop_manager": "reward workers",
    "teacher_model_manager": "rollout servers",
    "checkpoint_manager": "checkpoint",
}
"""What verl's ``_setup`` works on once it has set an attribute of the trainer."""


def watchdog_of(trainer: PPOTrainer, settings: WatchdogConfig, records: RunRecords) -> Watchdog:
    """The watchdog of a trainer that starts."""
    made = Watchdog(
        settings,
        records.event,
        waiting_for=lambda stage: waiting_for(trainer, stage),
        stacks=lambda: write_stacks(records.folder),
        done=lambda stage: trainer.replay_buffer.done() if stage == "rollout" else "",
        show=records.stage,
    )
    made.begins(f"{START}tokenizer and data")
    return made


def start_seconds(stages: Stages, total: float, emit: Callable[[str, str], None]) -> dict[str, float]:
    """The seconds of a start that has ended, of which so many have gone by in ``total``; tells where they went."""
    validation = sum(stages.seconds.get(name, 0.0) for name in ("validation", "rollout"))
    parts = {"checks and Ray": max(0.0, total - sum(stages.seconds.values())), **stages.seconds}
    told = ", ".join(f"{name.removeprefix(START)} {seconds:.1f}" for name, seconds in parts.items())
    emit("started", f"the first step begins after {total:.1f} s: {told}")
    return {START_UP: total - validation} | ({FIRST_VALIDATION: validation} if validation else {})


@contextmanager
def watched(trainer: PPOTrainer, watchdog: Watchdog) -> Iterator[None]:
    """A training whose actors are all watched. Raises CannotGoOn if an error is what came of a lost one."""
    watchdog.watch(actors_of(trainer))
    try:
        yield
    except (Stopped, NotSaved):
        raise
    except Exception:
        watchdog.require_alive()
        raise
    finally:
        watchdog.end()  # what dies from here on was ended on purpose


def actors_of(trainer: PPOTrainer) -> dict[str, Any]:
    """Every actor that a run waits for, by the name that a person knows it by."""
    servers = [server for replica in trainer.llm_server_manager.get_replicas() for server in replica.servers]
    units = sorted(name for name in ray.util.list_named_actors() if name.startswith("TransferQueueStorageUnit"))
    groups = {
        "rank": trainer.actor_rollout_wg.workers,
        "reward worker": trainer.reward_loop_manager.reward_loop_workers,
        "agent loop worker": trainer.agent_loop_manager.agent_loop_workers,
        "rollout server": servers,
        "TransferQueue controller": [ray.get_actor("TransferQueueController", "transfer_queue")],
        "TransferQueue storage": [ray.get_actor(name) for name in units],
    }
    return {f"{role} {number}": actor for role, group in groups.items() for number, actor in enumerate(group)}


def waiting_for(trainer: PPOTrainer, stage: str) -> str:
    """The prompts whose rollouts are not there yet; what Ray has to give while the run starts."""
    if stage.startswith(START):
        return f"what Ray has: {free_resources()}"
    return trainer.replay_buffer.waiting_for() if stage in ("rollout", "validation") else ""


def timed_verl(name: str, stage: str) -> Any:
    """A method of verl's synchronous trainer, timed as a stage."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(PPOTrainerSync, name)(self, *args, **kwargs)

    return timed(stage)(method)
