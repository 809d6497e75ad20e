"""The rollout server as verl reaches it: a Ray actor, a replica that launches it, an adapter that sends it weights."""

import asyncio
import os
import random
from collections.abc import Iterator
from typing import Any

os.environ.update(VERL_PLATFORM="cpu", OMP_NUM_THREADS="1", TORCH_COMPILE_DISABLE="1", HF_HUB_OFFLINE="1")
os.environ.update(RAY_enable_worker_prestart="0", RAY_prestart_worker_first_driver="0")

import pytest
import ray
import torch
from omegaconf import OmegaConf
from ray.exceptions import RayTaskError
from verl.workers.rollout.base import get_rollout_class
from verl.workers.rollout.replica import TokenOutput, get_rollout_replica_class

from mifo_verl.compose import compose_config
from mifo_verl.cpu.rollout import register
from mifo_verl.loop.streams import stable_seed, training_streams, validation_streams

pytestmark = pytest.mark.alone

PARAMS = {"temperature": 4.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}


@pytest.fixture(scope="module")
def config() -> Any:
    node = compose_config(["experiment=quickstart"]).node.actor_rollout_ref
    kwargs = {"num_threads": 1, "arrival_timeout_seconds": 1.0}
    OmegaConf.update(node.rollout, "engine_kwargs.transformers", kwargs, force_add=True)
    return node


@pytest.fixture(scope="module")
def server(config: Any) -> Iterator[Any]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    register()
    replica = get_rollout_replica_class("transformers")(0, config.rollout, config.model, gpus_per_node=2)
    asyncio.run(replica.launch_servers())
    yield replica.server_handle
    ray.shutdown()


@pytest.fixture(scope="module")
def weights(config: Any) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForCausalLM

    return dict(AutoModelForCausalLM.from_pretrained(config.model.path, dtype=torch.float32).state_dict())


def ask(server: Any, seed: int, **params: Any) -> Any:
    prompt = random.Random(seed // 4).choices(range(10, 200), k=3 + seed // 4 % 4)
    return server.generate.remote("any", prompt, {**PARAMS, "seed": seed, "max_tokens": 8, **params})


def texts(outputs: list[TokenOutput]) -> list[tuple[list[int], list[float] | None]]:
    return [(output.token_ids, output.log_probs) for output in outputs]


@pytest.fixture(autouse=True)
def rank_0(monkeypatch) -> None:
    monkeypatch.setenv("RANK", "0")


def send(config: Any, weights: dict[str, torch.Tensor], step: int) -> None:
    adapter = get_rollout_class("transformers")(config.rollout, config.model, None)
    asyncio.run(adapter.update_weights(iter(weights.items()), global_steps=step))


def test_announced_requests_give_the_same_bits_in_any_order(server: Any) -> None:
    ray.get([server.expect.remote(10), server.expect.remote(30)])
    first = texts(ray.get([ask(server, seed) for seed in range(40)]))
    ray.get(server.expect.remote(40))
    order = random.Random(0).sample(range(40), 40)
    second = dict(zip(order, texts(ray.get([ask(server, seed) for seed in order])), strict=True))
    assert first == [second[seed] for seed in range(40)]
    assert len({tuple(token_ids) for token_ids, _ in first}) > 30


def test_requests_that_nobody_announced_are_served(server: Any) -> None:
    output = ray.get(ask(server, 0, logprobs=False), timeout=20)
    assert output.log_probs is None
    assert output.stop_reason in ("completed", "length")


def test_a_missing_request_delays_the_others_and_no_more(server: Any) -> None:
    ray.get(server.expect.remote(3))
    assert len(ray.get([ask(server, seed) for seed in range(2)], timeout=20)) == 2


def test_a_refused_request_holds_up_no_other(server: Any) -> None:
    ray.get(server.expect.remote(2))
    refused = ask(server, 0, beam_width=4)
    with pytest.raises(RayTaskError, match="beam_width"):
        ray.get(refused, timeout=20)
    ray.get(ask(server, 1), timeout=0.9)


def test_an_error_in_the_model_reaches_who_asked(server: Any) -> None:
    wrong = server.generate.remote("any", [10**6], {**PARAMS, "max_tokens": 1})
    with pytest.raises(RayTaskError, match="index out of range"):
        ray.get(wrong, timeout=20)
    ray.get(ask(server, 1), timeout=20)


def test_weights_arrive_with_their_step(server: Any, config: Any, weights: dict[str, torch.Tensor]) -> None:
    send(config, weights, step=3)
    before = ray.get(ask(server, 0))
    assert before.extra_fields["global_steps"] == 3

    shuffled = {name: tensor.flip(0).bfloat16() for name, tensor in weights.items() if name != "lm_head.weight"}
    send(config, shuffled, step=4)
    after = ray.get(ask(server, 0))
    assert after.extra_fields["global_steps"] == 4
    assert after.log_probs != before.log_probs

    send(config, weights, step=5)
    assert ray.get(ask(server, 0)).log_probs == before.log_probs


def test_weights_of_another_model_are_refused(server: Any, config: Any, weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match=r"sent other\.weight"):
        send(config, {**weights, "other.weight": torch.zeros(1)}, step=6)
    name = "model.norm.weight"
    with pytest.raises(ValueError, match=f"did not send 1 weights.*{name}"):
        send(config, {other: tensor for other, tensor in weights.items() if other != name}, step=6)
    send(config, weights, step=6)


def test_a_second_server_is_refused(config: Any) -> None:
    replica = get_rollout_replica_class("transformers")(1, config.rollout, config.model, gpus_per_node=2)
    with pytest.raises(ValueError, match="tensor_model_parallel_size"):
        asyncio.run(replica.launch_servers())


def test_streams_do_not_depend_on_uids_drawn_at_random() -> None:
    prompts = [[{"role": "user", "content": text}] for text in ("a", "b", "a", "a")]
    streams = validation_streams(prompts, [0, 1, 0, 2])
    assert len(set(streams)) == 4
    assert validation_streams(prompts[2:], [0, 2]) == [streams[0], streams[3]]
    assert training_streams(7, ["t1", "t2"]) == ["train/7/t1", "train/7/t2"]


def test_a_seed_is_the_same_in_every_process() -> None:
    assert stable_seed(0, "train/7/t1", 2) == 3068370995485322196
    assert all(0 <= stable_seed(0, "x", session) < 2**63 for session in range(100))
