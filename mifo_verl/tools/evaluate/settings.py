"""The settings of an evaluation, from ``key=value`` on the command line."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mifo_verl.errors import require, require_count
from mifo_verl.rewards.kinds import AUTO, Scorer, scorer
from mifo_verl.tools.command_line import read
from mifo_verl.tools.evaluate.engines import choose_engine
from mifo_verl.tools.evaluate.templates import check_template

USAGE = """usage: python -m mifo_verl.tools.evaluate model=<folder> benchmarks=[<name or file>,...] [key=value ...]
       python -m mifo_verl.tools.evaluate compare <folder or results.json> ...

  model=[a,b]        Hugging Face folders, runs (runs/<name>), checkpoints (.../global_step_<n>), hub names
  benchmarks=[...]   aime24 aime25 amc math500 olympiad minerva gsm8k mmlu_pro gpqa arc_c, or files (.jsonl, .jsonl.gz,
                     .parquet of verl's schema); <name>@<n> asks each question n times
  data=<folder>      where the files of the named benchmarks are; without it they come from the hub
  out=<folder>       results and generations (default evaluations); what is there is not generated again
  template=chat      none, qwen, prime, luffy, or chat: the model's own; system=<text> goes with chat
  samples=1          responses a question; k=[1,2,4] for pass@k and maj@k (default: powers of two up to samples)
  temperature=0.6 top_p=1.0 max_tokens=8192 seed=0
  limit=<n>          the first n questions of each benchmark
  reward=auto        by data source; math, boxed, exact, choice, reasoning_gym or <file>.py:<function>;
                     require_think=true: no </think>, no reward
  engine=auto        vllm where it is installed, else transformers; dtype=float32|bfloat16, batch=64, threads=<cores>"""


@dataclass(frozen=True)
class Settings:
    """One evaluation. Every value is checked when it is made."""

    model: tuple[str, ...]
    benchmarks: tuple[str, ...]
    data: Path | None = None
    out: Path = Path("evaluations")
    template: str = "chat"
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
        require(
            self.temperature > 0 or self.samples == 1,
            "samples",
            self.samples,
            "1 at temperature=0, where all responses are the same",
            "sample at a temperature above 0",
        )
        dtypes = ("auto", "float32", "bfloat16")
        require(self.dtype in dtypes, "dtype", self.dtype, "auto, float32 or bfloat16", "auto is float32 on a CPU")
        require(self.data is None or self.data.is_dir(), "data", self.data, "an existing folder", "check the path")
        check_template(self.template)
        chats = self.system is None or self.template == "chat"
        require(chats, "system", self.system, "left away unless template=chat", "other templates have their own")
        choose_engine(self.engine)
        self.scorer()

    def scorer(self) -> Scorer:
        """The reward that judges the responses."""
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
        names = ("template", "system", "temperature", "top_p", "max_tokens", "seed", "limit", "reward", "require_think")
        return {name: getattr(self, name) for name in names} | {"engine": engine, "dtype": dtype}


def parse_settings(arguments: list[str]) -> Settings:
    """The settings of ``key=value`` arguments. Raises ValueError on an unknown, missing or malformed one."""
    return read(Settings, [one.lower() if one.startswith("template=") else one for one in arguments])
