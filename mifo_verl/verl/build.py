"""What works for a trainer, made from its config once its workers are there."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import ray
from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.trainer.ppo.utils import Role, create_rl_dataset, need_reference_policy
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.utils.reward_score import default_compute_score

from mifo_verl.config import MifoConfig
from mifo_verl.loop.events import Event
from mifo_verl.loop.inputs import Parts
from mifo_verl.loop.loop import Loop
from mifo_verl.loop.mixed import places
from mifo_verl.loop.state import LoopState
from mifo_verl.method.token_facts import TEACHER
from mifo_verl.probes.held_out import held_out, measured_on
from mifo_verl.probes.probes import Policy, Probes
from mifo_verl.probes.rollouts import RolloutProbe
from mifo_verl.run.budget import Budget, rl_cost
from mifo_verl.run.compute import RlCost
from mifo_verl.run.journal import METRICS, RunRecords, read_lines
from mifo_verl.settings import ProbeConfig
from mifo_verl.verl.actor import Actor
from mifo_verl.verl.adapter import prepare_model
from mifo_verl.verl.asking import ask
from mifo_verl.verl.demonstrations import Demonstrations
from mifo_verl.verl.own_rollouts import OwnRollouts
from mifo_verl.verl.saving import Saver
from mifo_verl.verl.sft_phase import SftPhase
from mifo_verl.verl.worker import MifoTrainingWorker, MifoWorker


@dataclass(frozen=True)
class Assembly:
    """The parts of a controller that are not verl's."""

    actor: Actor
    demonstrations: Demonstrations
    loop: Loop
    sft: SftPhase
    probes: Probes
    rollout_probe: RolloutProbe
    cost: RlCost
    budget: Budget
    emit: Callable[[Event], None]
    """Tell every observer."""


def prepare_workers(trainer: PPOTrainer, mifo: MifoConfig) -> None:
    """Before verl builds its workers: they are ours, and learning rates are spread over the RL steps alone.

    verl takes a model with an adapter for its own reference, without the adapter. Where the base weights train, that
    one would move along, so that the reference becomes a model of its own.
    """
    for part in (trainer.config.actor_rollout_ref.actor, trainer.config.critic):
        part.optim.total_training_steps = max(1, mifo.schedule.num_rl_steps(trainer.total_training_steps))
    prepare_model(trainer.config.actor_rollout_ref.model, mifo)
    if mifo.trains_base and need_reference_policy(trainer.config):
        for mapping in (trainer.role_worker_mapping, trainer.mapping):
            mapping[Role.ActorRolloutRef] = mapping.pop(Role.ActorRollout)
    for role in trainer.role_worker_mapping:
        trainer.role_worker_mapping[role] = ray.remote(MifoTrainingWorker if role == Role.Critic else MifoWorker)


def keep_validation(trainer: PPOTrainer) -> None:
    """Validate every run on the same rows: verl draws ``data.val_max_samples`` of them by the run's seed."""
    data = trainer.config.data
    most = data.get("val_max_samples", -1)
    if most > 0 and data.get("shuffle") and isinstance(trainer.val_dataset, RLHFDataset):
        of_all = OmegaConf.merge(data, {"seed": 0})
        fixed = create_rl_dataset(data.val_files, of_all, trainer.tokenizer, trainer.processor, False, max_samples=most)
        trainer.val_dataset.dataframe = fixed.dataframe


def assemble(trainer: PPOTrainer, mifo: MifoConfig, saver: Saver, records: RunRecords) -> Assembly:
    """Everything around the loop, over a new state or the one of a checkpoint."""
    config, tokenizer = trainer.config, trainer.tokenizer
    trainer.ref_in_actor = trainer.ref_in_actor and not mifo.trains_base
    actor = Actor(trainer.actor_rollout_wg, config.actor_rollout_ref.actor, tokenizer.pad_token_id)
    actor.configure(OmegaConf.to_container(config.mifo, resolve=True))  # type: ignore[arg-type]
    groups = {"actor": trainer.actor_rollout_wg} | ({"critic": trainer.critic_wg} if trainer.use_critic else {})
    state = saver.resume(actor, groups, trainer.train_dataloader)
    is_resumed = saver.resumed is not None
    if is_resumed:
        config.trainer.val_before_train = False  # these weights were validated in their own step
    if state.kl_in_reward is not None:
        trainer.kl_ctrl_in_reward.value = state.kl_in_reward
    score = get_custom_reward_fn(config) or default_compute_score
    template = config.data.get("apply_chat_template_kwargs", {})
    demonstrations = Demonstrations(tokenizer, score, config.data.max_response_length, template)
    cost = rl_cost(config, actor.num_weights(), mifo.mixing.extra_trainings)
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
        steps=trainer.total_training_steps,
        mixing=mifo.mixing,
        prefix=mifo.prefix,
        sampling=mifo.sampling,
        temperature=float(config.actor_rollout_ref.rollout.temperature),
        own_rollouts=mifo.sft.own_rollouts if mifo.keeps_own_rollouts else 0,
    )

    def others(step: int, number: int) -> Iterator[tuple[dict[str, Any], list[int]]]:
        rows = trainer.train_dataset
        for row in (rows[place] for place in places(len(rows), number, parts.seed, step)):
            yield row, demonstrations.render(row)

    build = demonstrations.build_with_teacher if TEACHER in mifo.sft_facts else demonstrations.build
    loop = Loop(parts, state, build, others, lambda: budget.share)

    def decode(token: int) -> str:
        return tokenizer.decode([token])

    def emit(event: Event) -> None:
        for observer in (records, budget):
            observer(event)

    probes = _probes(trainer, actor, mifo, state, demonstrations, records)
    sft = SftPhase(
        loop,
        actor,
        probes,
        mifo.inspect,
        decode,
        parts.seed,
        cost.num_weights,
        forwards=int(bool(mifo.before_facts)),
        watchdog=trainer.watchdog,
        settings=mifo.sft,
        event=records.event,
        own=OwnRollouts(actor, mifo, cost.num_weights, records.event),
    )
    return Assembly(
        actor=actor,
        demonstrations=demonstrations,
        loop=loop,
        sft=sft,
        probes=probes,
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
