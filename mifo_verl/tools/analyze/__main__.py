"""``python -m mifo_verl.tools.analyze <what> <weights> ... [key=value ...]``: analyses of checkpoints, tensor by tensor."""

import json
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from mifo_verl.errors import nearest
from mifo_verl.tools.analyze import show
from mifo_verl.tools.analyze.overlap import support_overlap
from mifo_verl.tools.analyze.prune import write_pruned
from mifo_verl.tools.analyze.subspace import subspace
from mifo_verl.tools.analyze.updates import update_norms
from mifo_verl.tools.command_line import require_writable
from mifo_verl.tools.evaluate.__main__ import evaluate
from mifo_verl.tools.evaluate.questions import load_set
from mifo_verl.tools.evaluate.settings import Settings, parse_settings
from mifo_verl.tools.inspect.sources import open_weights
from mifo_verl.tools.sweep import __main__ as sweeps
from mifo_verl.tools.sweep import forgetting

USAGE = """usage: python -m mifo_verl.tools.analyze <what> <weights> ... [key=value ...]
  updates   START END [END ...]            norm of every END's update, by layer and by kind of matrix
  prune     START END out=<folder> [rates=0,0.1,0.2,0.3,0.4,0.5] [seed=0] [rescale=no|dare] [dtype=bfloat16]
                                           pruned models as Hugging Face folders out/rate_<p>;
        benchmarks=[<name or file>,...] [setting=value ...]   evaluates each, with the settings of mifo_verl.tools.evaluate
  subspace  START END [rank=16] [device=cpu]   principal angles of the leading singular vectors
  overlap   START A B [start_b=START_B] [dtype=bfloat16|float32]   where the updates to A and to B meet
  these four but prune: [json=<file>]      the same numbers in a file
  sparsify    [setting=value ...]          training with gradients dropped at random, RL and SFT, several rates
  forgetting  [rl_steps=50] [steps=10] [setting=value ...]   RL, then every method's own objective from there
  sensitivity [setting=value ...]          MIFO's p, rho, k, alpha and S, one at a time
                                           these train: settings, sweep_dir= and jobs= are those of mifo_verl.tools.sweep
weights: a Hugging Face folder, a checkpoint global_step_N, or global_step_N@start, where its interval began"""

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
Options = dict[str, str]
_EVALUATION = tuple(one.name for one in fields(Settings) if one.name not in ("model", "out", "seed", "dtype"))
"""The settings of mifo_verl.tools.evaluate that ``prune`` hands on; the seed is that of the masks too."""


def _updates(weights: list[str], options: Options) -> Any:
    ends = {_label(text, weights[1:]): open_weights(text) for text in weights[1:]}
    found = update_norms(open_weights(weights[0]), ends)
    show.updates(found, list(ends))
    return found


def _prune(weights: list[str], options: Options) -> None:
    if "out" not in options:
        raise ValueError("out= must be a folder; the pruned models are written into it")
    rescale = _choice(options, "rescale", ("no", "dare"), "no") == "dare"
    dtype = _DTYPES[_choice(options, "dtype", tuple(_DTYPES), "float32")] if "dtype" in options else None
    seed = _whole("seed", options.get("seed", "0"))
    out, folders = Path(options["out"]), _by_rate(options)
    settings = _evaluation(options, list(folders.values()), out / "evaluation")
    start, end = open_weights(weights[0]), open_weights(weights[1])
    folder = Path(weights[1])
    model = folder / "actor" / "huggingface" if (folder / "actor").is_dir() else folder
    for rate, own in folders.items():
        write_pruned(start, end, model, own, float(rate), seed, rescale, dtype)
        print(own)
    if settings is not None:
        show.pruned(dict(zip(folders, evaluate(settings), strict=True)))


def _by_rate(options: Options) -> dict[str, Path]:
    """The folder of every rate."""
    rates = [text.strip() for text in options.get("rates", "0,0.1,0.2,0.3,0.4,0.5").split(",")]
    for text in rates:
        if not 0 <= _number("rates", text) < 1:
            raise ValueError(f"rates={text} must be numbers in [0, 1); 1 would leave nothing of the update")
    return {text: Path(options["out"]) / f"rate_{text}" for text in rates}


def _evaluation(options: Options, models: list[Path], out: Path) -> Settings | None:
    """The evaluation of these models; None where no benchmark is asked for. Raises ValueError on its mistakes."""
    asked = [f"{key}={value}" for key, value in options.items() if key in _EVALUATION]
    if "benchmarks" not in options:
        if asked:
            raise ValueError(f"{asked[0]} must go with benchmarks=[<name or file>,...]; without them none is evaluated")
        return None
    seed = [f"seed={options['seed']}"] if "seed" in options else []
    settings = parse_settings([f"model=[{','.join(map(str, models))}]", f"out={out}", *seed, *asked])
    for entry in settings.benchmarks:
        load_set(entry, settings.data, settings.samples, settings.limit)  # a mistake is told before anything is written
    return settings


def _subspace(weights: list[str], options: Options) -> Any:
    rank = _whole("rank", options.get("rank", "16"))
    if rank < 1:
        raise ValueError(f"rank={rank} must be at least 1; the paper on rotations looks at the leading vectors")
    device = _device(options.get("device", "cpu"))
    found = subspace(open_weights(weights[0]), open_weights(weights[1]), rank, device)
    show.subspace(found, rank)
    return found


def _overlap(weights: list[str], options: Options) -> Any:
    start, one, two = (open_weights(text) for text in weights)
    start_two = open_weights(options["start_b"]) if "start_b" in options else start
    dtype = _DTYPES[_choice(options, "dtype", tuple(_DTYPES), "bfloat16")]
    found = support_overlap((start, one), (start_two, two), dtype)
    show.overlap(found)
    return found


_COMMANDS: dict[str, tuple[Callable[[list[str], Options], Any], int, int | None, tuple[str, ...]]] = {
    "updates": (_updates, 2, None, ("json",)),
    "prune": (_prune, 2, 2, ("out", "rates", "seed", "rescale", "dtype", *_EVALUATION)),
    "subspace": (_subspace, 2, 2, ("rank", "device", "json")),
    "overlap": (_overlap, 3, 3, ("start_b", "dtype", "json")),
}


_TRAININGS: dict[str, Callable[[list[str]], int]] = {
    "sparsify": lambda given: sweeps.main(["sweep=sparsify", *given]),
    "forgetting": forgetting.main,
    "sensitivity": lambda given: sweeps.main(["sweep=sensitivity", *given]),
}


def main(arguments: list[str]) -> int:
    """Run one analysis; returns the exit code."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0 if arguments else 2
    if arguments[0] in _TRAININGS:
        return _TRAININGS[arguments[0]](arguments[1:])
    try:
        found, options = _run(arguments[0], arguments[1:])
        if "json" in options:
            Path(options["json"]).write_text(json.dumps(found, indent=2) + "\n")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(what: str, rest: list[str]) -> tuple[Any, Options]:
    if what not in _COMMANDS:
        known_commands = [*_COMMANDS, *_TRAININGS]
        raise ValueError(
            f"{what} must be one of {', '.join(known_commands)}{nearest(what, known_commands)}; see --help"
        )
    command, least, most, known = _COMMANDS[what]
    options = dict(text.split("=", 1) for text in rest if "=" in text)
    weights = [text for text in rest if "=" not in text]
    for key in options:
        if key not in known:
            raise ValueError(f"{key} must be one of {', '.join(known)}{nearest(key, list(known))}; remove it")
    if len(weights) < least or (most is not None and len(weights) > most):
        raise ValueError(
            f"{what} takes {least}{' or more' if most is None else ''} weights, not {len(weights)}; see --help"
        )
    if "json" in options:
        require_writable("json", Path(options["json"]))
    return command(weights, options), options


def _label(text: str, among: list[str]) -> str:
    """The last part of a path that tells it from the others."""
    parts = Path(text).parts
    for length in range(1, len(parts) + 1):
        own = "/".join(parts[-length:])
        if sum(other == text or "/".join(Path(other).parts[-length:]) == own for other in among) == 1:
            return own
    return text


def _number(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{key}={text} must be a number; correct it") from None


def _whole(key: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{key}={text} must be a whole number; correct it") from None


def _device(text: str) -> str:
    """A device that holds a number and gives it back. Raises ValueError on any other."""
    try:
        torch.zeros(1, device=text).item()
    except (RuntimeError, AssertionError):  # the second is of a torch that was built without it
        raise ValueError(f"device={text} must be a device that torch finds here, such as cpu; choose one") from None
    return text


def _choice(options: Options, key: str, choices: tuple[str, ...], default: str) -> str:
    value = options.get(key, default)
    if value not in choices:
        raise ValueError(f"{key}={value} must be one of {', '.join(choices)}; choose one of them")
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
