"""What a policy answers: questions as its run asks them, by the engines of ``mifo evaluate``, judged by the run's reward."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from safetensors.torch import save_file

from mifo_verl.cpu.generate import Completion, Request
from mifo_verl.data.demonstrations import prompt_id_of
from mifo_verl.data.parquet import check_columns
from mifo_verl.loop.streams import stable_seed
from mifo_verl.probes.held_out import spread
from mifo_verl.tools.evaluate.engines import Engine, load_engine
from mifo_verl.tools.evaluate.settings import Settings
from mifo_verl.types import Rejection, SftExample
from mifo_verl.verl.demonstrations import Demonstrations
from mifo_verl.verl.merge import say_dtype

Row = dict[str, Any]


@dataclass(frozen=True)
class Skill:
    """Questions of one skill, and what their demonstrations are as SFT would train on them."""

    rows: list[Row]
    prompts: list[tuple[int, ...]]
    demonstrations: list[SftExample]


@dataclass(frozen=True)
class Asker:
    """How a model is asked. One process does it."""

    demonstrations: Demonstrations
    model: Path
    """A Hugging Face folder without weights, in which those of the moment are written."""
    engine: str
    batch: int
    threads: int
    gpu_memory: float
    max_tokens: int

    def written(self, weights: Mapping[str, Any]) -> Path:
        """The folder with these weights in it."""
        save_file(dict(weights), self.model / "model.safetensors", metadata={"format": "pt"})
        return self.model

    def load(self, weights: Mapping[str, Any]) -> Engine:
        """The engine with these weights."""
        folder = self.written(weights)
        how: dict[str, Any] = {
            "engine": self.engine,
            "batch": self.batch,
            "threads": self.threads,
            "gpu_memory": self.gpu_memory,
        }
        return load_engine(folder, Settings(model=(str(folder),), benchmarks=("own",), **how))

    def correct(self, engine: Engine, skill: Skill) -> list[int]:
        """1 for every question whose greedy answer is right, else 0."""
        answers = self._generated(engine, [Request(ids, self.max_tokens, temperature=0.0) for ids in skill.prompts])
        return self._judged(engine, skill.rows, answers)

    def _judged(self, engine: Engine, rows: Sequence[Row], answers: Sequence[Completion]) -> list[int]:
        texts = [
            engine.tokenizer.decode(one.token_ids, skip_special_tokens=True) for one in answers
        ]  # as verl's reward loop
        truth = [str(row["reward_model"]["ground_truth"]) for row in rows]
        judged = zip(rows, texts, truth, strict=True)
        return [int(self.demonstrations.is_correct(row, text, answer)) for row, text, answer in judged]

    def correct_rollouts(self, engine: Engine, rows: Sequence[Row], sampling: Mapping[str, Any]) -> list[SftExample]:
        """Those of one answer to each row that are right, as a run keeps its own, in the order of the rows.

        ``sampling`` holds temperature, top_p and top_k.
        """
        prompts = [tuple(self.demonstrations.render(row | {"raw_prompt": row["prompt"]})) for row in rows]
        ids = [prompt_id_of(row) for row in rows]
        requests = [
            Request(prompt, self.max_tokens, stable_seed("fork", "own", one), **sampling)
            for prompt, one in zip(prompts, ids, strict=True)
        ]
        answers = self._generated(engine, requests)
        found = zip(ids, prompts, answers, self._judged(engine, rows, answers), strict=True)
        return [SftExample(one, prompt, tuple(a.token_ids), "", "rollout") for one, prompt, a, right in found if right]

    def rollouts(self, engine: Engine, skill: Skill, number: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Answers to ``number`` of the questions, evenly spaced, at temperature 1: (prompt, answer) as token ids."""
        asked = spread(list(zip(skill.rows, skill.prompts, strict=True)), number)
        requests = [Request(ids, self.max_tokens, stable_seed("fork", prompt_id_of(row))) for row, ids in asked]
        answers = self._generated(engine, requests)
        return [(ids, tuple(one.token_ids)) for (_, ids), one in zip(asked, answers, strict=True)]

    @staticmethod
    def _generated(engine: Engine, requests: Sequence[Request]) -> list[Completion]:
        found: dict[int, Completion] = {}
        engine.generate(requests, set(range(len(requests))), found.__setitem__)
        return [found[place] for place in range(len(requests))]


def model_folder(checkpoint: Path, folder: Path) -> Path:
    """The config and the tokenizer of a checkpoint's model, copied to a folder for weights in float32."""
    shutil.copytree(checkpoint / "actor" / "huggingface", folder)
    say_dtype(folder / "config.json", "float32")
    return folder


def read_rows(setting: str, file: Path) -> list[Row]:
    """The rows of a parquet file in verl's schema. Raises ValueError, naming the setting, if it is none."""
    if not file.is_file():
        raise ValueError(
            f"{setting}={file} must be a parquet file that exists; make it with mifo data, or check the path"
        )
    check_columns(file, setting)
    rows: list[Row] = pq.read_table(file).to_pylist()
    return rows


def read_skill(setting: str, file: Path, demonstrations: Demonstrations, number: int) -> Skill:
    """The questions of a file, and at most ``number`` of their demonstrations, evenly spaced."""
    rows = read_rows(setting, file)
    prompts = [tuple(demonstrations.render(row | {"raw_prompt": row["prompt"]})) for row in rows]
    told = examples(rows, demonstrations)
    return Skill(rows, prompts, spread(told, number))


def examples(rows: Sequence[Row], demonstrations: Demonstrations) -> list[SftExample]:
    """The verified demonstrations of rows, in their order."""
    built = [demonstrations.build(row, demonstrations.render(row | {"raw_prompt": row["prompt"]})) for row in rows]
    return [one for one in built if not isinstance(one, Rejection)]
