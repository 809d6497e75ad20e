"""What the checks look at: the config, and the files that it names, each read once."""

import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Thread
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from mifo_verl.checks.findings import NotChecked
from mifo_verl.checks.model_files import read_json, special_tokens
from mifo_verl.compose import composed_defaults
from mifo_verl.config import MifoConfig, build_config
from mifo_verl.data.bad_rows import RowScan, scan_rows
from mifo_verl.data.parquet import check_columns
from mifo_verl.data.report import FileReport, report_of
from mifo_verl.overrides import normalised
from mifo_verl.types import RunFacts
from mifo_verl.verl.critic import has_critic

HUB_NAME = re.compile(r"[\w-]+/[\w.-]+")
NUM_SAMPLED = 200
"""Rows of a training file that are tokenised and, as time allows, verified."""
FILES = ("data.train_files", "data.val_files")
OPTIONS = "data.apply_chat_template_kwargs"
"""What the chat template is told beside the messages."""


class Run:
    """A composed run under check. Reading the data starts at once, beside the other checks."""

    def __init__(self, config: DictConfig, overrides: list[str]) -> None:
        self.config = config
        self.overrides = normalised(overrides)
        self.background: dict[str, Future[Any]] = {}
        """What other checks have set to work beside the rest, by name."""
        self.pair: list[str] = []
        """The first tokens of one prompt with its demonstration, as they are trained on."""
        self._scans = {setting: in_background(lambda s=setting: self._scan(s)) for setting in FILES}

    def get(self, key: str) -> Any:
        """The value of a setting, None where it does not exist."""
        return OmegaConf.select(self.config, key)

    def origin(self, setting: str) -> str:
        """The setting that it takes its value from, as mifo.schedule.size takes buffer_size's; itself if from none."""
        group, _, key = setting.rpartition(".")
        node = OmegaConf.select(composed_defaults(self.overrides), group) if group else None
        raw = OmegaConf.to_container(node, resolve=False).get(key) if OmegaConf.is_dict(node) else None  # type: ignore[union-attr]
        source = re.fullmatch(r"\$\{([\w.]+)\}", str(raw))
        return self.origin(source[1]) if source and self.get(source[1]) == self.get(setting) else setting

    @property
    def num_ranks(self) -> int:
        return num_ranks(self.config)

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest sequence."""
        return int(self.config.data.max_prompt_length) + int(self.config.data.max_response_length)

    @cached_property
    def mifo(self) -> MifoConfig:
        """Raises NotChecked where the settings of mifo are wrong, which a check of its own says."""
        try:
            return build_config(OmegaConf.to_container(self.config.mifo, resolve=True))  # type: ignore[arg-type]
        except ValueError:
            raise NotChecked("not checked: the settings of mifo come first") from None

    @property
    def has_sft_phases(self) -> bool:
        return self.mifo.schedule.has_sft_phases

    @property
    def trains_on_demonstrations(self) -> bool:
        """Whether a demonstration is ever trained on: in an SFT phase, in an RL step, or as a rollout's beginning."""
        given = any("demonstrations" in part.needs for part in self.mifo.parts)
        return self.has_sft_phases or self.mifo.gate.trains_now or given

    @property
    def has_reference(self) -> bool:
        """Whether a second copy of the start model is kept, for a KL."""
        keys = ("actor_rollout_ref.actor.use_kl_loss", "algorithm.use_kl_in_reward")
        return any(self.get(key) is True for key in keys)

    @property
    def num_rows(self) -> int:
        """Training rows that the run reads. Raises what reading the files raised."""
        scans, skips = self.scans("data.train_files"), self.get("data.on_bad_row") == "skip"
        rows = sum(scan.num_rows - (len(scan.bad) if skips else 0) for scan in scans)
        limit = self.get("data.train_max_samples")
        return min(rows, limit) if isinstance(limit, int) and limit > 0 else rows

    @property
    def epoch_steps(self) -> int:
        """Steps that the run's epochs hold."""
        return int(self.num_rows // self.get("data.train_batch_size") * self.get("trainer.total_epochs"))

    @property
    def num_steps(self) -> int:
        """Steps that the run makes."""
        asked = self.get("trainer.total_training_steps")
        return self.epoch_steps if asked is None else min(asked, self.epoch_steps)

    @property
    def num_demonstrations(self) -> int:
        return sum(scan.num_demonstrations() for scan in self.scans("data.train_files"))

    def facts(self) -> RunFacts:
        """What a part may know of the run. Raises what reading the files raised."""
        steps, rows, demonstrations = self.num_steps, self.num_rows, self.num_demonstrations
        return replace(self.facts_without_data, steps=steps, rows=rows, demonstrations=demonstrations)

    @cached_property
    def facts_without_data(self) -> RunFacts:
        """The same with the paper's numbers of rows and steps, for what does not depend on them."""
        return facts_of(self.config, self.mifo)

    @cached_property
    def model_folder(self) -> Path | None:
        """The model's folder; None where it is only known to the hub, or missing."""
        path = str(self.config.actor_rollout_ref.model.path)
        folder = Path(path).expanduser()
        if folder.is_dir() or not HUB_NAME.fullmatch(path):
            return folder if (folder / "config.json").is_file() else None
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(path, "config.json")
        return Path(cached).parent if isinstance(cached, str) else None

    @cached_property
    def model_config(self) -> Mapping[str, Any]:
        """config.json with the run's ``override_config``. Raises NotChecked without a model, ValueError on bad JSON."""
        if self.model_folder is None:
            raise NotChecked("not checked: the model's folder comes first")
        override = self.get("actor_rollout_ref.model.override_config") or {}
        return read_json(self.model_folder / "config.json") | dict(override)

    @cached_property
    def tokenizer(self) -> Any:
        """The run's tokenizer. Raises NotChecked where it cannot be read, which a check of its own says."""
        if self.model_folder is None:
            raise NotChecked("not checked: the model's folder comes first")
        from transformers import AutoTokenizer

        folder = self.get("actor_rollout_ref.model.tokenizer_path") or self.model_folder
        trusts = bool(self.get("actor_rollout_ref.model.trust_remote_code"))
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trusts)
        except Exception as error:
            raise NotChecked(f"not checked: no tokenizer ({' '.join(str(error).split())[:200]})") from None
        tokenizer.chat_template = self.get("actor_rollout_ref.model.custom_chat_template") or tokenizer.chat_template
        return tokenizer

    def render(
        self, messages: Iterable[Mapping[str, Any]], tokenize: bool, add_generation_prompt: bool = True, **more: Any
    ) -> Any:
        """A conversation under the run's chat template, as verl's agent loop renders a prompt.

        Raises ValueError where the template refuses it, NotChecked without one.
        """
        tokenizer = self.tokenizer
        if not tokenizer.chat_template:
            raise NotChecked("not checked: the chat template comes first")
        try:
            options = dict(self.get(OPTIONS) or {}) | more
            options |= {"add_generation_prompt": add_generation_prompt, "tokenize": tokenize, "return_dict": False}
            return tokenizer.apply_chat_template(list(messages), **options)
        except Exception as error:
            why, cure = " ".join(str(error).split()).replace("; ", ", "), "take the instruct model's, or set"
            raise ValueError(
                f"chat_template must render the prompts ({why}); {cure} actor_rollout_ref.model.custom_chat_template"
            ) from None

    def render_answered(self, prompt: Iterable[Mapping[str, Any]]) -> tuple[str, str]:
        """What stands before and behind an answer to the prompt, as the chat template writes a conversation."""
        answered = [*prompt, {"role": "assistant", "content": "42"}]
        before, _, behind = self.render(answered, tokenize=False, add_generation_prompt=False).rpartition("42")
        return before, behind

    def read(self, setting: str) -> list[RowScan]:
        """The scanned files of a setting. Raises what reading them raised."""
        return self._scans[setting].result()

    def scans(self, setting: str) -> list[RowScan]:
        """The same, for checks that come after the one of the files: raises NotChecked where that one says why."""
        try:
            return self.read(setting)
        except (ValueError, OSError):
            raise NotChecked("not checked: the data's files come first") from None

    @cached_property
    def readable(self) -> list[tuple[str, RowScan]]:
        """(setting, scan) of every file whose setting could be read. Raises NotChecked where neither could."""
        found = []
        for setting in FILES:
            with suppress(NotChecked):
                found += [(setting, scan) for scan in self.scans(setting)]
        if not found:
            raise NotChecked("not checked: the data's files come first")
        return found

    @cached_property
    def reports(self) -> list[FileReport]:
        """The data report of these; the checks of the sample fill in their part."""
        return [report_of(scan, setting) for setting, scan in self.readable]

    def _scan(self, setting: str) -> list[RowScan]:
        if self.get("data.prompt_key") != "prompt":
            raise NotChecked("not checked: data.prompt_key comes first")
        paths = [str(Path(path).expanduser()) for path in paths_of(self.get(setting))]
        for path in paths:
            if not Path(path).exists():
                raise ValueError(f"{setting}={path} must be an existing parquet file; make it with mifo data")
            if not path.endswith(".parquet"):
                raise ValueError(f"{setting}={path} must be a parquet file, by the ending .parquet; write it as one")
            check_columns(path, setting)
        tokens = special_tokens(self.model_folder) if self.model_folder else []
        return [scan_rows(path, tokens, NUM_SAMPLED) for path in paths]


def facts_of(config: DictConfig, mifo: MifoConfig) -> RunFacts:
    """What a part may know of a run, with the paper's numbers of rows and steps."""

    def get(key: str) -> Any:
        return OmegaConf.select(config, key)

    actor, correction = config.actor_rollout_ref.actor, "algorithm.rollout_correction.rollout"
    return RunFacts(
        prompts=get("data.train_batch_size"),
        num_rollouts=get("actor_rollout_ref.rollout.n"),
        mini_batch=actor.ppo_mini_batch_size,
        epochs=actor.ppo_epochs,
        ranks=num_ranks(config),
        prompt_tokens=get("data.max_prompt_length"),
        response_tokens=get("data.max_response_length"),
        temperature=get("actor_rollout_ref.rollout.temperature"),
        algorithm=get("algorithm.adv_estimator"),
        loss_aggregation=actor.loss_agg_mode,
        has_critic=has_critic(config),
        corrects_rollouts=bool(get(f"{correction}_is") or get(f"{correction}_rs")),
        weights_dtype=str(actor.fsdp_config.model_dtype),
        optimizer=str(actor.optim.optimizer),
        lr_schedule=str(actor.optim.lr_scheduler_type),
        has_sft_phases=mifo.schedule.has_sft_phases,
        starts_with_sft=mifo.schedule.starts_with_sft,
        trains_now=mifo.gate.trains_now,
        has_prefixes="demonstrations" in mifo.prefix.needs,
        lora_rank=int(get("actor_rollout_ref.model.lora_rank") or 0),
        colocates_rewards=get("reward.reward_model.enable") is True
        and get("reward.reward_model.enable_resource_pool") is not True,
        filters_groups=get("algorithm.filter_groups.enable") is True,
        sft_optimizer=mifo.sft.optimizer,
        sft_surplus=mifo.sft.surplus,
    )


def num_ranks(config: DictConfig) -> int:
    """Of the actor."""
    return int(config.trainer.n_gpus_per_node) * int(config.trainer.nnodes)


def good_copy(folder: Path, setting: str, number: int) -> Path:
    """The file in a run's folder that holds the good rows of its n-th file, where bad rows are skipped."""
    return folder / "data" / f"{setting.partition('.')[2]}-{number}.parquet"


def in_background(function: Any) -> "Future[Any]":
    """The result of a function that runs in a thread of its own, which never holds up the process's end."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


def paths_of(value: Any) -> list[str]:
    """The files of a setting that takes one or a list."""
    return [str(path) for path in value] if isinstance(value, list | ListConfig) else [str(value)]


def is_offline() -> bool:
    """Whether the model hub may not be asked."""
    return os.environ.get("HF_HUB_OFFLINE") == "1"
