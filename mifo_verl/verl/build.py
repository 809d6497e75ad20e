"""What works for a trainer, made from its config once its workers are there."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils.reward_score import default_compute_score

from mifo_verl.config import MifoConfig, ProbeConfig
from mifo_verl.loop.events import Event
from mifo_verl.loop.loop import Loop, Parts
from mifo_verl.loop.state import LoopState
from mifo_verl.probes.held_out import held_out, measured_on
from mifo_verl.probes.probes import Policy, Probes
from mifo_verl.probes.rollouts import RolloutProbe
from mifo_verl.run.budget import Budget, rl_cost
from mifo_verl.run.compute import RlCost
from mifo_verl.run.journal import METRICS, RunRecords, read_lines
from mifo_verl.verl.actor import Actor
from mifo_verl.verl.asking import ask
from mifo_verl.verl.demonstrations import Demonstrations
from mifo_verl.verl.sft_phase import SftPhase


@dataclass(frozen=True)
class Assembly:
    """The parts of a controller that are not verl's."""

    demonstrations: Demonstrations
    loop: Loop
    sft: SftPhase
    probes: Probes
    rollout_probe: RolloutProbe
    cost: RlCost
    budget: Budget
    emit: Callable[[Event], None]
    """Tell every observer."""


def assemble(
    trainer: PPOTrainer, actor: Actor, mifo: MifoConfig, state: LoopState, records: RunRecords, is_resumed: bool
) -> Assembly:
    """Everything around the loop over this state."""
    config, tokenizer = trainer.config, trainer.tokenizer
    score = get_custom_reward_fn(config) or default_compute_score
    template = config.data.get("apply_chat_template_kwargs", {})
    demonstrations = Demonstrations(tokenizer, score, config.data.max_response_length, template)
    cost = rl_cost(config, actor.num_weights())
    budget = Budget(mifo.budget.flops, read_lines(records.folder / METRICS))
    parts = Parts(
        gate=mifo.gate,
        schedule=mifo.schedule,
        num_rollouts=config.actor_rollout_ref.rollout.n,
        seed=int(config.seed),
        batch_size=mifo.sft.batch_size,
        cut=mifo.sft.cut,
        passes=mifo.sft.passes,
        limit=mifo.sft_limit,
        solved=mifo.probe.solved,
        solved_accuracy=mifo.probe.solved_accuracy,
        mixing=mifo.mixing,
        prefix=mifo.prefix,
    )
    loop = Loop(parts, state, demonstrations.build)

    def decode(token: int) -> str:
        return tokenizer.decode([token])

    def emit(event: Event) -> None:
        for observer in (records, budget):
            observer(event)

    return Assembly(
        demonstrations=demonstrations,
        loop=loop,
        sft=SftPhase(loop, actor, mifo.inspect, decode, parts.seed, cost.num_weights),
        probes=_probes(trainer, actor, mifo, state, demonstrations, records),
        rollout_probe=RolloutProbe(mifo.probe, actor, config.actor_rollout_ref.rollout, is_resumed, records.event),
        cost=cost,
        budget=budget,
        emit=emit,
    )


def _probes(
    trainer: PPOTrainer,
    actor: Actor,
    mifo: MifoConfig,
    state: LoopState,
    demonstrations: Demonstrations,
    records: RunRecords,
) -> Probes:
    """The probes of ``mifo.probe``, on the run's data sets; what a resume brought and is of others is dropped."""
    settings = mifo.probe if mifo.schedule.has_sft_phases else replace(mifo.probe, around_sft=False)
    servers = trainer.checkpoint_manager
    policy = Policy(
        forward=actor.probe,
        ask=lambda rows: ask(trainer, rows),
        wake=lambda: servers.update_weights(trainer.global_steps),
        sleep=servers.sleep_replicas,
    )
    data = held_out(
        settings,
        trainer.train_dataset,
        trainer.val_dataset,
        demonstrations.render,
        demonstrations.build,
        trainer.config.data.max_prompt_length,
        records.event,
    )
    made = Probes(settings, data, policy, state)
    made.go_on(measured_on(data, asked_with(trainer.config, settings)), records.event)
    return made


def asked_with(config: DictConfig, settings: ProbeConfig) -> dict[str, Any]:
    """The settings that the probes' values depend on, beside their data."""
    rollout, data = config.actor_rollout_ref.rollout, config.data
    sizes = ("around_sft", "solved", "solved_accuracy", "hard", "rollouts")
    sampling = OmegaConf.to_container(rollout.val_kwargs, resolve=True)
    lengths = {"max_response_length": data.max_response_length, "seed": rollout.get("seed")}
    return {name: getattr(settings, name) for name in sizes} | {"sampling": sampling} | lengths
