"""transformers as an engine, with the generation of this package: a CPU, and the same text in every run."""

from collections.abc import Callable, Sequence, Set
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mifo_verl.cpu.generate import Completion, Request, batches, generate_batch
from mifo_verl.cpu.kv_cache import ATTENTION


class TransformersEngine:
    """Batches on a CPU. Each is cut from all requests in one order, so that its rounding is the same in every run."""

    name = "transformers"

    def __init__(self, folder: Path, dtype: str, batch: int, threads: int) -> None:
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

    def generate(
        self, requests: Sequence[Request], needed: Set[int], on_end: Callable[[int, Completion], None]
    ) -> None:
        """A batch of which one response is needed is computed whole: its rounding depends on who is in it."""
        for places in batches(requests, self._batch):
            if needed.isdisjoint(places):
                continue

            def give(row: int, completion: Completion, places: list[int] = places) -> None:
                if places[row] in needed:
                    on_end(places[row], completion)

            batch = [requests[place] for place in places]
            generate_batch(self._model, batch, self.tokenizer.pad_token_id or 0, self._eos_token_ids, give)
