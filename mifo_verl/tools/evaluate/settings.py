"""The settings of an evaluation, from ``key=value`` on the command line."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mifo_verl.errors import require, require_count
from mifo_verl.rewards.kinds import AUTO, Scorer, scorer
from mifo_verl.tools.command_line import read
from mifo_verl.tools.evaluate.engines import choose_engine
from mifo_verl.tools.evaluate.templates import CHAT, check_template

_KEPT = ("template", "system", "temperature", "top_p", "max_tokens", "seed", "limit", "reward", "require_think")


@dataclass(frozen=True)
class Settings:
    """One evaluation. Every value is checked when it is made."""

    model: tuple[str, ...]
    benchmarks: tuple[str, ...]
    data: Path | None = None
    out: Path = Path("evaluations")
    template: str = CHAT
    system: str | None = None
    samples: int = 1
    k: tuple[int, ...] = ()
    temperature: float = 0.6
    top_p: float = 1.0
    max_tokens: int = 8192
    seed: int = 0
    limit: int | None = None
    reward: str = AUTO
    require_think: bool = False
    engine: str = "auto"
    dtype: str = "auto"
    batch: int = 64
    threads: int = len(os.sched_getaffinity(0))
    tensor_parallel: int | None = None
    """GPUs that share a copy of the model; None for as few as hold it."""
    gpu_memory: float = 0.9
    """Share of a GPU's memory that vLLM takes."""
    max_length: int | None = None
    """Tokens of prompt and response for which vLLM keeps room; None for what the model takes."""

    def __post_init__(self) -> None:
        require(len(self.model) > 0, "model", list(self.model), "given", "write model=<folder>")
        require(len(self.benchmarks) > 0, "benchmarks", list(self.benchmarks), "given", "write benchmarks=[gsm8k]")
        for name in ("samples", "max_tokens", "batch", "threads"):
            require_count(name, getattr(self, name), "correct it")
        require(all(k >= 1 for k in self.k), "k", list(self.k), "whole numbers of at least 1", "write k=[1,8]")
        require(self.limit is None or self.limit >= 1, "limit", self.limit, "at least 1", "leave it away for all")
        require(self.seed >= 0, "seed", self.seed, "at least 0", "write seed=0")
        require(self.temperature >= 0, "temperature", self.temperature, "at least 0", "0 is greedy")
        require(0 < self.top_p <= 1, "top_p", self.top_p, "in (0, 1]", "1 keeps every word")
        one = "1 at temperature=0, where all responses are the same"
        require(self.temperature > 0 or self.samples == 1, "samples", self.samples, one, "sample at a higher one")
        dtypes = ("auto", "float32", "bfloat16")
        require(self.dtype in dtypes, "dtype", self.dtype, "auto, float32 or bfloat16", "auto is float32 on a CPU")
        require(self.data is None or self.data.is_dir(), "data", self.data, "an existing folder", "check the path")
        require(0 < self.gpu_memory <= 1, "gpu_memory", self.gpu_memory, "in (0, 1]", "vLLM's default is 0.9")
        for name in ("tensor_parallel", "max_length"):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name), "leave it out")
        check_template(self.template)
        chats = self.system is None or self.template == CHAT
        require(chats, "system", self.system, "left away unless template=chat", "other templates have their own")
        choose_engine(self.engine)
        self.scorer()

    def scorer(self) -> Scorer:
        return scorer(self.reward, self.require_think, setting="reward")

    def engine_and_dtype(self) -> tuple[str, str]:
        """What computes the responses, and in which numbers."""
        engine = choose_engine(self.engine)
        return engine, self.dtype if self.dtype != "auto" else "bfloat16" if engine == "vllm" else "float32"

    def ks(self, num_samples: int) -> tuple[int, ...]:
        """The ks of pass@k and maj@k for benchmarks with so many samples."""
        if self.k:
            return tuple(sorted({k for k in self.k if k <= num_samples}))
        return tuple(sorted({2**power for power in range(num_samples.bit_length())} | {num_samples}))

    def kept(self) -> dict[str, Any]:
        """The settings that a result depends on, for its file."""
        engine, dtype = self.engine_and_dtype()
        return {name: getattr(self, name) for name in _KEPT} | {"engine": engine, "dtype": dtype}


def parse_settings(arguments: list[str]) -> Settings:
    """The settings of ``key=value`` arguments. Raises ValueError on an unknown, missing or malformed one."""
    return read(Settings, [one.lower() if one.startswith("template=") else one for one in arguments])
