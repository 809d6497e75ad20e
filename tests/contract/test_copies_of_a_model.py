"""The copies of an evaluated model: processes of their own, side by side, each on its GPUs."""

import json

import pytest
import torch

from mifo_verl.cpu.generate import Completion, Request
from mifo_verl.tools.evaluate.engines import VllmEngine
from mifo_verl.tools.evaluate.settings import Settings
from mifo_verl.tools.prepare.tiny_model import START_MODEL

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


def answers(settings: Settings, num: int) -> dict[int, Completion]:
    engine, found = VllmEngine(START_MODEL, "float32", settings), {}
    asked = [Request([100 + place], 5, place, 1.0, 1.0) for place in range(num)]
    engine.generate(asked, {place for place in range(num) if place != 1}, found.__setitem__)
    return found


def test_the_copies_answer_side_by_side_each_on_its_own_gpus(machine):
    heads = json.loads((START_MODEL / "config.json").read_text())["num_attention_heads"]
    assert heads == 2  # so that two copies share the four GPUs
    found = answers(Settings(("model",), ("gsm8k",), tensor_parallel=2), 4)
    assert sorted(found) == [0, 2, 3]  # of what is not needed nothing is asked
    said = {place: completion.token_ids for place, completion in found.items()}
    assert said == {0: [2, 0, 0, 1, 100], 2: [2, 2, 2, 3, 102], 3: [2, 3, 0, 1, 103]}


@pytest.mark.parametrize(("length", "why"), [(13, "a process has ended with 7"), (14, "ValueError: no room")])
def test_a_copy_that_fails_ends_the_evaluation_and_says_why(machine, length, why):
    with pytest.raises(RuntimeError, match=f"engine=vllm has failed: {why}"):
        answers(Settings(("model",), ("gsm8k",), tensor_parallel=2, max_length=length), 1)
