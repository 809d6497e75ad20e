"""No setting that is offered is dead: it exists, something reads it, and changing it changes a number of the run.

``CHANGES`` is the table: setting, another value than the quick start's, and the number that differs. Settings of parts
have a table of their own, ``tests/unit/test_part_settings.py``, and those of an update are changed on the engine itself,
``tests/integration/test_engine.py``.
"""

import ast
import json
import re
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils import hf_tokenizer
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.tracking import Tracking
from verl.workers.utils.losses import ppo_loss

import mifo_verl
from mifo_verl.checks import memory, preflight
from mifo_verl.checks.engine import check_adapter
from mifo_verl.checks.findings import Findings
from mifo_verl.checks.run import Run
from mifo_verl.compose import ComposedConfig, composed_defaults, config_folder
from mifo_verl.config import MifoConfig, build_config
from mifo_verl.data.parquet import write_rows
from mifo_verl.errors import RENAMED
from mifo_verl.loop.inputs import Rollout
from mifo_verl.probes import rollouts
from mifo_verl.probes.held_out import held_out
from mifo_verl.probes.probes import Probes
from mifo_verl.probes.rollouts import RolloutProbe
from mifo_verl.run.watchdog import CannotGoOn
from mifo_verl.tools.prepare.addition import rows
from mifo_verl.types import SftExample
from mifo_verl.verl.actor import Actor
from mifo_verl.verl.adapter import ADAPTER_LR, prepare_model
from mifo_verl.verl.skipped_updates import MAX_SKIPPED
from tests.contract import test_probes, test_rollout_probe
from tests.contract.test_trainer import fill, step
from tests.integration.test_engine import CHANGED
from tests.unit.test_part_settings import CASES

ROOT = Path(__file__).parents[2]
ACTOR = "actor_rollout_ref.actor"
_NAME = re.compile(
    r"\b(?:data|actor_rollout_ref|algorithm|trainer|reward|critic|mifo|ray_kwargs)(?:\.[a-z]\w*)+(?![\w/]|\.\w|=<part>)"
)
_FILES = ("md", "py", "yaml", "json", "jsonl", "pt", "parquet", "html")


_SHORT = re.compile(r"`(\.[a-z]\w*(?:\.\w+)*)(?:=[^`]*)?`")


def composed(*choices: str) -> DictConfig:
    """The quick start's config, not resolved."""
    return deepcopy(composed_defaults(["experiment=quickstart", *choices]))


CONFIGS = [composed(f"mifo/schedule={file.stem}") for file in (config_folder() / "mifo" / "schedule").glob("*.yaml")]


def named() -> list[str]:
    """Every setting that README and docs name, in full or as ``.history`` behind ``mifo.constraint.share``; a group
    alone, such as mifo.probe, is none, and ``mifo.<group>.name`` is the choice of a part.
    """
    found: set[str] = set()
    for file in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for line in file.read_text().splitlines():
            full = ""
            for match in re.finditer(f"{_NAME.pattern}|{_SHORT.pattern}", line):
                full = match[0] if match[1] is None else _whole(full, match[1])
                found.add(full)
    return sorted(
        name
        for name in found - {""}
        if name.rpartition(".")[2] not in (*_FILES, "name")
        and name.split(".")[1] not in RENAMED
        and not _is_group(name)
    )


def _whole(before: str, short: str) -> str:
    """A short name behind a full one: beside it, or beside one of the groups that it is in; empty if there is none."""
    groups = [before.rsplit(".", number)[0] for number in range(1, before.count(".") + 1)]
    return next((group + short for group in groups if any(_exists(config, group + short) for config in CONFIGS)), "")


def _exists(config: DictConfig, name: str) -> bool:
    group, _, key = name.rpartition(".")
    return OmegaConf.is_dict(node := OmegaConf.select(config, group)) and key in node


def _is_group(name: str) -> bool:
    return any(OmegaConf.is_dict(OmegaConf.select(config, name)) for config in CONFIGS)


def _words(folder: Path, *skipped: str) -> set[str]:
    """Every attribute and every text of the Python files: what code can read a setting by."""
    found: set[str] = set()
    for file in folder.rglob("*.py"):
        if not any(part in str(file) for part in skipped):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                    found.add(node.attr)
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found |= set(node.value.split("."))
                if isinstance(node, ast.arg):
                    found.add(node.arg)  # reward_kwargs and engine_kwargs are passed on by name
    return found


@pytest.fixture(scope="module")
def words() -> set[str]:
    """What our code and verl's reads; the classes that only keep a setting do not count, nor do our checks of its range, and of what
    is not read."""
    verl = Path(find_spec("verl").origin).parent
    ours = Path(mifo_verl.__file__).parent
    return _words(verl, "/workers/config/") | _words(ours, "/checks/ranges", "/checks/unread")


@pytest.mark.parametrize("name", named())
def test_a_setting_that_the_documentation_names_exists_and_is_read(name, words):
    parent, _, key = name.rpartition(".")
    takes_any = "kwargs" in parent
    parts = parent.startswith("mifo.") and (config_folder() / parent.replace(".", "/")).is_dir()
    assert takes_any or parts or any(_exists(config, name) for config in CONFIGS), f"{name} does not exist"
    assert key in words, f"nothing reads {name}"


def test_a_setting_that_nobody_reads_would_be_found(words):
    assert "grad_clip" not in words and {"clip_grad", "save_freq", "keep_best"} <= words


# ---------------------------------------------------------------------- the numbers


@dataclass
class Place:
    """Where a number is taken: an empty folder, and what makes a trainer of a config."""

    folder: Path
    trainer: Callable[[DictConfig], Any]
    patch: pytest.MonkeyPatch


Number = Callable[[DictConfig, Place], Any]


def mifo(config: DictConfig) -> MifoConfig:
    return build_config(OmegaConf.to_container(config.mifo, resolve=True))


def jagged(of_rows: list, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row, dtype=dtype) for row in of_rows], layout=torch.jagged)


def loss(config: DictConfig, place: Place) -> float:
    """verl's own policy loss of two responses, three tokens and two."""
    # the second response's first token is 20 times as likely as before, where dual clip ends the loss
    new, old = [[-0.1, -1.0, -2.0], [2.1, -3.0]], [[-0.5, -1.0, -1.5], [-0.9, -0.1]]
    data = TensorDict(
        {
            "prompts": jagged([[1], [1]], torch.long),
            "responses": jagged([[1, 1, 1], [1, 1]], torch.long),
            "response_mask": jagged([[1, 1, 1], [1, 1]], torch.long),
            "old_log_probs": jagged(old),
            "advantages": jagged([[1.0, 1.0, 1.0], [-1.5, -1.5]]),
            "ref_log_prob": jagged([[-0.3, -0.8, -2.5], [-3.0, -1.1]]),
        },
        batch_size=[2],
    )
    tu.assign_non_tensor(data, dp_size=1, batch_num_tokens=5, global_batch_size=2)
    output = {
        "log_probs": jagged([[*row, 0.0] for row in new]),
        "entropy": jagged([[1.0, 2.0, 1.5, 0.0], [0.5, 1.0, 0.0]]),
    }
    return float(ppo_loss(omega_conf_to_dataclass(config.actor_rollout_ref.actor), output, data)[0])


def data(config: DictConfig, place: Place) -> Any:
    """What verl reads of the data sets, and the steps that it makes of them."""
    for name, sizes in (("train", {1: 12, 3: 8}), ("other", {2: 9}), ("validation", {1: 6})):
        write_rows(rows(sizes, "train", seed=0), place.folder / f"{name}.parquet")
    for key in ("train_files", "val_files"):
        config.data[key] = str(place.folder / Path(config.data[key]).name)
    trainer = SimpleNamespace(config=config, processor=None, trainer_mode="sync", parameter_sync_step=1)
    trainer.tokenizer = hf_tokenizer(config.actor_rollout_ref.model.path)
    PPOTrainer._init_dataloader(trainer)
    first = next(iter(trainer.train_dataloader))["raw_prompt"].tolist()
    return len(trainer.train_dataset), len(trainer.val_dataset), trainer.total_training_steps, first


def update(config: DictConfig, place: Place) -> Any:
    """What verl tells the ranks of an RL update."""
    told: dict[str, Any] = {}
    ranks = SimpleNamespace(update_actor=lambda batch: told.update(batch.extra_info) or {"metrics": {"mfu": [1.0]}})
    trainer = SimpleNamespace(config=config, actor_rollout_wg=ranks)
    PPOTrainer._update_actor(trainer, KVBatchMeta(partition_id="train", keys=[], tags=[]), {})
    return told


def ranks(config: DictConfig, place: Place) -> Any:
    """The processes that verl asks Ray for, node by node, and what they are."""
    trainer = SimpleNamespace(config=config)
    PPOTrainer._init_resource_pool_mgr(trainer)
    return trainer.resource_pool_manager.resource_pool_spec, sorted(role.name for role in trainer.role_worker_mapping)


def predicted(config: DictConfig, place: Place) -> Any:
    """Bytes by component; ``wider`` is the start model with twice as many layers."""
    if config.actor_rollout_ref.model.path == "wider":
        model = place.folder / "wider"
        shutil.copytree(composed().actor_rollout_ref.model.path, model)
        settings = json.loads((model / "config.json").read_text())
        settings["num_hidden_layers"] *= 2
        (model / "config.json").write_text(json.dumps(settings | {"layer_types": None}))
        config.actor_rollout_ref.model.path = str(model)
    write_rows(rows({1: 12, 3: 8}, "train", seed=0), place.folder / "train.parquet")
    config.data.train_files = str(place.folder / "train.parquet")
    return memory.prediction(Run(config, []))


def refused(config: DictConfig, place: Place) -> Any:
    """What the check of an adapter says."""
    check_adapter(Run(config, []), found := Findings())
    return [str(error) for error in found.errors()]


def prepared(config: DictConfig, place: Place) -> Any:
    """The commands that make the data."""
    commands: list[Any] = []
    ran = SimpleNamespace(returncode=0)
    place.patch.setattr(preflight.subprocess, "run", lambda command: commands.append(command[-2]) or ran)
    config.data.train_files = str(place.folder / "missing.parquet")
    preflight.prepare_data(config)
    return commands


def environment(config: DictConfig, place: Place) -> Any:
    return ComposedConfig(config).environment()


def checkpoints(config: DictConfig, place: Place) -> Any:
    return config.trainer.default_local_dir


def trackers(config: DictConfig, place: Place) -> Any:
    place.patch.setenv("TENSORBOARD_DIR", str(place.folder))
    return sorted(Tracking("project", "name", list(config.trainer.logger), config=None).logger)


def verdict(config: DictConfig, place: Place) -> Any:
    return get_custom_reward_fn(config)(data_source="x", solution_str="7", ground_truth="7")


def adapter(config: DictConfig, place: Place) -> Any:
    prepare_model(config.actor_rollout_ref.model, mifo(config))
    return config.actor_rollout_ref.model.lora[ADAPTER_LR]


def phase(config: DictConfig, place: Place) -> Any:
    """The updates of an SFT phase, of five demonstrations in the buffer; None if none is due."""
    trainer = place.trainer(config)
    fill(trainer, "q1", "q2", "q3", "q4", "q5")
    trainer.loop.rl_ended()
    if trainer.loop.next_phase().value != "sft":
        return None
    trainer.loop.begin_sft(None, None, None)
    return [[entry.example.prompt_id for entry in batch] for batch in trainer.loop.batches()]


def rates(config: DictConfig, place: Place) -> Any:
    """The learning rates of the two updates of such a phase."""
    trainer = place.trainer(config)
    fill(trainer, "q1", "q2", "q3", "q4", "q5")
    trainer.sft.begin({})
    return [update.lr for update in trainer.sft.run(lambda: False, {}).updates]


def solved(config: DictConfig, place: Place) -> Any:
    """Which of three prompts are remembered as solved: 8, 6 and 8 of 8 rollouts are right."""
    loop = place.trainer(config).loop
    loop.begin_step()
    uids = loop.draw((name, {}) for name in ("a", "b", "c"))
    right = dict(zip(uids, (8, 6, 8), strict=True))
    loop.count((Rollout(uid, n, 0, int(n < right[uid])) for uid in uids for n in range(8)), {uid: [1] for uid in uids})
    return list(loop.state.solved)


def own(config: DictConfig, place: Place) -> Any:
    """How many of an interval's ten correct rollouts are kept for its SFT phase."""
    loop = place.trainer(config).loop
    loop.begin_step()
    uids = loop.draw((name, {}) for name in "abcde")
    counted = (Rollout(uid, n, 0, 1) for uid in uids for n in range(2))
    loop.count(counted, {uid: [1] for uid in uids}, lambda chosen: [([1], [2])] * len(chosen))
    return len(loop.state.own_rollouts)


def inspected(config: DictConfig, place: Place) -> Any:
    """What an SFT phase looks at: the ranks' masks, and the tokens of three demonstrations."""
    trainer = place.trainer(config)
    fill(trainer, "q1", "q2", "q3")
    trainer.sft.begin({})
    tokens = trainer.loop.state.sft.tokens
    for name in ("q1", "q2", "q3") if tokens else ():
        tokens.add(SftExample(name, (1,), tuple(range(9)), "ab"), [0.5] * 9, [True] * 9)
    trainer.mifo.inspect.tokens or trainer.sft.run(lambda: False, {})
    return tokens and tokens.examples, "inspect_sft" in trainer.actor_rollout_wg.calls


def spent(config: DictConfig, place: Place) -> Any:
    """The steps of a run whose first has spent 18,000 FLOPs and skipped four updates in a row; None if it fails."""
    trainer = place.trainer(config)
    fill(trainer, "q1")
    trainer.loop.state.rl_steps = 1
    try:
        step(trainer, **{f"critic/{MAX_SKIPPED}": 4.0})
    except CannotGoOn:
        return None
    return trainer.total_training_steps


def probed(config: DictConfig, place: Place) -> Any:
    """What is measured on around a phase, and in which intervals."""
    probe, policy = mifo(config).probe, test_probes.Model()
    prompts = test_probes.PROMPTS

    def made(name: str) -> dict[str, Any]:
        return test_probes.row(name, f"{name}?") | {"id": name, "data_source": "x"}

    training = test_probes.Table([made(name) for name in ("h1", "h2", "h3")])
    validation = test_probes.Table([made(f"v{number}") for number in range(90)])
    if probe.demonstration_file:
        write_rows([made("o")], place.folder / probe.demonstration_file)
        probe = replace(probe, demonstration_file=str(place.folder / probe.demonstration_file))
    found = held_out(probe, training, validation, prompts.render, prompts.build, 5, lambda *_: None)
    before = Probes(probe, found, policy.measured(), test_probes.LoopState()).before_sft(
        [test_probes.entry(name) for name in ("h1", "h2", "h3")]
    )
    due = [probe.is_due(interval) for interval in (1, 2)]
    return len(found.rows), [one.prompt_id for one in found.demonstrations], before.hard, len(before.rollouts), due


def kl_to_start(config: DictConfig, place: Place) -> Any:
    """The rollouts on which the KL to the start is taken, of 20."""
    place.patch.setattr(rollouts, "tq", test_rollout_probe.Queue())
    place.patch.setattr(rollouts, "response_from_nested", lambda values, mask: test_rollout_probe.KEPT)
    of_ranks = test_rollout_probe.Ranks(True)
    actor = Actor(of_ranks, SimpleNamespace(use_dynamic_bsz=True), pad_token_id=0)
    probe = RolloutProbe(mifo(config).probe, actor, test_rollout_probe.ROLLOUT, False, lambda *_: None)
    probe.measure(test_rollout_probe.batch(*map(str, range(20))), {}, {})
    return of_ranks.asked


OF_TRAINER = {"mifo.probe.around_sft": False}
ALONE = OF_TRAINER | {"mifo.schedule.size": 1, "mifo.sft.optimizer": "shared"}
SMALL = OF_TRAINER | {"mifo.schedule.size": 3, "mifo.sft.batch_size": 4}
SCHEDULED = SMALL | {"mifo.inspect.tokens": False}
FSDP, ROLLOUT = f"{ACTOR}.fsdp_config", "actor_rollout_ref.rollout"
MERGE = "actor_rollout_ref.model.lora.merge"
KL = {f"{ACTOR}.use_kl_loss": True}
# setting: another value than the quick start's, the number that differs, and what else has to be set for it to count
CHANGES: dict[str, tuple[Any, Number, dict[str, Any]] | tuple[Any, Number]] = {
    f"{ACTOR}.clip_ratio": (0.1, loss),
    f"{ACTOR}.clip_ratio_low": (0.1, loss),
    f"{ACTOR}.clip_ratio_high": (0.4, loss),
    f"{ACTOR}.clip_ratio_c": (10, loss),
    f"{ACTOR}.entropy_coeff": (0.1, loss),
    f"{ACTOR}.use_kl_loss": (True, loss),
    f"{ACTOR}.kl_loss_coef": (0.1, loss, KL),
    f"{ACTOR}.kl_loss_type": ("k1", loss, KL),
    f"{ACTOR}.loss_agg_mode": ("token-mean", loss),
    f"{ACTOR}.loss_scale_factor": (7, loss),
    "data.max_response_length": (100, loss),  # Dr. GRPO divides by it
    "data.train_files": ("other.parquet", data, {"data.train_batch_size": 4}),
    "data.val_files": ("other.parquet", data, {"data.train_batch_size": 4}),
    "data.max_prompt_length": (14, data, {"data.train_batch_size": 4, "data.filter_overlong_prompts": True}),
    "data.train_batch_size": (2, data, {"data.train_batch_size": 4, "trainer.total_training_steps": None}),
    "trainer.total_epochs": (2, data, {"data.train_batch_size": 4, "trainer.total_training_steps": None}),
    "trainer.total_training_steps": (7, data, {"data.train_batch_size": 4}),
    "seed": (1, data, {"data.train_batch_size": 4}),
    f"{ACTOR}.ppo_mini_batch_size": (4, update),
    f"{ROLLOUT}.n": (4, update),
    f"{ROLLOUT}.temperature": (0.7, update),
    "trainer.n_gpus_per_node": (4, ranks),
    "trainer.nnodes": (2, ranks),
    "actor_rollout_ref.model.lora_rank": (4, ranks, KL),
    "actor_rollout_ref.model.path": ("wider", predicted),
    f"{ACTOR}.ppo_max_token_len_per_gpu": (64, predicted),
    MERGE: (False, refused, {"actor_rollout_ref.model.lora_rank": 4, MERGE: True}),
    "mifo.state.device": ("host", predicted, {"trainer.device": "cuda"}),
    f"{FSDP}.param_offload": (True, predicted),
    f"{FSDP}.optimizer_offload": (True, predicted),
    "trainer.save_freq": (1, predicted, {"data.train_batch_size": 4}),
    "trainer.logger": (["console"], trackers),
    "reward.custom_reward_function.path": ("pkg://mifo_verl.rewards.exact", verdict),
    "prepare": (None, prepared),
    "env": ({"OMP_NUM_THREADS": "2"}, environment),
    "name": ("other", checkpoints),
    "run_dir": ("other", checkpoints),
    "mifo.mixing.adapter_lr": (0.1, adapter, {"mifo.mixing": {"name": "bilevel"}}),
    "buffer_size": (5, phase, OF_TRAINER | {"mifo.sft.batch_size": 4}),
    "mifo.sft.lr_scheduler_type": ("linear", rates, SCHEDULED),
    "mifo.sft.lr_warmup_steps_ratio": (0.8, rates, SCHEDULED),
    "mifo.sft.min_lr_ratio": (0.5, rates, SCHEDULED | {"mifo.sft.lr_scheduler_type": "cosine"}),
    "mifo.sft.batch_size": (2, phase, SMALL),
    "mifo.sft.passes": (2, phase, SMALL),
    "mifo.sft.cut": ("full", phase, SMALL),
    "mifo.sft.surplus": ("keep", phase, SMALL),
    "mifo.sft.own_rollouts": (4, own, OF_TRAINER | {"mifo.constraint": {"name": "kl_rollouts"}}),
    "mifo.probe.solved": (1, solved, OF_TRAINER),
    "mifo.probe.solved_accuracy": ("3/4", solved, OF_TRAINER),
    "mifo.inspect.mask": (False, inspected, ALONE | {"mifo.inspect.tokens": False}),
    "mifo.inspect.tokens": (False, inspected, ALONE),
    "mifo.inspect.examples": (1, inspected, ALONE),
    "mifo.inspect.example_tokens": (4, inspected, ALONE),
    "mifo.budget.flops": (
        18_000,
        spent,
        ALONE | {"mifo.inspect.tokens": False, "mifo.watchdog.max_skipped_updates": 4},
    ),
    "mifo.watchdog.max_skipped_updates": (4, spent, ALONE | {"mifo.inspect.tokens": False}),
    "mifo.probe.around_sft": (False, probed),
    "mifo.probe.every": (2, probed),
    "mifo.probe.prompts": (7, probed),
    "mifo.probe.hard": (2, probed),
    "mifo.probe.demonstrations": (3, probed),
    "mifo.probe.demonstration_file": ("other.parquet", probed),
    "mifo.probe.rollouts": (1, probed),
    "mifo.probe.kl_to_start": (False, kl_to_start),
    "mifo.probe.kl_rollouts": (4, kl_to_start),
}
SHOWN_BY = {
    "mifo.sft.max_kl": "tests/contract/test_own_rollouts.py::test_a_phase_within_its_budget_makes_every_update",
    "mifo.checkpoint.keep_last": "tests/unit/test_checkpoint_store.py::test_the_newest_and_the_best_are_kept",
    "mifo.checkpoint.keep_best": "tests/unit/test_checkpoint_store.py::test_the_newest_and_the_best_are_kept",
    "mifo.checkpoint.save_final": "tests/contract/test_saving.py::test_the_end_is_saved_once_and_only_if_it_is_wanted",
    "mifo.checkpoint.on_failed_save": "tests/contract/test_saving.py::test_a_run_that_is_to_stop_there_does",
    "mifo.watchdog.factor": "tests/contract/test_stages.py::test_each_patience_says_when_a_stage_is_late",
    "mifo.watchdog.floor_seconds": "tests/contract/test_stages.py::test_each_patience_says_when_a_stage_is_late",
    "mifo.watchdog.first_seconds": "tests/contract/test_stages.py::test_each_patience_says_when_a_stage_is_late",
    "mifo.watchdog.limit_seconds": "tests/contract/test_stages.py::test_each_patience_says_when_a_stage_is_late",
    "mifo.watchdog.stopped_seconds": "tests/integration/test_watchdog.py::test_a_stopped_actor_is_named_within_two_steps",
    "mifo.watchdog.max_rollout_difference": "tests/contract/test_trainer.py"
    "::test_a_rollout_server_with_other_probabilities_ends_the_run_before_its_update",
    "mifo.inspect.rollouts": "tests/integration/test_run.py::test_as_many_rollouts_of_a_step_are_kept_as_are_asked_for",
    "trainer.resume_mode": "tests/contract/test_saving.py::test_verl_is_told_the_checkpoint_that_is_resumed",
    "trainer.resume_from_path": "tests/configs/test_resume.py::test_the_check_reads_the_checkpoint_that_is_named",
    "mifo.config_dirs": "tests/configs/test_own_folders.py::test_a_relative_folder_is_kept_as_an_absolute_one",
    "reward.custom_reward_function.reward_kwargs.require_think": "tests/unit/test_reward_by_source.py"
    "::test_require_think_makes_an_answer_without_the_tag_wrong",
    "data.on_bad_row": "tests/configs/test_check.py::test_skipped_rows_are_left_out_of_a_copy_that_the_run_reads",
    "restarts": "tests/contract/test_saving.py::test_a_restart_before_the_first_save_goes_on",
}
"""Settings that only a whole process shows: the test that does."""
ON_GPUS_ALONE = {f"{ROLLOUT}.gpu_memory_utilization"}
"""verl's vLLM server reads it, and there is none on a CPU."""
EXAMPLES = {"mifo.sft_loss.gamma"}
"""Of a part that docs/extend.md has the reader write."""


@pytest.fixture
def number_of(start_trainer, tmp_path, monkeypatch) -> Callable[..., Any]:
    """The number of a setting, in a folder that is as empty as before the last one was taken."""
    folder = tmp_path / "place"

    def taken(setting: str, **changed: Any) -> Any:
        _, number, *beside = CHANGES[setting]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        config = composed()
        if setting != "name":
            config.run_dir = str(folder / "run")
        for key, value in {**(beside[0] if beside else {}), **changed}.items():
            OmegaConf.update(config, key, value, merge=False, force_add=True)
        OmegaConf.resolve(config)
        return number(config, Place(folder, start_trainer, monkeypatch))

    return taken


@pytest.mark.parametrize("setting", CHANGES)
def test_another_value_of_a_setting_changes_the_number_that_it_is_there_for(setting, number_of):
    assert number_of(setting) != number_of(setting, **{setting: CHANGES[setting][0]})


@pytest.mark.parametrize("setting", {one[1].__name__: name for name, one in CHANGES.items()}.values())
def test_the_number_itself_is_the_same_each_time(setting, number_of):
    assert number_of(setting) == number_of(setting)


def test_every_setting_that_is_offered_or_named_has_a_number_or_a_test():
    sections = ("sft", "probe", "inspect", "checkpoint", "watchdog", "budget")
    kinds = {field.name: field.type for field in fields(MifoConfig) if field.name in sections}
    offered = {f"mifo.{name}.{field.name}" for name, kind in kinds.items() for field in fields(kind)}
    own = {"name", "seed", "buffer_size", "run_dir", "restarts", "prepare", "env"}  # trainer_configs/mifo.yaml
    of_parts = {f"mifo.{part.partition('/')[0]}.{setting}" for part, setting, _ in CASES}
    on_the_engine = {setting for changed in CHANGED.values() for setting in changed}
    covered = CHANGES.keys() | SHOWN_BY.keys() | of_parts | on_the_engine | ON_GPUS_ALONE | EXAMPLES
    assert offered | own | set(named()) <= covered


@pytest.mark.parametrize(("setting", "test"), SHOWN_BY.items())
def test_the_test_that_shows_a_setting_is_there_and_sets_it(setting, test):
    file, _, name = test.partition("::")
    text = (ROOT / file).read_text()
    assert f"def {name}" in text and setting.rpartition(".")[2] in text


def test_clip_ratio_is_both_sides_and_dapos_sides_stay_its_own():
    place = Place(Path(), lambda _: None, pytest.MonkeyPatch())
    both, low_and_high = composed(), composed()
    both.merge_with_dotlist([f"{ACTOR}.clip_ratio=0.3"])
    low_and_high.merge_with_dotlist([f"{ACTOR}.clip_ratio_low=0.3", f"{ACTOR}.clip_ratio_high=0.3"])
    assert loss(both, place) == loss(low_and_high, place)
    actor = composed("rl=dapo").actor_rollout_ref.actor
    assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.clip_ratio_c) == (0.2, 0.28, 10.0)
