"""BRIDGE on FSDP2 shards over gloo: against tests/reference, its extremes to the bit, what a skip leaves, a resume; and
the constraint that has SFT train the same adapter alone.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from mifo_verl.run.checkpoints import CheckpointStore
from tests.integration.engine_ranks import batch_of, configured, examples, full, make_engine, run_on_ranks
from tests.reference.bridge import Bridge, Settings

ALL = {"use_dynamic_bsz": True, "max_token_len_per_gpu": 4096}
EPS = 1e-4
"""AdamW's, of the size of a gradient: a coordinate whose gradient is all rounding stays (tests/integration/test_reference)."""
RUN = {
    "actor_rollout_ref.actor.optim.override_optimizer_config": {"eps": EPS},
    "actor_rollout_ref.actor.optim.lr": 1e-3,
    "actor_rollout_ref.actor.optim.weight_decay": 0.1,
    "actor_rollout_ref.actor.optim.clip_grad": 0.7,
    "actor_rollout_ref.actor.loss_agg_mode": "seq-mean-token-sum-norm",
    "actor_rollout_ref.actor.loss_scale_factor": 24,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 8,
    "mifo.token_selector": {"name": "all"},
    "mifo.constraint": {"name": "none"},
    "mifo.probe.kl_to_start": False,
}
LORA = {
    "actor_rollout_ref.model.lora_rank": 4,
    "actor_rollout_ref.model.lora_alpha": 8,
    "actor_rollout_ref.model.lora.merge": True,
}

HELD = RUN | LORA | {"mifo.constraint": {"name": "lora"}, "mifo.sft.optimizer": "fresh"}
"""RL beside an adapter that it leaves where it is."""


def bridge(share: float, **settings: Any) -> dict[str, Any]:
    return RUN | LORA | {"mifo.mixing": {"name": "bilevel", "lambda_end": share} | settings}


@cache
def ppo(entropy_coeff: float = 0.001) -> Callable:
    """verl's own RL loss: Dr.GRPO's constants, clip 0.2, an entropy bonus."""
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.utils.losses import ppo_loss

    settings = RUN | {"actor_rollout_ref.actor.entropy_coeff": entropy_coeff}
    return partial(ppo_loss, config=omega_conf_to_dataclass(configured(settings).actor_rollout_ref.actor))


def advantage(row: int) -> float:
    return 1.0 if row % 2 else -0.7


def rl_batch(engine: Any, step: int, weight: float | None = None) -> Any:
    """This rank's part of eight made-up rollouts, whose old log-probs are the engine's own."""
    from verl.utils import tensordict_utils as tu
    from verl.workers.utils.padding import response_from_nested

    from mifo_verl.verl.engine import TOKEN_FACTS
    from mifo_verl.verl.staging import RL_WEIGHT

    batch = batch_of(examples(8, seed=100 + step), engine, calculate_entropy=True, **ALL)
    tu.assign_non_tensor(batch, **{TOKEN_FACTS: False})  # which an SFT batch asks for
    with engine.eval_mode():
        log_probs = engine.infer_batch(batch.copy())["model_output"]["log_probs"]
    batch["response_mask"] = batch["loss_mask"].clone()
    batch["old_log_probs"] = response_from_nested(log_probs, batch["response_mask"])
    sign = [advantage(row) for row in batch["row"].tolist()]
    lengths = batch["response_mask"].offsets().diff().tolist()
    batch["advantages"] = torch.nested.as_nested_tensor(
        [torch.full((length,), value) for length, value in zip(lengths, sign, strict=True)], layout=torch.jagged
    )
    if weight is not None:
        tu.assign_non_tensor(batch, **{RL_WEIGHT: weight})
    return batch


def demonstrations(engine: Any, step: int) -> Any:
    return batch_of(examples(5, seed=200 + step), engine, **ALL)


def mixed_update(engine: Any, loss: Callable, step: int, share: float, sft_loss: Callable | None = None) -> Any:
    from mifo_verl.verl.sft_step import SftLossOfBatch
    from mifo_verl.verl.staging import weighted

    if share < 1:
        batch = weighted(demonstrations(engine, step), 1 - share, None)
        engine.stage_sft(batch, sft_loss or SftLossOfBatch(engine.mifo))
    with engine.train_mode():
        output = engine.train_batch(rl_batch(engine, step, share), loss)
    engine.take_staged()
    return output["metrics"]


def weights_of(engine: Any) -> dict[str, dict[str, torch.Tensor]]:
    """theta, w and theta-hat over all ranks, by the base model's names."""
    from mifo_verl.verl.adapter import is_adapter

    def named(model: Any) -> dict[str, torch.Tensor]:
        names = [where.name.removeprefix("base_model.model.").replace(".base_layer.", ".") for where in model.slices]
        return dict(zip(names, full(model.weights()), strict=True))

    own = named(engine.interval.model)
    found = {
        "theta": {name: weight for name, weight in own.items() if not is_adapter(name)},
        "w": {name: weight for name, weight in own.items() if is_adapter(name)},
    }
    if engine.second is not None:
        found["hat"] = {n: weight for n, weight in named(engine.second.model).items() if not is_adapter(n)}
    return found


def bridge_run(share: float, updates: int, settings: dict[str, Any]) -> dict[str, Any]:
    engine = make_engine(bridge(share, **settings))
    loss, start = ppo(), weights_of(engine)
    metrics = [mixed_update(engine, loss, step, share) for step in range(updates)]
    own = [one.get("mifo_cooperative_gain", [0.0])[0] for one in metrics]
    ranks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(ranks, own)  # verl reports the mean over the ranks
    gains = [sum(of_ranks) / len(ranks) for of_ranks in zip(*ranks, strict=True)]
    return {"start": start, **weights_of(engine), "metrics": metrics, "gains": gains}


def held_run() -> dict[str, Any]:
    """Two RL updates, an SFT phase in the adapter alone and another RL update, with what is sent before and after."""
    engine = make_engine(HELD)
    found = {"start": weights_of(engine)}

    def rl_update(step: int) -> None:
        with engine.train_mode():
            engine.train_batch(rl_batch(engine, step), ppo())

    for step in range(2):
        rl_update(step)
    found["rl"] = weights_of(engine)
    with engine.train_mode():
        found["report"] = engine.begin_sft(interval=1)
    norms = []
    for step in range(2):
        with engine.train_mode():
            norms.append(engine.train_batch(demonstrations(engine, step), sft_loss_of(engine))["metrics"]["grad_norm"])
    found |= {"norms": norms, "sft": weights_of(engine), "sent": sent_by(engine)}
    with engine.train_mode():
        engine.end_sft()
    found |= {"end": weights_of(engine), "sent at the end": sent_by(engine)}
    rl_update(2)
    return found | {"later": weights_of(engine)}


def sent_by(engine: Any) -> dict[str, torch.Tensor]:
    """What the rollout server gets."""
    return {name: weight.clone() for name, weight in engine.get_per_tensor_param()[0]}


def sft_loss_of(engine: Any) -> Callable:
    from mifo_verl.verl.sft_step import SftLossOfBatch

    return SftLossOfBatch(engine.mifo)


def plain_rl(updates: int, settings: dict[str, Any] = RUN) -> dict[str, Any]:
    """Full-parameter RL of the model without an adapter, by verl's own update."""
    engine = make_engine(settings)
    loss = ppo()
    norms, found = [], {}
    for step in range(updates):
        if step == 2:
            found["after two"] = weights_of(engine)["theta"]
        with engine.train_mode():
            norms.append(engine.train_batch(rl_batch(engine, step), loss)["metrics"]["grad_norm"])
    return weights_of(engine) | found | {"norms": norms}


def plain_sft(updates: int) -> dict[str, Any]:
    """SFT of the model with its adapter, both trainable: a pass, two clips and a step, written out."""
    from verl.utils.fsdp_utils import fsdp2_clip_grad_norm_

    from mifo_verl.verl.sft_step import SftLossOfBatch

    engine = make_engine(bridge(0.5))
    for step in range(updates):
        with engine.train_mode():
            engine.optimizer.zero_grad()
            engine.one_pass(demonstrations(engine, step), SftLossOfBatch(engine.mifo), weight=1.0)
            for group in engine.optimizer.param_groups:
                fsdp2_clip_grad_norm_(group["params"], 0.7)
            engine.optimizer.step()
    return weights_of(engine)


def resumed_run(folder: str) -> dict[str, Any]:
    """Two updates, a checkpoint and a third; the third once more by an engine that goes on from the checkpoint."""
    engine = make_engine(bridge(0.5))
    for step in range(2):
        mixed_update(engine, ppo(), step, 0.5)
    engine.save_checkpoint(f"{folder}/actor", None, 2)
    engine.save_interval(Path(folder) / "mifo")
    sent = sent_by(engine)
    untouched = weights_of(engine)
    mixed_update(engine, ppo(), 2, 0.5)
    other = make_engine(bridge(0.5))
    other.load_checkpoint(f"{folder}/actor", None, 0)
    other.load_interval(Path(folder) / "mifo")
    loaded = weights_of(other)
    mixed_update(other, ppo(), 2, 0.5)
    return {
        "saved": untouched,
        "loaded": loaded,
        "went on": weights_of(engine),
        "resumed": weights_of(other),
        "sent": sent,
    }


def skipped_run(of: str) -> dict[str, Any]:
    """An update with a loss that is infinite, SFT's, RL's or RL's at theta-hat alone; then one as ever."""
    from mifo_verl.verl.sft_step import SftLossOfBatch

    engine = make_engine(bridge(0.5))

    def infinite(whole: Callable, passes: int) -> Callable:
        left = iter(range(passes))

        def loss(model_output: Any, data: Any, dp_group: Any = None) -> Any:
            value, metrics = whole(model_output=model_output, data=data, dp_group=dp_group)
            return (value if next(left, None) is None else value * torch.inf), metrics

        return loss

    start = weights_of(engine)
    passes = {"sft": 0, "rl": 2, "hat": 1}[of]  # theta-hat's is the first one
    sft = SftLossOfBatch(engine.mifo)
    metrics = mixed_update(engine, infinite(ppo(), passes), 0, 0.5, infinite(sft, 1) if of == "sft" else sft)
    after = weights_of(engine)
    mixed_update(engine, ppo(), 0, 0.5)
    return {"start": start, "after": after, "later": weights_of(engine), "skipped": metrics["max_skipped_updates"]}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def case(name: str, folder: str) -> dict[str, Any]:
    return {
        "rl": lambda: plain_rl(3),
        "rl beside an adapter": lambda: plain_rl(3, HELD),
        "sft": lambda: plain_sft(3),
        "1": lambda: bridge_run(1.0, 3, {}),
        "0": lambda: bridge_run(0.0, 3, {}),
        "0.5": lambda: bridge_run(0.5, 3, {}),
        "own": lambda: bridge_run(0.5, 3, {"anchor": "own"}),
        "one step": lambda: bridge_run(0.5, 3, {"auxiliary": "one_step"}),
        "adapter held": lambda: bridge_run(0.5, 2, {"adapter_lr": 0.0}),
        "adapter faster": lambda: bridge_run(0.5, 3, {"adapter_lr": 4e-3}),
        "offloaded": lambda: bridge_run(0.5, 3, {"offload": True}),
        "SFT in the adapter": held_run,
        "sft is infinite": lambda: skipped_run("sft"),
        "rl is infinite": lambda: skipped_run("rl"),
        "hat is infinite": lambda: skipped_run("hat"),
        "resume": lambda: resumed_run(folder),
    }[name]()


SKIPPED = ("sft", "rl", "hat")
EXTREMES = ("rl", "sft", "1", "0", "0.5", *(f"{of} is infinite" for of in SKIPPED), "resume", "SFT in the adapter")
SETTINGS = ("0.5", "own", "one step", "adapter faster", "adapter held", "offloaded")


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, Any]:
    """Of two ranks."""
    folder = tmp_path_factory.mktemp("run") / "global_step_2"
    cases = [(name, str(folder)) for name in EXTREMES]
    return dict(zip(EXTREMES, run_on_ranks(case, 2, cases), strict=True)) | {"folder": folder}


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    """Of one rank."""
    return dict(zip(SETTINGS, run_on_ranks(case, 1, [(name, "") for name in SETTINGS]), strict=True))


REFERENCE = Settings(
    share=0.5, a=1e-3, b=1e-3, scaling=2.0, constant=24, entropy=0.001, max_norm=0.7, weight_decay=0.1, eps=EPS
)


def by_reference(start: dict[str, Any], settings: Settings) -> tuple[dict[str, dict[str, torch.Tensor]], list[float]]:
    """(theta, w and theta-hat after three updates, flat, by the engine's names; the gains) of tests/reference."""
    from transformers import AutoModelForCausalLM

    path = configured({}).actor_rollout_ref.model.path
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa")
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    w = {}
    for name, flat in start["w"].items():
        stem, part = name.removesuffix(".default.weight").rsplit(".lora_", 1)
        w[f"{stem}.weight.{part}"] = flat.view(4, -1) if part == "A" else flat.view(-1, 4)
    own = {name: flat.view(shapes[name]) for name, flat in start["theta"].items()}
    reference, gains = Bridge(model, own, w, settings), []
    for step in range(3):
        rollouts = [
            (r.prompt_ids, r.response_ids, advantage(row)) for row, r in enumerate(examples(8, seed=100 + step))
        ]
        reference.update(rollouts, [(d.prompt_ids, d.response_ids) for d in examples(5, seed=200 + step)])
        gains.append(reference.gain)
    names = {
        name: "{}.weight.{}".format(*name.removesuffix(".default.weight").rsplit(".lora_", 1)) for name in start["w"]
    }
    flat = {
        "theta": {name: weight.reshape(-1) for name, weight in reference.theta.items()},
        "hat": {name: weight.reshape(-1) for name, weight in reference.hat.items()},
        "w": {name: reference.w[of].reshape(-1) for name, of in names.items()},
    }
    return flat, gains


@pytest.mark.parametrize(
    ("places", "name", "changed"),
    [
        (("found", "settings"), "0.5", {}),
        (("settings",), "own", {"anchor": "own"}),
        (("settings",), "one step", {"auxiliary": "one_step"}),
        (("settings",), "adapter faster", {"b": 4e-3}),
    ],
    ids=["two ranks and one", "own anchor", "one step ahead", "b above a"],
)
def test_three_updates_are_those_of_the_reference(request, places, name, changed):
    runs = [request.getfixturevalue(place)[name] for place in places]
    begin = runs[0]["start"]
    theirs, gains = by_reference(begin, replace(REFERENCE, **changed))
    for ours in runs:
        assert all(same(ours["start"][part], begin[part]) for part in begin)
        assert ours["gains"] == pytest.approx(gains, abs=1e-5)
        for part in ("theta", "w", "hat")[: 3 if "hat" in ours else 2]:
            start = begin["theta" if part == "hat" else part]
            assert ours[part].keys() == theirs[part].keys()
            moved, apart = (
                torch.cat([one[weight] - other[weight] for weight in start]).norm()
                for one, other in ((theirs[part], start), (ours[part], theirs[part]))
            )
            assert float(apart / moved) < 1e-4, part


def test_at_lambda_1_theta_is_that_of_full_parameter_rl_to_the_bit(found):
    one, rl = found["1"], found["rl"]
    assert same(one["theta"], rl["theta"]) and distance(one["theta"], one["start"]["theta"]) > 1e-3
    assert [metrics["grad_norm"] for metrics in one["metrics"]] == rl["norms"]


def test_on_four_ranks_theta_at_lambda_1_is_that_of_rl_beside_an_adapter_that_holds_still_to_the_bit():
    """An adapter changes where a gradient lies among those summed over the ranks, so that more than two sum otherwise."""
    one, rl = run_on_ranks(case, 4, [("1", ""), ("rl beside an adapter", "")])
    assert same(one["theta"], rl["theta"]) and same(one["hat"], one["theta"])
    assert distance(one["theta"], one["start"]["theta"]) > 1e-3


def test_at_lambda_1_theta_hat_is_theta_and_the_adapter_stays_inert(found):
    one = found["1"]
    assert same(one["hat"], one["theta"])
    lora_b = [weight for name, weight in one["w"].items() if "lora_B" in name]
    assert lora_b and not any(weight.any() for weight in lora_b)
    assert [metrics["mifo_cooperative_gain"] for metrics in one["metrics"]] == [[0.0]] * 3
    assert [metrics["mifo_adapter_grad_norm"] for metrics in one["metrics"]] == [[0.0]] * 3


def test_at_lambda_0_theta_and_w_are_those_of_sft_to_the_bit_and_theta_hat_is_not_touched(found):
    zero, sft = found["0"], found["sft"]
    assert same(zero["theta"], sft["theta"]) and same(zero["w"], sft["w"])
    assert same(zero["hat"], zero["start"]["theta"]) and distance(zero["theta"], zero["start"]["theta"]) > 1e-3
    assert all("mifo_second_grad_norm" not in metrics for metrics in zero["metrics"])


def test_between_them_all_three_move_and_the_first_gain_is_0(found):
    half = found["0.5"]
    assert distance(half["theta"], half["hat"]) > 1e-4 and distance(half["w"], half["start"]["w"]) > 1e-4
    gains = [metrics["mifo_cooperative_gain"][0] for metrics in half["metrics"]]
    assert gains[0] == 0.0 and gains[1] != 0.0
    assert all(0 <= metrics["mifo_second_clip_share"][0] <= 1 for metrics in half["metrics"])
    assert all(metrics["mifo_second_grad_norm"][0] > 0 for metrics in half["metrics"])


def test_theta_hat_begins_as_theta(found):
    assert same(found["0.5"]["start"]["hat"], found["0.5"]["start"]["theta"])


@pytest.mark.parametrize("of", SKIPPED)
def test_a_skipped_update_leaves_all_three_where_they_are_and_is_counted(found, of):
    run = found[f"{of} is infinite"]
    assert all(same(run["after"][part], run["start"][part]) for part in ("theta", "w", "hat"))
    assert run["skipped"] == [1]
    assert all(distance(run["later"][part], run["start"][part]) > 1e-4 for part in ("theta", "hat"))


def test_a_resumed_run_has_the_bits_of_one_that_went_on(found):
    run = found["resume"]
    for part in ("theta", "w", "hat"):
        assert same(run["loaded"][part], run["saved"][part]) and same(run["resumed"][part], run["went on"][part])
        assert distance(run["resumed"][part], run["loaded"][part]) > 1e-4


def test_the_rollout_server_gets_theta_with_w_in_it_in_float32_and_theta_stays(found):
    saved, sent = found["resume"]["saved"], found["resume"]["sent"]
    assert sent.keys() == saved["theta"].keys() | {"lm_head.weight"} and not any("lora" in name for name in sent)
    stem = "model.layers.2.self_attn.q_proj"
    lora_a, lora_b = (saved["w"][f"{stem}.lora_{part}.default.weight"] for part in "AB")
    base = saved["theta"][f"{stem}.weight"].view_as(sent[f"{stem}.weight"])
    expected = base + 2.0 * (lora_b.view(-1, 4) @ lora_a.view(4, -1))  # alpha / r = 8 / 4
    assert torch.equal(sent[f"{stem}.weight"], expected) and not torch.equal(expected, base)
    assert torch.equal(sent["model.norm.weight"], saved["theta"]["model.norm.weight"])


def test_the_exported_model_is_what_the_rollout_server_got(found):
    from transformers import AutoModelForCausalLM

    from mifo_verl.verl.merge import merged_folder

    folder = merged_folder(found["folder"], "float32")
    exported = dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict())
    assert exported.keys() == found["resume"]["sent"].keys()
    assert all(torch.equal(exported[name], weight) for name, weight in found["resume"]["sent"].items())


def test_a_checkpoint_cut_between_any_two_of_its_files_is_none_and_the_one_before_counts(found, tmp_path):
    files = [file for file in found["folder"].rglob("*") if file.is_file() and "huggingface_" not in str(file)]
    names = [file.relative_to(found["folder"]) for file in sorted(files, key=lambda file: file.stat().st_mtime_ns)]
    assert {f"mifo/rank_{rank}_of_2.safetensors" for rank in (0, 1)} < set(map(str, names)) and len(names) > 8
    store = CheckpointStore(tmp_path, keep_last=2, keep_best=0)

    def write(step: int) -> Path:
        folder = store.begin() / f"global_step_{step}"
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(found["folder"] / name, folder / name)
            newest = store.newest(checksums=False)
            assert newest is None if step == 1 else newest.facts["step"] == 1
        return store.commit(folder, {"step": step, "during_step": False, "accuracy": None})

    write(1)
    folder = write(2)
    assert store.newest(checksums=False).facts["step"] == 2
    for name in names:
        (folder / name).rename(tmp_path / "away")
        said: list[str] = []
        assert store.newest(said.append, checksums=False).facts["step"] == 1 and str(folder / name) in said[0]
        (tmp_path / "away").rename(folder / name)


@pytest.mark.parametrize("name", ["own", "one step", "adapter faster"])
def test_an_offered_setting_changes_w(settings, name):
    assert distance(settings[name]["w"], settings["0.5"]["w"]) > 1e-5
    assert ("hat" in settings[name]) == (name != "one step")


def test_at_rate_0_the_adapter_holds_still_and_theta_moves(settings):
    held = settings["adapter held"]
    assert same(held["w"], held["start"]["w"]) and distance(held["theta"], held["start"]["theta"]) > 1e-3


def test_an_offloaded_second_policy_trains_to_the_same_bits(settings):
    assert all(same(settings["offloaded"][part], settings["0.5"][part]) for part in ("theta", "w", "hat"))


def test_in_rl_an_adapter_that_sft_alone_trains_stands_still_and_rl_is_that_without_one_to_the_bit(found):
    run = found["SFT in the adapter"]
    assert same(run["rl"]["w"], run["start"]["w"]) and distance(run["rl"]["theta"], run["start"]["theta"]) > 1e-4
    assert same(run["rl"]["theta"], found["rl"]["after two"])


def test_in_sft_the_base_stands_still_to_the_bit_and_the_adapter_moves(found):
    run, report = found["SFT in the adapter"], found["SFT in the adapter"]["report"]
    assert same(run["sft"]["theta"], run["rl"]["theta"]) and distance(run["sft"]["w"], run["rl"]["w"]) > 1e-4
    sizes = {part: sum(weight.numel() for weight in run["rl"][part].values()) for part in ("theta", "w")}
    assert (report.num_frozen, report.num_coordinates) == (sizes["theta"], sum(sizes.values()))
    assert all(norm > 0 for norm in run["norms"])


def test_at_the_end_of_the_phase_the_base_takes_the_adapter_in_and_the_policy_is_the_same(found):
    run = found["SFT in the adapter"]
    stem = "model.layers.2.self_attn.q_proj"
    lora_a, lora_b = (run["sft"]["w"][f"{stem}.lora_{part}.default.weight"] for part in "AB")
    folded = run["sft"]["theta"][f"{stem}.weight"] + 2.0 * (lora_b.view(-1, 4) @ lora_a.view(4, -1)).reshape(-1)
    torch.testing.assert_close(run["end"]["theta"][f"{stem}.weight"], folded, rtol=0, atol=1e-7)
    assert not any(weight.any() for name, weight in run["end"]["w"].items() if "lora_B" in name)
    assert torch.equal(run["end"]["w"][f"{stem}.lora_A.default.weight"], lora_a)
    assert torch.equal(run["end"]["theta"]["model.norm.weight"], run["sft"]["theta"]["model.norm.weight"])
    assert distance(run["sent at the end"], run["sent"]) < 1e-6
    assert same(run["later"]["w"], run["end"]["w"]) and distance(run["later"]["theta"], run["end"]["theta"]) > 1e-5
