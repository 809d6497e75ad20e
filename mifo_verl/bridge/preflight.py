"""Every check that can be made before Ray starts. Each raises ConfigError: setting, value, rule, cure."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from mifo_verl.bridge.compose import ConfigError
from mifo_verl.config import MifoConfig, build_config
from mifo_verl.data.parquet import check_columns, count_demonstrations
from mifo_verl.method.freezing import NoFreeze
from mifo_verl.method.schedule import Never, WhenFull
from mifo_verl.types import require


def prepare_data(config: DictConfig) -> None:
    """Make the data of a task that makes its own (``prepare``), where its files do not exist yet."""
    files = [Path(path) for path in _paths(config.data.train_files)]
    if config.prepare and not all(path.exists() for path in files):
        from mifo_verl.data.__main__ import main as make_data

        if make_data([config.prepare, f"out={files[0].parent}"]):
            raise ConfigError(f"prepare={config.prepare} did not make {files[0]}; see the message above")


def check_run(config: DictConfig) -> None:
    """All checks of a composed, resolved config."""
    try:
        mifo = build_config(OmegaConf.to_container(config.mifo, resolve=True))  # type: ignore[arg-type]
        _check_engine(config, mifo)
        _check_model(str(config.actor_rollout_ref.model.path))
        _check_sizes(config)
        _check_data(config, mifo)
    except ConfigError:
        raise
    except (ValueError, OSError) as error:
        raise ConfigError(" ".join(str(error).split())) from None


def _check_engine(config: DictConfig, mifo: MifoConfig) -> None:
    actor = config.actor_rollout_ref.actor
    name = "actor_rollout_ref.actor"
    require(
        actor.strategy in ("fsdp", "fsdp2"), f"{name}.strategy", actor.strategy, "fsdp2 or fsdp", "fsdp2 is the default"
    )
    if actor.strategy == "fsdp":
        require(
            bool(actor.fsdp_config.use_orig_params),
            f"{name}.fsdp_config.use_orig_params",
            actor.fsdp_config.use_orig_params,
            "true with strategy=fsdp, because flat parameters hide the coordinates that a mask needs",
            f"use {name}.strategy=fsdp2",
        )
        require(
            config.trainer.device != "cpu", f"{name}.strategy", "fsdp", "fsdp2 on a CPU", f"use {name}.strategy=fsdp2"
        )
    if not isinstance(mifo.freeze, NoFreeze):
        require(
            actor.fsdp_config.model_dtype in ("fp32", "float32"),
            f"{name}.fsdp_config.model_dtype",
            actor.fsdp_config.model_dtype,
            "fp32, because importance is taken from float32 master weights (bf16 hides most RL updates)",
            f"use {name}.fsdp_config.model_dtype=fp32, or mifo/freeze=none",
        )
    require(
        config.trainer.v1.trainer_mode == "mifo",
        "trainer.v1.trainer_mode",
        config.trainer.v1.trainer_mode,
        "mifo, or verl's own trainer would run",
        "use python -m verl.trainer.main_ppo for that",
    )
    require(
        isinstance(mifo.schedule, Never) or not config.actor_rollout_ref.model.use_fused_kernels,
        "actor_rollout_ref.model.use_fused_kernels",
        config.actor_rollout_ref.model.use_fused_kernels,
        "false, because fused kernels give no logits to take the tokens' entropy from",
        "use mifo/schedule=never, or switch them off",
    )
    if mifo.sft.surplus == "keep" and not isinstance(mifo.schedule, WhenFull):
        raise ConfigError("mifo.sft.surplus=keep must go with mifo/schedule=when_full, which says what surplus is")


def _check_model(path: str) -> None:
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise ConfigError(
                f"actor_rollout_ref.model.path={path} must hold a config.json; give a Hugging Face folder"
            )
        return
    hub_name = re.fullmatch(r"[\w-]+/[\w.-]+", path)
    if not hub_name or os.environ.get("HF_HUB_OFFLINE") == "1":
        raise ConfigError(
            f"actor_rollout_ref.model.path={path} must be an existing folder"
            f"{' while HF_HUB_OFFLINE=1' if hub_name else ', or a hub name such as Qwen/Qwen2.5-Math-1.5B'}; "
            "check the path"
        )


def _check_sizes(config: DictConfig) -> None:
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    for name in (
        "data.train_batch_size",
        "data.max_prompt_length",
        "data.max_response_length",
        "actor_rollout_ref.rollout.n",
        "actor_rollout_ref.actor.ppo_mini_batch_size",
        "trainer.n_gpus_per_node",
        "trainer.nnodes",
    ):
        value = OmegaConf.select(config, name)
        require(isinstance(value, int) and value >= 1, name, value, "a whole number of at least 1", "correct it")
    require(isinstance(config.seed, int) and config.seed >= 0, "seed", config.seed, "a whole number", "write seed=0")
    batch, mini, ranks = (
        config.data.train_batch_size,
        actor.ppo_mini_batch_size,
        config.trainer.n_gpus_per_node * config.trainer.nnodes,
    )
    require(
        batch % mini == 0,
        "actor_rollout_ref.actor.ppo_mini_batch_size",
        mini,
        f"a divisor of data.train_batch_size={batch}",
        "change one of them",
    )
    require(
        mini * rollout.n % ranks == 0,
        "actor_rollout_ref.actor.ppo_mini_batch_size",
        mini,
        f"such that mini-batch x rollout.n = {mini * rollout.n} splits evenly over {ranks} ranks",
        "change the mini-batch, actor_rollout_ref.rollout.n or trainer.n_gpus_per_node",
    )
    if actor.use_dynamic_bsz:
        longest = config.data.max_prompt_length + config.data.max_response_length
        budget = actor.ppo_max_token_len_per_gpu * actor.ulysses_sequence_parallel_size
        require(
            longest <= budget,
            "actor_rollout_ref.actor.ppo_max_token_len_per_gpu",
            actor.ppo_max_token_len_per_gpu,
            f"such that a sequence of data.max_prompt_length + data.max_response_length = {longest} tokens fits",
            "make it larger, or the lengths smaller",
        )
    if config.algorithm.adv_estimator in ("grpo", "rloo"):
        require(
            rollout.n >= 2,
            "actor_rollout_ref.rollout.n",
            rollout.n,
            f"at least 2 for {config.algorithm.adv_estimator}, whose baseline is the group",
            "the paper's value is 8",
        )


def _check_data(config: DictConfig, mifo: MifoConfig) -> None:
    for setting in ("data.train_files", "data.val_files"):
        for path in _paths(OmegaConf.select(config, setting)):
            if not Path(path).expanduser().exists():
                raise ConfigError(
                    f"{setting}={path} must be an existing parquet file; make it with python -m mifo_verl.data"
                )
            check_columns(path, setting)
    counts = [count_demonstrations(path) for path in _paths(config.data.train_files)]
    rows, demonstrations = (sum(column) for column in zip(*counts, strict=True))
    batch = config.data.train_batch_size
    require(
        batch <= rows, "data.train_batch_size", batch, f"at most the {rows} rows of data.train_files", "make it smaller"
    )
    if isinstance(mifo.schedule, Never):
        return
    train_files = config.data.train_files
    require(
        demonstrations > 0,
        "data.train_files",
        train_files,
        "data with demonstrations in the column target",
        "use mifo/schedule=never for RL alone",
    )
    if isinstance(mifo.schedule, WhenFull):
        require(
            mifo.schedule.size <= demonstrations,
            "mifo.schedule.size",
            mifo.schedule.size,
            f"at most the {demonstrations} demonstrations of data.train_files",
            "make it smaller, or no SFT phase ever comes",
        )


def _paths(value: Any) -> Iterable[str]:
    return [str(path) for path in value] if isinstance(value, list | ListConfig) else [str(value)]
