"""What answers the questions: vLLM if it is installed, else transformers with the generation of this package."""

import importlib.util
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mifo_verl.errors import require_choice

if TYPE_CHECKING:  # importing them means importing torch, and a mistake in the settings is told without
    from mifo_verl.cpu.generate import Completion, Request

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


def load_engine(engine: str, folder: Path, dtype: str, batch: int, threads: int) -> Engine:
    """The model of a Hugging Face folder in the engine ``vllm`` or ``transformers``."""
    return VllmEngine(folder, dtype) if engine == "vllm" else TransformersEngine(folder, dtype, batch, threads)


class TransformersEngine:
    """Batches on a CPU. Each is cut from all requests in one order, so that its rounding is the same in every run."""

    name = "transformers"

    def __init__(self, folder: Path, dtype: str, batch: int, threads: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from mifo_verl.cpu.kv_cache import ATTENTION

        torch.set_num_threads(threads)
        self.dtype, self._batch = dtype, batch
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
    """One vLLM 0.24 engine over all GPUs of the machine (tensor parallel). Every response has a seed of its own.

    Not bit-identical between runs: vLLM's rounding depends on which requests it computes together.
    """

    name = "vllm"

    def __init__(self, folder: Path, dtype: str) -> None:
        import torch
        from vllm import LLM

        gpus = max(1, torch.cuda.device_count())
        self._llm = LLM(model=str(folder), dtype=dtype, tensor_parallel_size=gpus, enable_prefix_caching=True)
        self.dtype = dtype
        self.tokenizer: Any = self._llm.get_tokenizer()
        self.max_positions: int | None = self._llm.llm_engine.model_config.max_model_len

    def generate(self, requests: "Sequence[Request]", needed: Set[int], on_end: "OnEnd") -> None:
        """All needed requests at once; vLLM orders them."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        from mifo_verl.cpu.generate import Completion

        engine = self._llm.llm_engine
        for place in sorted(needed):
            one = requests[place]
            names = ("temperature", "top_p", "top_k", "max_tokens", "seed")
            asked = {name: getattr(one, name) for name in names}
            params = SamplingParams(**asked, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY)
            engine.add_request(str(place), {"prompt_token_ids": list(one.prompt_ids)}, params)
        while engine.has_unfinished_requests():
            for output in engine.step():
                if output.finished:
                    answer = output.outputs[0]
                    cut = answer.finish_reason == "length"
                    completion = Completion(list(answer.token_ids), [], "length" if cut else "completed")
                    on_end(int(output.request_id), completion)

    def log_likelihood(self, prompt_ids: Sequence[int], response_ids: Sequence[int]) -> float:
        """vLLM's log-probabilities of the tokens of a prompt; the one token that it samples is thrown away."""
        from vllm import SamplingParams

        asked = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
        [output] = self._llm.generate([{"prompt_token_ids": [*prompt_ids, *response_ids]}], asked, use_tqdm=False)
        found = output.prompt_logprobs[len(prompt_ids) :]
        return sum(at[token].logprob for at, token in zip(found, response_ids, strict=True))
