"""The engine on gloo ranks, without Ray: each test names a function of this file, which runs on every rank."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

os.environ.update(VERL_PLATFORM="cpu", OMP_NUM_THREADS="1", TORCH_COMPILE_DISABLE="1", HF_HUB_OFFLINE="1")

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mifo_verl.types import SftExample


def run_on_ranks(function: Callable[..., Any], num_ranks: int, cases: list[tuple[Any, ...]]) -> list[Any]:
    """What ``function(*case)`` returns on rank 0 for each case, one after the other in the same processes."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (dict(os.environ), function, num_ranks, folder, cases)
        multiprocessing.set_forkserver_preload(["tests.integration.preloaded"])
        mp.start_processes(_rank, arguments, nprocs=num_ranks, start_method="forkserver", join=True)
        return torch.load(Path(folder) / "0.pt", weights_only=False)


def _rank(
    rank: int,
    environment: dict[str, str],
    function: Callable[..., Any],
    num_ranks: int,
    folder: str,
    cases: list[tuple[Any, ...]],
) -> None:
    torch.set_num_threads(1)
    os.environ.update(environment)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(num_ranks), LOCAL_RANK="0")
    dist.init_process_group("gloo", rank=rank, world_size=num_ranks, init_method=f"file://{folder}/store")
    torch.save([function(*case) for case in cases], Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


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
