"""No setting that README or docs name is dead: it exists, something reads it, and those of the loss change the loss."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.utils.losses import ppo_loss

import mifo_verl
from mifo_verl.compose import compose_config, config_folder
from mifo_verl.errors import RENAMED

ROOT = Path(__file__).parents[2]
ACTOR = "actor_rollout_ref.actor"
_NAME = re.compile(
    r"\b(?:data|actor_rollout_ref|algorithm|trainer|reward|critic|mifo|ray_kwargs)(?:\.[a-z]\w*)+(?![\w/]|\.\w|=<part>)"
)
_FILES = ("md", "py", "yaml", "json", "jsonl", "pt", "parquet", "html")


def named() -> list[str]:
    """Every setting that README and docs name; a group alone, such as mifo.probe, is none."""
    found: set[str] = set()
    for file in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        found |= set(_NAME.findall(file.read_text()))
    return sorted(
        name
        for name in found
        if name.rpartition(".")[2] not in _FILES and name.split(".")[1] not in RENAMED and not _is_group(name)
    )


def _configs() -> list:
    start = ["experiment=quickstart"]
    schedules = [file.stem for file in (config_folder() / "mifo" / "schedule").glob("*.yaml")]
    return [compose_config([*start, f"mifo/schedule={name}"]).node for name in schedules]


CONFIGS = _configs()


def _is_group(name: str) -> bool:
    return any(OmegaConf.is_dict(OmegaConf.select(config, name)) for config in CONFIGS)


def _words(folder: Path, skipped: str) -> set[str]:
    """Every attribute and every text of the Python files: what code can read a setting by."""
    found: set[str] = set()
    for file in folder.rglob("*.py"):
        if skipped not in str(file):
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
    """What our code and verl's reads; the classes that only keep a setting do not count, nor does our check of its range."""
    verl = Path(find_spec("verl").origin).parent
    ours = Path(mifo_verl.__file__).parent
    return _words(verl, "/workers/config/") | _words(ours, "/checks/ranges")


@pytest.mark.parametrize("name", named())
def test_a_setting_that_the_documentation_names_exists_and_is_read(name, words):
    parent, _, key = name.rpartition(".")
    nodes = [OmegaConf.select(config, parent) for config in CONFIGS]
    takes_any = "kwargs" in parent
    parts = parent.startswith("mifo.") and (config_folder() / parent.replace(".", "/")).is_dir()
    assert takes_any or parts or any(OmegaConf.is_dict(node) and key in node for node in nodes), (
        f"{name} does not exist"
    )
    assert key in words, f"nothing reads {name}"


def test_a_setting_that_nobody_reads_would_be_found(words):
    assert "grad_clip" not in words and {"clip_grad", "save_freq", "keep_best"} <= words


def loss_of(*overrides: str) -> float:
    """verl's own policy loss of two responses, three tokens each, under a config that is composed as a run's."""
    node = compose_config(["experiment=quickstart", *overrides]).node
    config = omega_conf_to_dataclass(node.actor_rollout_ref.actor)

    def jagged(rows: list, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.nested.as_nested_tensor([torch.tensor(row, dtype=dtype) for row in rows], layout=torch.jagged)

    new, old = [[-0.1, -1.0, -2.0], [-0.2, -3.0]], [[-0.5, -1.0, -1.5], [-0.9, -0.1]]
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
    # the second response's first token is 20 times as likely as before, where dual clip ends the loss
    new[1][0] = 2.1
    tu.assign_non_tensor(data, dp_size=1, batch_num_tokens=5, global_batch_size=2)
    output = {
        "log_probs": jagged([[*row, 0.0] for row in new]),
        "entropy": jagged([[1.0, 2.0, 1.5, 0.0], [0.5, 1.0, 0.0]]),
    }
    return float(ppo_loss(config, output, data)[0])


@pytest.mark.parametrize(
    "change",
    [
        [f"{ACTOR}.clip_ratio=0.1"],
        [f"{ACTOR}.clip_ratio_low=0.1"],
        [f"{ACTOR}.clip_ratio_high=0.4"],
        [f"{ACTOR}.clip_ratio_c=10"],
        [f"{ACTOR}.entropy_coeff=0.1"],
        [f"{ACTOR}.use_kl_loss=true"],
        [f"{ACTOR}.loss_agg_mode=token-mean"],
        [f"{ACTOR}.loss_scale_factor=7"],
        ["rl=dapo"],
        ["data.max_response_length=100"],  # Dr. GRPO divides by it
    ],
    ids=lambda change: change[0],
)
def test_a_setting_of_the_loss_changes_verls_loss(change):
    assert loss_of(*change) != loss_of()


@pytest.mark.parametrize("change", [f"{ACTOR}.kl_loss_coef=0.1", f"{ACTOR}.kl_loss_type=k1"])
def test_a_setting_of_the_kl_changes_a_loss_with_one(change):
    assert loss_of("rl=grpo", change) != loss_of("rl=grpo")


def test_clip_ratio_is_both_sides_and_dapos_sides_stay_its_own():
    both = [f"{ACTOR}.clip_ratio_low=0.3", f"{ACTOR}.clip_ratio_high=0.3"]
    assert loss_of(f"{ACTOR}.clip_ratio=0.3") == loss_of(*both)
    actor = compose_config(["experiment=quickstart", "rl=dapo"]).node.actor_rollout_ref.actor
    assert (actor.clip_ratio_low, actor.clip_ratio_high, actor.clip_ratio_c) == (0.2, 0.28, 10.0)
