"""What a checkpoint says of its run, and whether another run may go on from it."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from mifo_verl.compose import ConfigError
from mifo_verl.config import MifoConfig, build_config
from mifo_verl.loop.state import FOLDER, LoopState
from mifo_verl.run.checkpoints import BrokenCheckpoint, CheckpointStore, file_sha256, verify
from mifo_verl.run.flatten import PLACES, flatten
from mifo_verl.run.journal import CONFIG, read_lines, replace_text
from mifo_verl.run.versions import PACKAGES, version_of
from mifo_verl.verl.critic import has_critic
from mifo_verl.verl.merge import merged_folder

WEIGHTS_FROM = "weights_from.json"
"""The checkpoint whose weights a run began with, and the settings that differ from that run's."""

FREE = frozenset(
    """
    env ray_kwargs prepare global_profiler
    trainer.save_freq trainer.test_freq trainer.val_before_train trainer.log_val_generations
    trainer.rollout_data_dir trainer.validation_data_dir trainer.nnodes trainer.n_gpus_per_node
    data.on_bad_row data.val_files data.val_max_samples data.val_batch_size
    mifo.checkpoint mifo.probe mifo.config_dirs
    actor_rollout_ref.rollout.gpu_memory_utilization
    actor_rollout_ref.rollout.val_kwargs actor_rollout_ref.actor.ppo_max_token_len_per_gpu
    actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu actor_rollout_ref.actor.fsdp_config.param_offload
    actor_rollout_ref.actor.fsdp_config.optimizer_offload
    """.split()
).union(PLACES)
"""Settings that may differ on resume, and all below them: they say where and how fast, not what is trained. The number
of ranks, which is nnodes x n_gpus_per_node, has to stay."""

LENGTHS = frozenset({"trainer.total_training_steps", "trainer.total_epochs"})
"""Free only while no learning rate and no part depends on them."""
BUDGET = frozenset({"mifo.budget"})
"""Free only while no part depends on the share of it that is spent."""

_MODEL = "actor_rollout_ref.model.path"
_REWARD = "reward.custom_reward_function.path"
_POINTED_AT = frozenset({"data.train_files", _MODEL})
"""Compared by content; a model that is only a name on the hub by that name."""

_MODEL_FILES = tuple(
    """
    config.json generation_config.json model.safetensors.index.json tokenizer.json tokenizer_config.json
    special_tokens_map.json added_tokens.json tokenizer.model vocab.json vocab.txt merges.txt chat_template.jinja
    """.split()
)
_HERE = "folder"
"""Key of the facts that are read: where the checkpoint lies."""


def run_facts(config: DictConfig, step: int, during_step: bool, accuracy: float | None) -> dict[str, Any]:
    """The facts of a checkpoint: where in the run it stands, and of what run it is."""
    run = yaml.safe_load((Path(config.run_dir) / CONFIG).read_text())
    text = json.dumps(run, sort_keys=True)
    return {
        "step": step,
        "during_step": during_step,
        "accuracy": accuracy,
        "config": run,
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        **_surroundings(config),
    }


def _surroundings(config: DictConfig) -> dict[str, Any]:
    """What the config only points at."""
    files = config.data.train_files
    paths = [files] if isinstance(files, str) else list(files)
    model = Path(str(config.actor_rollout_ref.model.path)).expanduser()
    tokenizer = Path(str(config.actor_rollout_ref.model.get("tokenizer_path") or model)).expanduser()
    files_of_model = {name: folder / name for folder in (tokenizer, model) for name in _MODEL_FILES}
    digests = {name: file_sha256(path) for name, path in files_of_model.items() if path.is_file()}
    reward = Path(str(OmegaConf.select(config, _REWARD))).expanduser()
    return {
        "world_size": config.trainer.nnodes * config.trainer.n_gpus_per_node,
        "model_config_sha256": digests.pop("config.json", None),
        "model_files_sha256": digests,
        "reward_sha256": file_sha256(reward) if reward.is_file() else None,
        "train_files_sha256": [file_sha256(Path(path).expanduser()) for path in paths],
        "versions": {name: version_of(name) for name in PACKAGES},
    }


def own_checkpoints(config: DictConfig) -> set[tuple[Path, int]]:
    """Marks of the checkpoints in the run's own folder. A restart of a run that has made one since its start takes the
    newest (``auto``); before, it takes what the run was told.
    """
    return _store(config).marks()


def _store(config: DictConfig) -> CheckpointStore:
    return CheckpointStore(config.trainer.default_local_dir, keep_last=1, keep_best=0)


def checkpoint_facts(config: DictConfig, report: Callable[[str], None] = lambda _: None) -> dict[str, Any] | None:
    """The facts of the checkpoint that a run would go on from, None if there is none; reports what is passed over.

    Seen without reading the large files. Raises BrokenCheckpoint if it is torn, or none is whole, and ValueError if
    the run's records lack lines that it presupposes.
    """
    trainer, store = config.trainer, _store(config)
    try:
        if trainer.resume_mode == "auto":
            found = store.newest(report, checksums=False)
        else:
            found = verify(Path(trainer.resume_from_path), checksums=False)
    except BrokenCheckpoint as error:
        if trainer.resume_mode == "auto":
            raise
        raise BrokenCheckpoint(
            f"trainer.resume_from_path={trainer.resume_from_path} must be a whole checkpoint: {error}; give another "
            "one, or trainer.resume_mode=auto for the newest that is whole"
        ) from None
    if found is not None and store.holds(found):
        require_lines(Path(config.run_dir), found.facts["step"], found.facts.get("lines", {}))
    return None if found is None else found.facts | {_HERE: str(found.folder)}


def require_lines(folder: Path, step: int, expected: Mapping[str, int]) -> None:
    """What ``sync`` counted is still there, up to a checkpoint's step. Raises ValueError where lines are missing."""
    for name, number in expected.items():
        there = sum(line["step"] <= step for line in read_lines(folder / name))
        if there < number:
            raise ValueError(
                f"{folder / name} has {there} lines up to step {step}, and the checkpoint of that step was made with "
                f"{number}; put the file back, or go on from that checkpoint in another run_dir "
                "(trainer.resume_mode=resume_path)"
            )


def start_from_weights(config: DictConfig, report: Callable[[str, str], None]) -> None:
    """Begin a new run with another run's weights and nothing else (``trainer.resume_mode=weights``).

    The weights become ``<run_dir>/start``, the run's model; ``weights_from.json`` keeps the checkpoint, its step and
    the settings that differ. A run that has made checkpoints of its own goes on from them. Raises BrokenCheckpoint.
    """
    trainer, start = config.trainer, Path(config.run_dir) / "start"
    if not (start / "config.json").is_file():
        found = verify(Path(trainer.resume_from_path))
        before, after = _settings(found.facts["config"]), _settings(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
        places = frozenset({*PLACES, _MODEL, "run_dir", "name"})
        changed = {
            key: [before.get(key), after.get(key)]
            for key in sorted(before.keys() | after.keys())
            if before.get(key) != after.get(key) and not _is_free(key, places)
        }
        origin = {"checkpoint": str(found.folder), "step": found.facts["step"], "changed": changed}
        copied = start.with_name("start.new")
        shutil.copytree(merged_folder(found.folder, "float32"), copied, dirs_exist_ok=True)
        replace_text(start.with_name(WEIGHTS_FROM), json.dumps(origin, indent=2) + "\n")
        copied.rename(start)
        report("weights", f"begins with the weights of {found.folder} (step {found.facts['step']}) and nothing else")
    config.actor_rollout_ref.model.path = str(start)
    trainer.resume_mode = "auto"


def check_resume(saved: Mapping[str, Any], config: DictConfig) -> list[str]:
    """Refuse to go on from a checkpoint of another run. Returns warnings for what differs and may.

    Raises ConfigError with every setting that differs and must not, or if the checkpoint lacks what a part needs.
    """
    now = {"config": OmegaConf.to_container(config, resolve=True), **_surroundings(config)}
    refused = list(_other_surroundings(saved, now))
    before, after = _settings(saved["config"]), _settings(now["config"])
    free = FREE | _POINTED_AT | _free_lengths(config)
    if now["model_config_sha256"] is None:
        free -= {_MODEL}
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key) and not _is_free(key, free):
            refused.append(f"{key}={after.get(key)} (the checkpoint has {before.get(key)})")
    if refused:
        raise ConfigError(
            f"trainer.resume_mode={config.trainer.resume_mode} must go on with the settings of the checkpoint in "
            f"{config.trainer.default_local_dir}, and these differ: {'; '.join(refused)}; set them back, or start a "
            "new run with another run_dir, with these weights by trainer.resume_mode=weights "
            "trainer.resume_from_path=<checkpoint>"
        )
    if _HERE in saved:
        _require_teacher(Path(saved[_HERE]), build_config(now["config"]["mifo"]))
    return [
        f"{name} {now['versions'][name]} is not the {version} of the checkpoint: the run goes on, not bit by bit"
        for name, version in saved["versions"].items()
        if now["versions"].get(name) != version
    ]


def _require_teacher(checkpoint: Path, mifo: MifoConfig) -> None:
    """The demonstrations that wait in a checkpoint have the column that a part needs of them. Raises ConfigError."""
    parts = mifo.taught
    held = LoopState.load(checkpoint / FOLDER).held if parts else []
    lacking = [entry for entry in held if not entry.example.teacher_log_probs]
    if lacking:
        raise ConfigError(
            f"{parts[0].setting('name')}={parts[0].name} must go on with demonstrations that have the teacher's "
            f"log-probabilities, and {len(lacking)} of the {len(held)} that {checkpoint} holds have none; start a new "
            "run with another run_dir, with these weights by trainer.resume_mode=weights "
            f"trainer.resume_from_path={checkpoint}"
        )


def _other_surroundings(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What the settings only point at and is another. Of what an older checkpoint does not say, nothing is compared."""
    if saved["world_size"] != now["world_size"]:
        yield (
            f"trainer.nnodes x trainer.n_gpus_per_node={now['world_size']} (the checkpoint has {saved['world_size']} "
            "ranks, and each reads back its own shard)"
        )
    if saved["model_config_sha256"] != now["model_config_sha256"]:
        yield f"{_MODEL} (its config.json is another one)"
    files_now = now["model_files_sha256"]
    files = saved.get("model_files_sha256", files_now)
    if changed := [name for name in sorted({*files, *files_now}) if files.get(name) != files_now.get(name)]:
        yield f"{_MODEL} (its {', '.join(changed)} is another one)"
    if saved.get("reward_sha256", now["reward_sha256"]) != now["reward_sha256"]:
        yield f"{_REWARD} (its content has changed)"
    if saved["train_files_sha256"] != now["train_files_sha256"]:
        yield "data.train_files (their content has changed, and the place in them would be another)"


def _free_lengths(config: DictConfig) -> frozenset[str]:
    """The settings of the run's length on which nothing depends that is trained."""
    if build_config(OmegaConf.to_container(config.mifo, resolve=True)).follows_length:  # type: ignore[arg-type]
        return frozenset()
    critics = [config.critic.optim] if has_critic(config) else []
    has_constant_rates = all(
        optim.lr_scheduler_type == "constant" and optim.lr_warmup_steps_ratio == 0
        for optim in (config.actor_rollout_ref.actor.optim, *critics)
    )
    return BUDGET | LENGTHS if has_constant_rates else BUDGET


def _is_free(key: str, free: frozenset[str]) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in free)


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by their full name; those that repeat the model's path say that, wherever the model lies."""
    own = flatten(config)
    repeating = (key for key, value in own.items() if value == own[_MODEL] and key != _MODEL)
    return own | dict.fromkeys(repeating, "${" + _MODEL + "}")
