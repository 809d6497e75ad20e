"""What answers the questions: vLLM if it is installed, else transformers with the generation of this package."""

import importlib.util
import json
import multiprocessing
import os
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mifo_verl.errors import require, require_choice

if TYPE_CHECKING:  # importing them means importing torch, and a mistake in the settings is told without
    from mifo_verl.cpu.generate import Completion, Request
    from mifo_verl.tools.evaluate.settings import Settings

    OnEnd = Callable[[int, Completion], None]

ENGINES = ("auto", "vllm", "transformers")


class Engine(Protocol):
    """A model that is loaded."""

    name: str
    dtype: str
    tokenizer: Any
    max_positions: int | None

    def generate(self, requests: "Sequence[Request]", needed: Set[int], on_end: "OnEnd") -> None:
        """Call ``on_end(place, completion)`` once for every needed place of ``requests``, as soon as it has ended.

        All requests are given, so that what is left after an interruption is computed as if there had been none.
        """

    def log_likelihood(self, prompt_ids: Sequence[int], response_ids: Sequence[int]) -> float:
        """The log-probability of a whole response after its prompt, in nats, at temperature 1."""


def choose_engine(engine: str) -> str:
    """``vllm`` or ``transformers``. Raises ValueError on another name, and if vLLM is asked for and missing."""
    require_choice("engine", engine, ENGINES)
    installed = importlib.util.find_spec("vllm") is not None
    if engine == "vllm" and not installed:
        raise ValueError("engine=vllm must go with vLLM installed; pip install -e '.[gpu]', or use engine=transformers")
    return ("vllm" if installed else "transformers") if engine == "auto" else engine


def load_engine(folder: Path, settings: "Settings") -> Engine:
    """The model of a Hugging Face folder in the engine that the settings ask for."""
    engine, dtype = settings.engine_and_dtype()
    return (VllmEngine if engine == "vllm" else TransformersEngine)(folder, dtype, settings)


def tensor_parallel_sizes(config: Mapping[str, Any], gpus: int) -> list[int]:
    """The divisors of the number of GPUs over which vLLM can split a model's heads and its MLP, the smallest first.

    Key-value heads are split or, where there are fewer of them than GPUs, copied.
    """
    heads = int(config["num_attention_heads"])
    kv_heads, width = int(config.get("num_key_value_heads") or heads), int(config.get("intermediate_size") or 0)
    return [
        size
        for size in range(1, gpus + 1)
        if gpus % size == heads % size == width % size == 0 and (kv_heads % size == 0 or size % kv_heads == 0)
    ]


def devices_of_copies(
    config: Mapping[str, Any], devices: Sequence[str], weights: int, room: int, asked: int | None
) -> list[list[str]]:
    """The GPUs of every copy of the model: tensor parallel inside a copy, data parallel over the copies.

    ``weights`` are the model's bytes, ``room`` those that vLLM takes of a GPU: a copy spans as few GPUs as leave half of
    the room to the KV cache, or as many as can be if none do. Raises ValueError if the size asked for splits no head.
    """
    sizes = tensor_parallel_sizes(config, len(devices))
    require(asked is None or asked in sizes, "tensor_parallel", asked, f"one of {sizes}", "leave it out")
    size = asked or next((one for one in sizes if 2 * weights <= one * room), sizes[-1])
    return [list(devices[first : first + size]) for first in range(0, len(devices), size)]


class TransformersEngine:
    """Batches on a CPU. Each is cut from all requests in one order, so that its rounding is the same in every run."""

    name = "transformers"

    def __init__(self, folder: Path, dtype: str, settings: "Settings") -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from mifo_verl.cpu.kv_cache import ATTENTION

        torch.set_num_threads(settings.threads)
        self.dtype, self._batch = dtype, settings.batch
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), attn_implementation=ATTENTION
        ).eval()
        self.max_positions = getattr(self._model.config, "max_position_embeddings", None)
        from_model = self._model.generation_config.eos_token_id
        ends = {self.tokenizer.eos_token_id, *(from_model if isinstance(from_model, list) else [from_model])}
        self._eos_token_ids = frozenset(ends - {None})

    def generate(self, requests: "Sequence[Request]", needed: Set[int], on_end: "OnEnd") -> None:
        """A batch of which one response is needed is computed whole: its rounding depends on who is in it."""
        from mifo_verl.cpu.generate import batches, generate_batch

        for places in batches(requests, self._batch):
            if needed.isdisjoint(places):
                continue

            def give(row: int, completion: "Completion", places: list[int] = places) -> None:
                if places[row] in needed:
                    on_end(places[row], completion)

            batch = [requests[place] for place in places]
            generate_batch(self._model, batch, self.tokenizer.pad_token_id or 0, self._eos_token_ids, give)

    def log_likelihood(self, prompt_ids: Sequence[int], response_ids: Sequence[int]) -> float:
        """One sequence at a time: its rounding depends on nothing beside it."""
        import torch

        response_T = torch.tensor(response_ids)
        with torch.inference_mode():
            logits_TV = self._model(
                input_ids=torch.tensor([[*prompt_ids, *response_ids]]), logits_to_keep=len(response_ids) + 1
            ).logits[0, :-1]
            log_prob_TV = torch.log_softmax(logits_TV.float(), dim=-1)
        return float(log_prob_TV.gather(1, response_T[:, None]).double().sum())


class VllmEngine:
    """vLLM 0.24 on all GPUs of the machine, a process a copy of the model. Every response has a seed of its own.

    Not bit-identical between runs: vLLM's rounding depends on which requests it computes together.
    """

    name = "vllm"

    def __init__(self, folder: Path, dtype: str, settings: "Settings") -> None:
        from transformers import AutoTokenizer

        self.dtype = dtype
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        self.max_positions: int | None = settings.max_length or config.get("max_position_embeddings")
        devices, memory = _visible_devices()
        weights = sum(file.stat().st_size for pattern in ("*.safetensors", "*.bin") for file in folder.glob(pattern))
        room = int(settings.gpu_memory * memory)
        asked = settings.tensor_parallel
        self._copies = devices_of_copies(config, devices, weights, room, asked) if devices else [[]]
        self._options = {
            "model": str(folder),
            "dtype": dtype,
            "tensor_parallel_size": max(1, len(self._copies[0])),
            "gpu_memory_utilization": settings.gpu_memory,
            "max_model_len": settings.max_length,
            "enable_prefix_caching": True,
        }
        self._asked: list[Any] = []
        self._processes: list[Any] = []
        """One a copy, from the first question on."""

    def generate(self, requests: "Sequence[Request]", needed: Set[int], on_end: "OnEnd") -> None:
        """The needed requests, dealt out to the copies; vLLM orders those of a copy. The processes stay for the next."""
        if not self._processes:
            self._start()
        places = sorted(needed)
        for first, asked in enumerate(self._asked):
            asked.put({place: requests[place] for place in places[first :: len(self._asked)]})
        for _ in places:
            place, completion = self._next_answer()
            on_end(place, completion)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a process that has CUDA cannot be forked
        self._answers = context.Queue()
        for devices in self._copies:
            asked: Any = context.Queue()
            process = context.Process(target=_serve, args=(self._options, devices, asked, self._answers))
            process.start()
            self._asked.append(asked)
            self._processes.append(process)
        Finalize(self, _end, args=(self._processes,), exitpriority=1)

    def log_likelihood(self, prompt_ids: Sequence[int], response_ids: Sequence[int]) -> float:
        """vLLM's log-probabilities of the tokens of a prompt; the one token that it samples is thrown away."""
        if not self._processes:
            self._start()
        self._asked[0].put((list(prompt_ids), list(response_ids)))
        return self._next_answer()[1]

    def _next_answer(self) -> "tuple[int, Any]":
        while True:
            with suppress(queue.Empty):
                place, answer = self._answers.get(timeout=1)
                if place is None:
                    raise RuntimeError(f"engine=vllm has failed: {answer}")
                return place, answer
            for process in self._processes:
                if process.exitcode is not None:
                    raise RuntimeError(f"engine=vllm has failed: a process has ended with {process.exitcode}")


def _end(processes: list[Any]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def _visible_devices() -> tuple[list[str], int]:
    """The GPUs that this process may use, and the memory of one in bytes; none on a CPU."""
    import torch

    count, named = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = named.split(",")[:count] if named else [str(number) for number in range(count)]
    return devices, torch.cuda.get_device_properties(0).total_memory if count else 0


def _serve(options: dict[str, Any], devices: list[str], asked: Any, answers: Any) -> None:
    """A copy's process: for a dictionary of requests the answers one by one, for (prompt, response) its log-likelihood;
    if it fails, (None, why).
    """
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    try:
        from vllm import LLM

        llm = LLM(**options)
        while True:
            wanted = asked.get()
            if isinstance(wanted, tuple):
                answers.put((0, _log_likelihood(llm, *wanted)))
                continue
            for answer in _answers(llm.llm_engine, wanted):
                answers.put(answer)
    except Exception as error:
        answers.put((None, f"{type(error).__name__}: {error}"))


def _answers(engine: Any, asked: "dict[int, Request]") -> "Iterator[tuple[int, Completion]]":
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    from mifo_verl.cpu.generate import Completion

    for place, one in asked.items():
        names = ("temperature", "top_p", "top_k", "max_tokens", "seed")
        of_one = {name: getattr(one, name) for name in names}
        params = SamplingParams(**of_one, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY)
        engine.add_request(str(place), {"prompt_token_ids": list(one.prompt_ids)}, params)
    while engine.has_unfinished_requests():
        for output in engine.step():
            if output.finished:
                answer = output.outputs[0]
                cut = answer.finish_reason == "length"
                yield int(output.request_id), Completion(list(answer.token_ids), [], "length" if cut else "completed")


def _log_likelihood(llm: Any, prompt_ids: list[int], response_ids: list[int]) -> float:
    from vllm import SamplingParams

    asked = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
    [output] = llm.generate([{"prompt_token_ids": [*prompt_ids, *response_ids]}], asked, use_tqdm=False)
    found = output.prompt_logprobs[len(prompt_ids) :]
    return float(sum(at[token].logprob for at, token in zip(found, response_ids, strict=True)))
