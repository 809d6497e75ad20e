"""Every experiment, method and RL algorithm composes on verl's own config and builds."""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from verl.utils.config import omega_conf_to_dataclass

from mifo_verl.compose import compose_config, config_folder
from mifo_verl.config import build_config
from mifo_verl.method.anchor import Ewc, KlAnchor
from mifo_verl.method.bilevel import Bilevel
from mifo_verl.method.constraint import NoConstraint
from mifo_verl.method.gate import AnyPrompt, Hpt, MaxAccuracy, Now, RandomGate
from mifo_verl.method.hint import Annealed
from mifo_verl.method.importance import AbsChange, RandomImportance
from mifo_verl.method.mask import StrictMask
from mifo_verl.method.mixing import Chord, Constant, NoMixing, Progressive
from mifo_verl.method.off_policy import NotTrained, Ratio, Shaped, Supervised
from mifo_verl.method.on_policy import LogLikelihood, Verls
from mifo_verl.method.prefix import NoPrefix, Random, Staged, Whole
from mifo_verl.method.schedule import Always, Every, Never, SftThenRl, WhenFull
from mifo_verl.method.sft_loss import ChordPhi, Nll, SequenceEntropy, TrSft
from mifo_verl.method.token_selection import AllTokens, RandomTokens, TopEntropy
from mifo_verl.tools.methods import BEGIN, END, FITS, Method
from mifo_verl.tools.methods import text as what_is_said
from mifo_verl.tools.schemas import put
from tests.configs.mistakes import Mistake, messages_of

MODEL = "actor_rollout_ref.model.path=some/model"


SIZES = {
    "mifo": (128, 1e-6, None),
    "luffy": (128, 1e-6, None),
    "hpt": (128, 5e-6, 500),
    "srft": (128, 1e-6, 500),
    "uft": (128, 1e-6, 500),
    "chord_mu": (32, 1e-6, None),
    "chord_phi": (32, 1e-6, None),
    "srl": (512, 5e-7, None),
    **dict.fromkeys(("bridge_qwen25_3b", "bridge_llama32_3b", "bridge_qwen3_8b"), (64, 5e-7, None)),
}
"""Prompts a batch, learning rate and steps that the papers name."""
BRIDGE = {
    "bridge_qwen25_3b": (64, 5, 3072, 4, True, 16, 16),
    "bridge_llama32_3b": (64, 5, 3072, 4, True, 16, 16),
    "bridge_qwen3_8b": (64, 8, 8192, 8, True, 16, 16),
}
"""Prompts a mini-batch, rollouts a prompt, response tokens, GPUs, whether there is a KL, LoRA's rank and alpha."""


def names(group: str) -> list[str]:
    return sorted(file.stem for file in (config_folder() / group).glob("*.yaml"))


def mifo_of(*overrides: str):
    return build_config(OmegaConf.to_container(compose_config([MODEL, *overrides]).node.mifo))


@pytest.mark.parametrize("experiment", names("experiment"))
def test_every_experiment_composes_and_builds(experiment):
    node = compose_config([MODEL, f"experiment={experiment}"]).node
    build_config(OmegaConf.to_container(node.mifo))
    assert node.name == experiment and Path(node.run_dir).name == experiment
    sizes = (node.data.train_batch_size, node.actor_rollout_ref.actor.optim.lr, node.trainer.total_training_steps)
    assert sizes == SIZES.get(experiment, sizes)
    model, actor, rollout = (node.actor_rollout_ref[part] for part in ("model", "actor", "rollout"))
    more = (actor.ppo_mini_batch_size, rollout.n, node.data.max_response_length, node.trainer.n_gpus_per_node)
    more += (actor.use_kl_loss, model.lora_rank, model.lora_alpha)
    assert more == BRIDGE.get(experiment, more)


S = WhenFull(26)  # the quick start's
METHODS = {
    "mifo": (MaxAccuracy("1/8"), TopEntropy(0.2), S, AbsChange(), StrictMask(0.5, 0.5)),
    "mifo_dagger": (MaxAccuracy("1/8"), TopEntropy(0.2), S, AbsChange(), StrictMask(0.5, 0)),
    "interleave": (MaxAccuracy(0), AllTokens(), S, AbsChange(), NoConstraint()),
    "interleave_entropy": (MaxAccuracy("1/8"), TopEntropy(0.2), S, AbsChange(), NoConstraint()),
    "interleave_freezing": (MaxAccuracy("1/8"), AllTokens(), S, AbsChange(), StrictMask(0.5, 0.5)),
    "rl_only": (MaxAccuracy("1/8"), TopEntropy(0.2), Never(), AbsChange(), NoConstraint()),
    "sft_only": (MaxAccuracy("1/8"), AllTokens(), Always(), AbsChange(), NoConstraint()),
    "sft_then_rl": (MaxAccuracy("1/8"), AllTokens(), SftThenRl(100), AbsChange(), NoConstraint()),
    "random_mask": (MaxAccuracy("1/8"), TopEntropy(0.2), S, RandomImportance(0), StrictMask(0.5, 0)),
    "ewc": (MaxAccuracy("1/8"), AllTokens(), S, AbsChange(), Ewc(100.0)),
    "kl_anchor": (MaxAccuracy("1/8"), AllTokens(), S, AbsChange(), KlAnchor(0.1)),
    "naive_alternating": (AnyPrompt(), AllTokens(), Every(1), AbsChange(), NoConstraint()),
    "random_tokens": (MaxAccuracy("1/8"), RandomTokens(0.2), S, AbsChange(), StrictMask(0.5, 0.5)),
}


MIXED = {
    "bridge": (Now(), Bilevel(), Nll(), NoPrefix(), NotTrained()),
    "bread": (
        MaxAccuracy("1/8"),
        NoMixing(),
        Nll(),
        Staged((4, 4), (0, 0.25), (-1, 0.125), cut="token"),
        NotTrained(),
    ),
    "chord_mu": (Now(), Chord(0, 200, 0.9, 0.05), Nll(), NoPrefix(), NotTrained()),
    "chord_phi": (Now(), Chord(0, 200, 0.1, 0.1), ChordPhi(), NoPrefix(), NotTrained()),
    "hpt": (Hpt("0/8"), Constant(1.0, 1.0, "question"), Nll(), NoPrefix(), NotTrained()),
    "luffy": (MaxAccuracy("1/8"), NoMixing(), Nll(), Whole(1), Shaped(0.1)),
    "srft": (Now(), Constant(1.0, 1.0), SequenceEntropy(0.5), Whole(1), Shaped(0.1)),
    "sft_rl_sum": (Now(), Constant(1.0, 1.0), Nll(), NoPrefix(), NotTrained()),
    "progressive": (Now(), Progressive((0.9, 0.5, 0.1)), Nll(), NoPrefix(), NotTrained()),
    "data_mixing": (RandomGate("1/4"), Constant(1.0, 1.0, "question"), Nll(), NoPrefix(), NotTrained()),
    "prefix_rft": (MaxAccuracy("1/8"), NoMixing(), Nll(), Random(1, 0.05, 0.95, 0), Ratio(0.2, 0.2)),
    "trapo": (
        MaxAccuracy("1/8"),
        NoMixing(),
        TrSft(0.1),
        Staged((4, 2, 1, 1), (0, 0.2, 0.5, 1), (-1, 0.5, 0.7, 0.9), cut="step"),
        Supervised({"name": "trsft", "alpha": 0.1}, 1.0, members="first"),
    ),
    "uft": (
        MaxAccuracy("1/8"),
        NoMixing(),
        Nll(),
        Annealed(0.95, 0.05, 300, 5),
        Supervised({"name": "nll"}, 0.001, per="token_mean"),
    ),
}
"""Methods that train on demonstrations in RL steps: gate, mixing, SFT loss, prefix and off-policy rule."""


def test_the_methods_are_these_and_no_others():
    assert names("method") == sorted(METHODS | MIXED)


@pytest.mark.parametrize("method", MIXED)
def test_each_mixed_method_is_rl_in_every_step_with_parts_of_its_own(method):
    at_paper_size = mifo_of("experiment=bridge_qwen3_8b") if method == "bridge" else Method(method).mifo
    for mifo in (mifo_of("experiment=quickstart", f"method={method}"), at_paper_size):
        assert (mifo.gate, mifo.mixing, mifo.sft_loss, mifo.prefix, mifo.off_policy) == MIXED[method]
        assert (mifo.schedule, mifo.constraint) == (Never(), NoConstraint())
        assert mifo.on_policy == (LogLikelihood() if method == "srft" else Verls())


PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
PAIRS = {
    ("uft", "rl=dapo"): ["another rule under loss_agg_mode=token-mean"],
    ("srft", "rl=ppo"): ["none beside a critic", "mifo/on_policy=verl beside a critic"],
    ("luffy", "rl=reinforce_plus_plus"): ["none under reinforce_plus_plus"],
    ("trapo", "rl=rloo"): [],
    ("chord_mu", "mifo/constraint=kl_anchor"): ["beside SFT phases, at whose begin its anchor is taken"],
    ("mifo", "mifo/constraint=kl_anchor"): [],
    ("chord_mu", "mifo/constraint=kl_rollouts"): ["beside SFT phases that follow RL steps"],
    ("sft_only", "mifo/constraint=kl_rollouts"): ["beside SFT phases that follow RL steps"],
    ("interleave", "mifo/constraint=kl_rollouts"): [],
}


def test_the_page_says_which_methods_go_with_what_and_each_fits_the_papers_own_algorithm_on_gpus():
    """Composes and builds every method with hardware=gpu at its paper's sizes."""
    text = what_is_said()
    assert put(PAGE.read_text(), text, BEGIN, END) == PAGE.read_text(), "run mifo methods docs/methods.md"
    cells = cells_of(text)
    assert {method for method, _ in cells} == METHODS.keys() | MIXED.keys()
    assert all(cells[method, "dr_grpo"] == FITS for method in METHODS.keys() | MIXED.keys())


@pytest.mark.parametrize(("method", "choice"), PAIRS)
def test_check_refuses_what_the_page_says_and_for_the_same_reason(method, choice, tmp_path):
    page = PAGE.read_text()
    letters = cells_of(page)[method, choice.rpartition("=")[2]].split()
    reasons = [
        re.search(rf"^- \*\*{letter}\*\*: `[\w.]+` (must be .*)\.$", page, re.MULTILINE)[1]
        for letter in letters
        if letter != FITS
    ]
    assert [expected in reason for expected, reason in zip(PAIRS[method, choice], reasons, strict=True)].count(
        False
    ) == 0
    said = messages_of(Mistake("pair", "", [], overrides=[f"method={method}", choice]), tmp_path / "run")
    assert len(said) == len(reasons) and all(any(reason in message for message in said) for reason in reasons)


def cells_of(text: str) -> dict[tuple[str, str], str]:
    """The second table of a page, by method and column."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    head = next(place for place, line in enumerate(lines) if "`dr_grpo`" in line)
    names = [name.strip("`") for name in lines[head]]
    found = {}
    for alike, *cells in lines[head + 2 :]:
        if len(cells) + 1 != len(names):
            break
        for method in alike.split(", "):
            found |= {(method.strip("`"), name): cell for name, cell in zip(names[1:], cells, strict=True)}
    return found


@pytest.mark.parametrize("method", METHODS)
def test_each_method_is_a_switch_of_the_quick_start_and_an_experiment_of_its_own(method):
    selector, tokens, schedule, importance, freeze = METHODS[method]
    mifo = mifo_of("experiment=quickstart", f"method={method}")
    assert (mifo.gate, mifo.token_selector, mifo.schedule) == (selector, tokens, schedule)
    assert (mifo.importance, mifo.constraint, mifo.sft_loss) == (importance, freeze, Nll())
    at_paper_size = Method(method).mifo
    assert (at_paper_size.token_selector, at_paper_size.constraint) == (tokens, freeze)


def test_stand_alone_sft_has_its_own_learning_rate():
    assert mifo_of("experiment=sft_only").sft.lr == mifo_of("experiment=sft_then_rl").sft.lr == 1e-5
    assert mifo_of("experiment=mifo").sft.lr == 1e-6


ALGORITHMS = {
    "dr_grpo": ("grpo", False, "seq-mean-token-sum-norm", False, False),
    "grpo": ("grpo", True, "seq-mean-token-mean", True, False),
    "dapo": ("grpo", True, "token-mean", False, True),
    "rloo": ("rloo", True, "token-mean", False, False),
    "reinforce_plus_plus": ("reinforce_plus_plus", True, "token-mean", False, False),
    "ppo": ("gae", True, "token-mean", False, False),
}


def test_the_rl_algorithms_are_these_and_no_others():
    assert names("rl") == sorted(ALGORITHMS)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_rl_algorithm_sets_what_its_paper_says(algorithm):
    node = compose_config([MODEL, f"rl={algorithm}"]).node
    actor = node.actor_rollout_ref.actor
    estimator, by_std, aggregation, kl, filtered = ALGORITHMS[algorithm]
    assert node.algorithm.adv_estimator == estimator
    assert node.algorithm.norm_adv_by_std_in_grpo is by_std
    assert actor.loss_agg_mode == aggregation and actor.use_kl_loss is kl
    assert node.algorithm.filter_groups.enable is filtered
    assert actor.clip_ratio_high == (0.28 if algorithm == "dapo" else 0.2)


def test_the_base_has_the_values_of_the_paper():
    node = compose_config([MODEL]).node
    actor, rollout = node.actor_rollout_ref.actor, node.actor_rollout_ref.rollout
    assert (node.data.train_batch_size, actor.ppo_mini_batch_size, rollout.n) == (128, 64, 8)
    assert (actor.optim.lr, actor.optim.clip_grad, actor.optim.weight_decay) == (1e-6, 0.7, 0.01)
    assert (rollout.temperature, actor.entropy_coeff, actor.clip_ratio) == (1.0, 0.001, 0.2)
    assert (node.data.max_prompt_length, node.data.max_response_length) == (1024, 8192)
    assert (node.mifo.sft.lr, node.mifo.sft.clip_grad, node.mifo.sft.passes) == (1e-6, 1.0, 1)
    assert node.mifo.schedule.size == 64 and node.trainer.total_epochs == 3
    assert actor.fsdp_config.model_dtype == "fp32" and node.seed == 0
    assert actor.loss_scale_factor == 8192


def test_the_seed_reaches_every_draw():
    node = compose_config([MODEL, "seed=5", "mifo/importance=random"]).node
    actor = node.actor_rollout_ref.actor
    seeds = (node.data.seed, actor.data_loader_seed, actor.fsdp_config.seed, node.actor_rollout_ref.rollout.seed)
    assert seeds == (5, 5, 5, 5) and node.mifo.importance.seed == 5


def test_srl_filters_by_the_reward_since_hardly_any_step_is_correct():
    node = compose_config([MODEL, "experiment=srl"]).node
    assert (node.algorithm.filter_groups.enable, node.algorithm.filter_groups.metric) == (True, "reward")
    assert node.reward.custom_reward_function.path == "pkg://mifo_verl.rewards.similarity"
    assert (node.data.train_batch_size, node.actor_rollout_ref.actor.optim.lr) == (512, 5e-7)
    assert node.actor_rollout_ref.actor.use_kl_loss is False


def test_the_papers_models_and_recipes_compose_each_with_what_is_its_own():
    nodes = {name: compose_config([f"experiment=paper/{name}"]).node for name in names("experiment/paper")}
    own = {
        "qwen25_math_1_5b": {"actor_rollout_ref.model.path": "models/qwen25_math_1_5b", "mifo.state.device": "gpu"},
        "qwen25_math_7b": {"actor_rollout_ref.model.path": "models/qwen25_math_7b", "mifo.state.device": "gpu"},
        "llama31_8b": {"actor_rollout_ref.model.path": "models/llama31_8b", "mifo.state.device": "host"},
        "qwen3_8b": {"actor_rollout_ref.model.path": "Qwen/Qwen3-8B-Base", "mifo.state.device": "host"},
        "data_15k": {"data.train_max_samples": 15000, "actor_rollout_ref.model.path": "models/qwen25_math_1_5b"},
        "lora": {"actor_rollout_ref.model.lora_rank": 32, "actor_rollout_ref.model.lora.merge": True},
    }
    assert nodes.keys() == own.keys()
    for name, node in nodes.items():
        assert {key: OmegaConf.select(node, key) for key in own[name]} == own[name]
        assert node.name == f"paper_{name}" == Path(node.run_dir).name
        assert (node.trainer.save_freq, node.trainer.resume_mode, node.mifo.checkpoint.save_final) == (20, "auto", True)
        mifo = build_config(OmegaConf.to_container(node.mifo))
        assert (mifo.schedule, mifo.constraint) == (WhenFull(64), StrictMask(0.5, 0.5))
    for role in ("actor", "ref"):  # on the engine's own config, which is the one that verl's FSDP engine reads
        node = nodes["qwen25_math_7b"].actor_rollout_ref[role]
        engine = omega_conf_to_dataclass(node.fsdp_config)
        assert engine.entropy_from_logits_with_chunking and engine.entropy_checkpointing
