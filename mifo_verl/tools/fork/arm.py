"""One arm: the checkpoint's own engine, an SFT phase under the arm's settings, and what is measured on its way."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from mifo_verl.config import build_config
from mifo_verl.errors import require
from mifo_verl.loop.state import FOLDER, LoopState
from mifo_verl.loop.streams import stable_seed
from mifo_verl.probes.step import RowSums
from mifo_verl.run.checkpoints import Checkpoint
from mifo_verl.tools.evaluate.engines import choose_engine
from mifo_verl.tools.fork.ask import Asker, Skill, examples, model_folder, read_rows, read_skill
from mifo_verl.tools.fork.plan import Plan
from mifo_verl.tools.fork.records import Ended, Line, Measured, Updated
from mifo_verl.types import SftExample
from mifo_verl.verl.local import LocalActor, demonstrations_of, gathered
from mifo_verl.verl.own_rollouts import OwnRollouts

_QUESTIONS = 512
"""Asked once for own rollouts."""
Rollout = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids of a prompt and of an answer to it."""


@dataclass(frozen=True)
class Start:
    """Where all arms of a checkpoint begin."""

    weights: Mapping[str, Any]
    own: list[int]
    """1 where the greedy answer is right."""
    gained: list[int]
    rollouts: list[Rollout]
    """Its answers to questions of its own skill, at temperature 1."""
    own_rollouts: list[SftExample]
    """Its right answers, as its run keeps them for an SFT phase; none if no arm needs some."""


@dataclass(frozen=True)
class Phase:
    """What all arms of a checkpoint share."""

    own: Skill
    gained: Skill
    start: Start
    demonstrations: Callable[[], Iterator[SftExample]]
    """Without end, always in the same order."""
    updates: int
    at: Sequence[int]
    seed: int
    """The run's, from which the streams of random parts are made."""
    interval: int
    share: float
    """Of the run that is over."""


def begin(
    plan: Plan, checkpoint: Checkpoint, config: Any, prompts: Sequence[Path], scratch: Path
) -> tuple[Phase, Asker]:
    """What all arms of a checkpoint share, and who asks; the start is asked here. Collective.

    ``config`` is the run's, with what all arms share; ``prompts`` are an arm's that needs some. Raises ValueError on data
    that cannot be used.
    """
    settings, bed = plan.settings, plan.bed
    demonstrations = demonstrations_of(config)
    own, gained = (
        read_skill(one, Path(getattr(bed, one)), demonstrations, settings.probes) for one in ("own", "gained")
    )
    rows = read_rows("train", Path(bed.train))
    told = examples(rows, demonstrations)
    require(
        bool(told),
        "train",
        bed.train,
        f"rows with demonstrations that verify, and of its {len(rows)} none has",
        "correct it",
    )
    model, most = model_folder(checkpoint.folder, scratch / "model"), int(config.data.max_response_length)
    asker = Asker(
        demonstrations,
        model,
        choose_engine(settings.engine),
        settings.batch,
        settings.threads,
        settings.gpu_memory,
        most,
    )
    actor, state = LocalActor(config, checkpoint.folder), LoopState.load(checkpoint.folder / FOLDER)
    kept = [one.example for one in state.own_rollouts]
    start = _asked(actor, asker, own, gained, settings.probes, kept, prompts, config)
    length = config.trainer.get("total_training_steps")
    share = min(1.0, state.step / length) if length else 1.0
    updates, at = plan.definition.updates, plan.definition.at
    order = partial(in_order, told, settings.order)
    return Phase(own, gained, start, order, updates, at, int(config.seed), state.interval, share), asker


def _asked(
    actor: LocalActor,
    asker: Asker,
    own: Skill,
    gained: Skill,
    probes: int,
    kept: list[SftExample],
    prompts: Sequence[Path],
    config: Any,
) -> Start:
    """The start, with the own rollouts that its run has ``kept``, or right answers to questions of these files."""
    weights, answers = actor.weights(), None
    rows = [row for one in prompts for row in read_rows("prompts", one)]
    asked = Random("own").sample(rows, min(_QUESTIONS, len(rows)))
    sampling = {name: config.actor_rollout_ref.rollout[name] for name in ("temperature", "top_p", "top_k")}
    if actor.is_first:
        engine = asker.load(weights)
        right = [asker.correct(engine, skill) for skill in (own, gained)]
        rollouts = asker.rollouts(engine, own, probes)
        answers = (*right, rollouts, kept or asker.correct_rollouts(engine, asked, sampling))
    return Start(weights, *gathered(answers)[0])


def in_order(told: Sequence[SftExample], seed: int) -> Iterator[SftExample]:
    """Demonstrations without end: pass after pass, each in an order of its own that depends on the seed alone."""
    for number in count():
        yield from Random(f"{seed}/{number}").sample(told, len(told))


def run_arm(actor: LocalActor, mifo: Mapping[str, Any], phase: Phase, asker: Asker) -> Iterator[Line]:
    """Make the SFT phase; its records after the first, as soon as they exist. Collective."""
    began, settings = time.monotonic(), build_config(mifo)
    sft, own = settings.sft, OwnRollouts(actor, settings, actor.num_weights(), _refuse)
    needed = phase.start.own_rollouts[: sft.own_rollouts] if settings.keeps_own_rollouts else []
    examples, rollouts = phase.demonstrations(), own.begun(needed, phase.interval)
    yield _measured(0, actor, phase, asker)
    for number in range(1, phase.updates + 1):
        batch = [next(examples) for _ in range(sft.batch_size)]
        seeds = [stable_seed(phase.seed, phase.interval, one.prompt_id) for one in batch]
        lr = sft.rate((number - 1) / phase.updates, number / phase.updates)
        staged = own.stage(rollouts, number - 1, len(batch))
        made = actor.update_sft(batch, seeds, phase.share, lr)
        own.used(staged)
        yield Updated(
            update=number,
            loss=_finite(made.loss),
            grad_norm=_finite(made.grad_norm),
            kept_share=sum(made.kept_tokens) / sum(len(one.response_ids) for one in batch),
            lr=lr,
        )
        is_spent = own.is_spent(own.kl(rollouts))
        if number in phase.at or is_spent:
            yield _measured(number, actor, phase, asker)
        if is_spent:
            break
    drift = actor.end_sft()
    yield Ended(frozen_drift=drift, weights_sha256=actor.weights_sha256(), seconds=time.monotonic() - began)


def _refuse(_: str, why: str) -> None:
    raise ValueError(f"{why}; give prompts=<parquet file of questions that the checkpoint can answer>")


def _measured(update: int, actor: LocalActor, phase: Phase, asker: Asker) -> Measured:
    weights, start = actor.weights(), phase.start
    own, gained = start.own, start.gained
    if update and actor.is_first:
        engine = asker.load(weights)
        own, gained = (asker.correct(engine, skill) for skill in (phase.own, phase.gained))
    of_rollouts = actor.probe(start.rollouts, with_shift=True)
    told = [(one.prompt_ids, one.response_ids) for one in phase.gained.demonstrations]
    of_demonstrations = actor.probe(told, with_shift=False) if told else []
    return Measured(
        update=update,
        own=own,
        gained=gained,
        kl=_per_token(of_rollouts, "kl") if update else 0.0,
        cross_entropy_rollouts=-_per_token(of_rollouts, "log_probs"),
        cross_entropy_demonstrations=-_per_token(of_demonstrations, "log_probs") if told else None,
        weight_change=math.sqrt(sum(_squares(weights[name], held) for name, held in start.weights.items())),
    )


def _squares(now: Any, before: Any) -> float:
    return float((now.double() - before.double()).square().sum())


def _per_token(sums: Sequence[RowSums], column: str) -> float:
    return float(sum(getattr(one, column) for one in sums) / sum(one.tokens for one in sums))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
