"""The engine on gloo ranks, without Ray: each test names a function of this file, which runs on every rank."""

import gc
import io
import os
import tempfile
import traceback
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import torch.distributed as dist

from mifo_verl.types import SftExample
from tests.forks import context


def run_on_ranks(function: Callable[..., Any], num_ranks: int, cases: list[tuple[Any, ...]]) -> list[Any]:
    """What ``function(*case)`` returns on rank 0 for each case, one after the other in the same processes.

    The processes of one rank, and of two, stay for the next call: to start them takes longer than most cases.
    """
    ranks = _KEPT.pop(num_ranks, None) or _Ranks(num_ranks)
    try:
        found = ranks.run(function, cases)
    except BaseException:
        ranks.end()
        raise
    if num_ranks <= 2:
        _KEPT[num_ranks] = ranks
    else:
        ranks.end()
    return found


class _Ranks:
    """A gloo group of processes, each of which runs what comes down its pipe until the pipe ends."""

    def __init__(self, num_ranks: int) -> None:
        self._folder = tempfile.TemporaryDirectory()
        forks = context()
        self._pipes, self._processes = [], []
        for rank in range(num_ranks):
            ours, theirs = forks.Pipe()
            arguments = (rank, num_ranks, self._folder.name, theirs)
            self._processes.append(forks.Process(target=_rank, args=arguments, daemon=True))
            self._processes[-1].start()
            theirs.close()
            self._pipes.append(ours)

    def run(self, function: Callable[..., Any], cases: list[tuple[Any, ...]]) -> list[Any]:
        """Raises RuntimeError with the first traceback of a rank."""
        for pipe in self._pipes:
            pipe.send((function, cases))
        found, waiting = {}, dict(zip(self._pipes, range(len(self._pipes)), strict=True))
        while waiting:
            for pipe in wait(list(waiting)):
                rank = waiting.pop(pipe)  # type: ignore[call-overload]
                found[rank] = torch.load(io.BytesIO(pipe.recv_bytes()), weights_only=False)  # type: ignore[union-attr]
                if isinstance(found[rank], str):
                    raise RuntimeError(f"rank {rank}: {found[rank]}")
        return list(found[0])

    def end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        self._folder.cleanup()


_KEPT: dict[int, _Ranks] = {}


def _rank(rank: int, num_ranks: int, folder: str, pipe: Connection) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(num_ranks), LOCAL_RANK="0")
    dist.init_process_group("gloo", rank=rank, world_size=num_ranks, init_method=f"file://{folder}/store")
    while True:
        try:
            function, cases = pipe.recv()
        except EOFError:
            return
        found: Any
        try:
            found = [function(*case) for case in cases]
        except BaseException:
            found = traceback.format_exc()
        answer = io.BytesIO()
        torch.save(found, answer)
        pipe.send_bytes(answer.getvalue())
        del found
        gc.collect()


@cache
def _quickstart() -> Any:
    from mifo_verl.compose import compose_config

    return compose_config(["experiment=quickstart"]).node


def configured(settings: dict[str, Any]) -> Any:
    """The quick start's config with these dotted keys and their values."""
    from omegaconf import OmegaConf

    config = deepcopy(_quickstart())
    for key, value in settings.items():
        OmegaConf.update(config, key, value, merge=False, force_add=True)
    return config


def make_engine(settings: dict[str, Any], rl_steps: int = 100) -> Any:
    """The quick start's actor engine, configured for SFT phases; ``settings`` are dotted keys and their values."""
    from omegaconf import OmegaConf
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.engine import EngineRegistry

    from mifo_verl.config import build_config
    from mifo_verl.verl.adapter import prepare_model
    from mifo_verl.verl.engine import register_engines

    register_engines()
    config = configured(settings)
    mifo = build_config(OmegaConf.to_container(config.mifo))
    prepare_model(config.actor_rollout_ref.model, mifo)
    torch.manual_seed(0)  # a new adapter
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    model = omega_conf_to_dataclass(config.actor_rollout_ref.model)
    actor.optim.total_training_steps = rl_steps
    engine = EngineRegistry.new(
        model_type="language_model",
        backend="fsdp2",
        model_config=model,
        engine_config=actor.engine,
        optimizer_config=actor.optim,
        checkpoint_config=actor.checkpoint,
    )
    model.model_type = "language_model"
    engine.engine_config.use_remove_padding = False
    engine.initialize()
    engine.configure(mifo)
    return engine


def examples(number: int, seed: int = 7) -> list[SftExample]:
    """Made-up demonstrations of different lengths over the start model's vocabulary."""
    draw = torch.Generator().manual_seed(seed)
    made = []
    for place in range(number):
        lengths = torch.randint(3, 24, (2,), generator=draw).tolist()
        prompt, response = (torch.randint(3, 250, (n,), generator=draw).tolist() for n in lengths)
        made.append(SftExample(f"p{place}", tuple(prompt), tuple(response), "0" * 64))
    return made


def batch_of(made: list[SftExample], engine: Any, rows_a_rank: int = 1, **settings: Any) -> Any:
    """This rank's part of one SFT update, as the dispatch of verl would cut it."""
    from verl.utils import tensordict_utils as tu

    from mifo_verl.verl.sft_step import BatchCut, sft_batch

    num_ranks = dist.get_world_size()
    batch = sft_batch(made, list(range(len(made))), BatchCut(num_ranks, rows_a_rank, pad_token_id=0))
    batch = tu.chunk_tensordict(batch, num_ranks)[dist.get_rank()]
    tu.assign_non_tensor(batch, use_remove_padding=False, use_fused_kernels=False, **settings)
    return batch


def update(engine: Any, made: list[SftExample], rows_a_rank: int = 1, **settings: Any) -> dict[str, Any]:
    """One SFT update; returns verl's output (loss of every micro-batch, metrics)."""
    from mifo_verl.verl.sft_step import SftLossOfBatch

    settings = settings or {"use_dynamic_bsz": True, "max_token_len_per_gpu": 4096}
    with engine.train_mode():
        return engine.train_batch(batch_of(made, engine, rows_a_rank, **settings), SftLossOfBatch(engine.mifo))


def full(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """The flattened parameters from the flat shards of all ranks."""
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, [tensor.clone() for tensor in tensors])
    return [torch.cat(pieces) for pieces in zip(*parts, strict=True)]
