"""vLLM as an engine: every response has a seed of its own; responses are handed over as they end.

Needs a GPU and vLLM 0.24 (``pip install -e '.[gpu]'``). Not bit-identical between runs: vLLM's rounding depends on
which requests it computes together.
"""

from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Any

from mifo_verl.cpu.generate import Completion, Request


class VllmEngine:
    """One vLLM engine over all GPUs of the machine (tensor parallel)."""

    name = "vllm"

    def __init__(self, folder: Path, dtype: str) -> None:
        import torch
        from vllm import LLM

        gpus = max(1, torch.cuda.device_count())
        self._llm = LLM(model=str(folder), dtype=dtype, tensor_parallel_size=gpus, enable_prefix_caching=True)
        self.dtype = dtype
        self.tokenizer: Any = self._llm.get_tokenizer()
        self.max_positions: int | None = self._llm.llm_engine.model_config.max_model_len

    def generate(
        self, requests: Sequence[Request], needed: Set[int], on_end: Callable[[int, Completion], None]
    ) -> None:
        """All needed requests at once; vLLM orders them."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        engine = self._llm.llm_engine
        for place in sorted(needed):
            request = requests[place]
            params = SamplingParams(
                temperature=request.temperature,
                top_p=request.top_p,
                top_k=request.top_k,
                max_tokens=request.max_tokens,
                seed=request.seed,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            engine.add_request(str(place), {"prompt_token_ids": list(request.prompt_ids)}, params)
        while engine.has_unfinished_requests():
            for output in engine.step():
                if output.finished:
                    answer = output.outputs[0]
                    cut = answer.finish_reason == "length"
                    completion = Completion(list(answer.token_ids), [], "length" if cut else "completed")
                    on_end(int(output.request_id), completion)
