"""The GPUs of an evaluation: tensor parallel inside a copy of the model, data parallel over the copies."""

import json

import pytest
import torch

from mifo_verl.cpu.generate import Completion, Request
from mifo_verl.tools.evaluate.engines import VllmEngine, VllmSettings, devices_of_copies, tensor_parallel_sizes
from mifo_verl.tools.prepare.tiny_model import START_MODEL

QWEN_7B = {"num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944}
QWEN_1_5B = {"num_attention_heads": 12, "num_key_value_heads": 2, "intermediate_size": 8960}
LLAMA_70B = {"num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 28672}
EIGHT = list("01234567")


@pytest.mark.parametrize(
    ("config", "gpus", "sizes"),
    [
        (QWEN_7B, 8, [1, 2, 4]),  # 28 heads do not split over 8
        (QWEN_7B, 6, [1, 2]),  # nor over 3 or 6
        (QWEN_1_5B, 8, [1, 2, 4]),  # 2 key-value heads are copied over 4
        (LLAMA_70B, 8, [1, 2, 4, 8]),
        (LLAMA_70B, 3, [1]),
        ({"num_attention_heads": 6}, 6, [1, 2, 3, 6]),
    ],
)
def test_heads_say_over_how_many_gpus_a_model_splits(config, gpus, sizes):
    assert tensor_parallel_sizes(config, gpus) == sizes


@pytest.mark.parametrize(
    ("config", "gigabytes", "asked", "copies"),
    [
        (QWEN_7B, 15, None, [[d] for d in EIGHT]),  # 2 * 15 <= 72: a copy a GPU
        (LLAMA_70B, 141, None, [list("0123"), list("4567")]),  # 282 <= 4 * 72
        (QWEN_7B, 400, None, [list("0123"), list("4567")]),  # as many as its heads split over
        (QWEN_7B, 15, 4, [list("0123"), list("4567")]),
    ],
)
def test_a_copy_spans_as_few_gpus_as_hold_it(config, gigabytes, asked, copies):
    assert devices_of_copies(config, EIGHT, gigabytes * 10**9, 72 * 10**9, asked) == copies


def test_a_size_that_splits_no_head_is_refused():
    with pytest.raises(ValueError, match=r"tensor_parallel=8 must be one of \[1, 2, 4\]; leave it out"):
        devices_of_copies(QWEN_7B, EIGHT, 1, 1, 8)


VLLM = """
import os
from types import SimpleNamespace as Some

class LLM:
    def __init__(self, **options):
        if options["max_model_len"] == 13:
            os._exit(7)
        if options["max_model_len"] == 14:
            raise ValueError("no room")
        self.llm_engine, self.options, self.waiting = self, options, []

    def add_request(self, place, prompt, params):
        self.waiting.append((place, prompt["prompt_token_ids"], params))

    def has_unfinished_requests(self):
        return bool(self.waiting)

    def step(self):
        place, prompt, params = self.waiting.pop()
        devices = [int(one) for one in os.environ["CUDA_VISIBLE_DEVICES"].split(",")]
        said = [self.options["tensor_parallel_size"], params.seed, *devices, *prompt]
        return [Some(finished=True, request_id=place, outputs=[Some(token_ids=said, finish_reason="stop")])]

def SamplingParams(**settings):
    return Some(**settings)
"""
"""Stands in for vLLM, which is not installed here: it answers with its settings, the GPUs it sees and the prompt."""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Four GPUs of 80 GB and a stand-in for vLLM, in this process and in those that it starts."""
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text(VLLM)
    (tmp_path / "vllm" / "sampling_params.py").write_text("class RequestOutputKind:\n    FINAL_ONLY = 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    memory = type("Properties", (), {"total_memory": 80 << 30})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: memory)


def answers(settings: VllmSettings, num: int) -> dict[int, Completion]:
    engine, found = VllmEngine(START_MODEL, "float32", settings), {}
    asked = [Request([100 + place], 5, place, 1.0, 1.0) for place in range(num)]
    engine.generate(asked, {place for place in range(num) if place != 1}, found.__setitem__)
    return found


def test_the_copies_answer_side_by_side_each_on_its_own_gpus(machine):
    heads = json.loads((START_MODEL / "config.json").read_text())["num_attention_heads"]
    assert heads == 2  # so that two copies share the four GPUs
    found = answers(VllmSettings(tensor_parallel=2), 4)
    assert sorted(found) == [0, 2, 3]  # of what is not needed nothing is asked
    said = {place: completion.token_ids for place, completion in found.items()}
    assert said == {0: [2, 0, 0, 1, 100], 2: [2, 2, 2, 3, 102], 3: [2, 3, 0, 1, 103]}


@pytest.mark.parametrize(("length", "why"), [(13, "a process has ended with 7"), (14, "ValueError: no room")])
def test_a_copy_that_fails_ends_the_evaluation_and_says_why(machine, length, why):
    with pytest.raises(RuntimeError, match=f"engine=vllm has failed: {why}"):
        answers(VllmSettings(tensor_parallel=2, max_length=length), 1)
