"""What answers the questions: vLLM where it is installed, else transformers with the generation of this package."""

import importlib.util
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mifo_verl.errors import nearest

if TYPE_CHECKING:  # importing them means importing torch, and a comparison needs none
    from mifo_verl.cpu.generate import Completion, Request

ENGINES = ("auto", "vllm", "transformers")


class Engine(Protocol):
    """A model that is loaded."""

    name: str
    dtype: str
    tokenizer: Any
    max_positions: int | None

    def generate(
        self, requests: "Sequence[Request]", needed: Set[int], on_end: "Callable[[int, Completion], None]"
    ) -> None:
        """Call ``on_end(place, completion)`` once for every needed place of ``requests``, as soon as it has ended.

        All requests are given, so that what is left after an interruption is computed as if there had been none.
        """


def choose_engine(engine: str) -> str:
    """``vllm`` or ``transformers``. Raises ValueError on another name, and where vLLM is asked for and missing."""
    if engine not in ENGINES:
        raise ValueError(f"engine={engine} must be one of {', '.join(ENGINES)}{nearest(engine, list(ENGINES))}")
    installed = importlib.util.find_spec("vllm") is not None
    if engine == "vllm" and not installed:
        raise ValueError("engine=vllm must go with vLLM installed; pip install -e '.[gpu]', or use engine=transformers")
    return ("vllm" if installed else "transformers") if engine == "auto" else engine


def load_engine(engine: str, folder: Path, dtype: str, batch: int, threads: int) -> Engine:
    """The model of a Hugging Face folder in the engine ``vllm`` or ``transformers``."""
    if engine == "vllm":
        from mifo_verl.tools.evaluate.vllm_engine import VllmEngine

        return VllmEngine(folder, dtype)
    from mifo_verl.tools.evaluate.transformers_engine import TransformersEngine

    return TransformersEngine(folder, dtype, batch, threads)
