"""A whole trainer without Ray: ours and verl's own classes; what stands in is on the other side of a process."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu

from mifo_verl.compose import composed_defaults
from mifo_verl.run.watchdog import Watchdog
from mifo_verl.verl import replay
from mifo_verl.verl.skipped_updates import MAX_SKIPPED
from mifo_verl.verl.trainer import MifoTrainer
from tests.contract.test_demonstrations import Characters


class Ranks:
    """verl's handle of one rank, which notes what it is asked to do."""

    def __init__(self) -> None:
        self._dispatch_info, self.workers = {"actor": [0]}, []
        self.calls: list[str] = []
        self.keeps_start = True
        self.on_call: Callable[[str], None] = lambda name: None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            self.on_call(name)
            return getattr(self, f"answer_{name}", lambda *_, **__: [None])(*args, **kwargs)

        if name.startswith("answer_"):
            raise AttributeError(name)
        return call

    def answer_rl_step_factor(self, num_updates: int) -> list[float]:
        return [1.0]

    def answer_num_weights(self) -> list[int]:
        return [1000]

    def answer_has_start(self) -> list[bool]:
        return [self.keeps_start]

    def answer_peak_memory_gb(self) -> list[float]:
        return [0.5]

    def answer_weights_sha256(self) -> list[str]:
        return ["ab"]

    def answer_update_sft(self, data: Any) -> Any:
        rows = [(row, 1, 0.5) for row in data["row"].tolist() if row >= 0]
        metrics = {"loss": 0.5, "grad_norm": 1.0, MAX_SKIPPED: [[0]], "mifo_rows": [rows]}
        return tu.get_tensordict({}, {"metrics": metrics})


class Servers:
    """verl's manager of the rollout servers."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def update_weights(self, *_: Any) -> None:
        self.calls.append("update_weights")

    def sleep_replicas(self) -> None:
        self.calls.append("sleep_replicas")


class Dataloader:
    """At its eighth row."""

    def state_dict(self) -> dict[str, int]:
        return {"place": 8}

    def load_state_dict(self, _: Any) -> None:
        return None


@pytest.fixture
def config_of(tmp_path) -> Callable[..., DictConfig]:
    """The quick start's config, resolved."""

    def made(*overrides: str) -> DictConfig:
        values = [one for one in overrides if "." in one.partition("=")[0] or one.startswith("run_dir=")]
        choices = [one for one in overrides if one not in values]
        node = deepcopy(composed_defaults(["experiment=quickstart", *choices]))  # composing takes half a second
        node.merge_with_dotlist([f"run_dir={tmp_path}", *values])
        OmegaConf.resolve(node)
        return node

    return made


@pytest.fixture
def start_trainer(monkeypatch) -> Iterator[Callable[[DictConfig], MifoTrainer]]:
    """Make a trainer of a config, ready to fit."""
    started: list[Watchdog] = []

    def setup(self: Any) -> None:
        self.tokenizer, self.actor_rollout_wg, self.checkpoint_manager = Characters(), Ranks(), Servers()
        self.tokenizer.pad_token_id = 0
        self.train_dataloader, self.train_dataset, self.val_dataset = Dataloader(), [], []
        self.steps_per_epoch, self.total_training_steps, self.timing_raw = 100, 20, {}
        manager = SimpleNamespace(get_replicas=list)
        self.llm_server_manager, self.reward_loop_manager = manager, SimpleNamespace(reward_loop_workers=[])
        self._load_checkpoint()
        self.global_steps, self.ref_in_actor = 0, False

    monkeypatch.setattr(PPOTrainerSync, "_setup", setup)
    monkeypatch.setattr(replay.tq, "kv_put", lambda **_: None)
    monkeypatch.setattr("mifo_verl.verl.watched.actors_of", lambda _: {})

    def started_of(config: DictConfig) -> MifoTrainer:
        trainer = MifoTrainer(config)
        started.append(trainer.watchdog)
        trainer.init()
        return trainer

    yield started_of
    for watchdog in started:
        watchdog.end()


@pytest.fixture
def make_trainer(config_of, start_trainer, tmp_path) -> Callable[..., MifoTrainer]:
    """Make a trainer that is ready to fit, its probes at SFT phases off; what it records is in ``tmp_path``."""
    made: list[MifoTrainer] = []

    def make(*overrides: str) -> MifoTrainer:
        own = [f"run_dir={tmp_path / 'other'}"] if made else []
        config = config_of("mifo.probe.around_sft=false", "mifo.inspect.tokens=false", *own, *overrides)
        made.append(start_trainer(config))
        return made[-1]

    return make


def no_rollouts() -> KVBatchMeta:
    """The batch of a step that made none."""
    return KVBatchMeta(partition_id="train", keys=[replay.NO_ROLLOUTS], tags=[{"is_padding": True}])
