"""The analyses that need checkpoints alone: what each is asked with, and what it shows."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mifo_verl.errors import nearest, require, require_choice, require_count
from mifo_verl.tools.analyze.measures import Groups, subspace, support_overlap, update_norms
from mifo_verl.tools.analyze.prune import write_pruned
from mifo_verl.tools.command_line import read, require_writable
from mifo_verl.tools.evaluate.__main__ import evaluate
from mifo_verl.tools.evaluate.questions import load_set
from mifo_verl.tools.evaluate.settings import Settings, parse_settings
from mifo_verl.tools.inspect.sources import open_weights
from mifo_verl.tools.tables import print_frame

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_EVALUATION = [one.name for one in fields(Settings) if one.name not in ("model", "out", "seed", "dtype")]
"""The settings of ``mifo evaluate`` that ``prune`` hands on; the seed is that of the masks too."""


@dataclass(frozen=True)
class Updates:
    """``updates START END [END ...]``."""

    json: Path | None = None

    def run(self, weights: list[str]) -> Any:
        ends = {_label(text, weights[1:]): open_weights(text) for text in weights[1:]}
        found = update_norms(open_weights(weights[0]), ends)

        def cells(values: dict[str, Any]) -> dict[str, str]:
            over = {
                end: "-" if one["relative"] is None else f"{one['relative']:.2e}" for end, one in values["ends"].items()
            }
            return {end: f"{one['norm']:.4g} ({over[end]})" for end, one in values["ends"].items()}

        _print_groups(found, cells, "norm of the update (and over the norm of the start)")
        return found


@dataclass(frozen=True)
class Subspace:
    """``subspace START END``."""

    rank: int = 16
    device: str = "cpu"
    json: Path | None = None

    def __post_init__(self) -> None:
        require_count("rank", self.rank, "16 is the default")
        try:
            torch.zeros(1, device=self.device).item()  # a device that holds a number and gives it back
        except (RuntimeError, AssertionError):  # the second is of a torch that was built without it
            rule = "a device that torch finds here, such as cpu"
            raise ValueError(f"device={self.device} must be {rule}; choose one") from None

    def run(self, weights: list[str]) -> Any:
        found = subspace(open_weights(weights[0]), open_weights(weights[1]), self.rank, self.device)
        frame = pd.DataFrame(found)
        of = {name: name.partition("_")[2] or "mean" for name in frame.columns[3:]}  # the mean, and the largest angle
        for by in ("layer", "kind"):
            groups = frame.groupby(by, sort=False)
            shown = groups.agg(of).map("{:.4g}".format)
            shown.insert(0, "matrices", groups.size())
            title = f"angles (degrees) of the {self.rank} leading singular vectors; relative change of the values"
            print_frame(shown.reset_index(), title)
        return found


@dataclass(frozen=True)
class Overlap:
    """``overlap START A B``."""

    start_b: str | None = None
    dtype: str = "bfloat16"
    json: Path | None = None

    def __post_init__(self) -> None:
        require_choice("dtype", self.dtype, tuple(_DTYPES))

    def run(self, weights: list[str]) -> Any:
        start, one, two = (open_weights(text) for text in weights)
        start_two = open_weights(self.start_b) if self.start_b else start
        found = support_overlap((start, one), (start_two, two), _DTYPES[self.dtype])

        def cells(values: dict[str, Any]) -> dict[str, str]:
            size, titles = values["coordinates"] or 1, ("A changed", "B changed", "both")
            shares = [f"{values[name] / size:.2%}" for name in ("first", "second", "both")]
            meet = {name: "-" if values[name] is None else f"{values[name]:.3f}" for name in ("jaccard", "chance")}
            return dict(zip(titles, shares, strict=True)) | meet

        _print_groups(found, cells, "supports")
        return found


@dataclass(frozen=True)
class Prune:
    """``prune START END out=<folder>``."""

    out: Path
    rates: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    seed: int = 0
    rescale: str = "no"
    dtype: str | None = None

    def __post_init__(self) -> None:
        for rate in self.rates:
            require(0 <= rate < 1, "rates", f"{rate:g}", "numbers in [0, 1)", "1 would leave nothing of the update")
        require_choice("rescale", self.rescale, ("no", "dare"))
        require_choice("dtype", self.dtype or "float32", tuple(_DTYPES))

    def run(self, weights: list[str], evaluation: list[str]) -> None:
        """The pruned models, and what becomes of their accuracy if the ``evaluation`` has settings."""
        folders = {rate: self.out / f"rate_{rate:g}" for rate in self.rates}
        settings = self._evaluation(list(folders.values()), evaluation) if evaluation else None
        start, end, folder = open_weights(weights[0]), open_weights(weights[1]), Path(weights[1])
        model = folder / "actor" / "huggingface" if (folder / "actor").is_dir() else folder
        for rate, own in folders.items():
            dtype = _DTYPES[self.dtype] if self.dtype else None
            write_pruned(start, end, model, own, rate, self.seed, self.rescale == "dare", dtype)
            print(own)
        if settings is not None:
            _print_accuracy(list(folders), evaluate(settings))

    def _evaluation(self, models: list[Path], asked: list[str]) -> Settings:
        """The evaluation of these models. Raises ValueError on its mistakes, before anything is written."""
        if not any(one.startswith("benchmarks=") for one in asked):
            raise ValueError(f"{asked[0]} must go with benchmarks=[<name or file>,...]; without them none is evaluated")
        named = [f"model=[{','.join(map(str, models))}]", f"out={self.out / 'evaluation'}", f"seed={self.seed}"]
        settings = parse_settings([*named, *asked])
        for entry in settings.benchmarks:
            load_set(entry, settings.data, settings.samples, settings.limit)
        return settings


_COMMANDS: dict[str, tuple[type, int, int | None]] = {
    "updates": (Updates, 2, None),
    "prune": (Prune, 2, 2),
    "subspace": (Subspace, 2, 2),
    "overlap": (Overlap, 3, 3),
}


def analyze(what: str, arguments: Sequence[str]) -> None:
    """Run one analysis of the ``arguments``: weights, and ``key=value``. Raises ValueError on mistakes."""
    known = [*_COMMANDS, "fork", "predictors", "sparsify", "forgetting", "sensitivity"]
    if what not in _COMMANDS:
        raise ValueError(f"{what} must be one of {', '.join(known)}{nearest(what, known)}; see --help")
    kind, least, most = _COMMANDS[what]
    options = [one for one in arguments if "=" in one]
    weights = [one for one in arguments if "=" not in one]
    evaluation = [one for one in options if kind is Prune and one.partition("=")[0] in _EVALUATION]
    asked: Any = read(kind, [one for one in options if one not in evaluation])
    more = " or more" if most is None else ""
    count = least <= len(weights) <= (most or len(weights))
    require(count, "weights", len(weights), f"{least}{more} for {what}", "see --help")
    if kind is Prune:
        asked.run(weights, evaluation)
        return
    if asked.json is not None:
        require_writable("json", asked.json)
    found = asked.run(weights)
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")


def _print_groups(found: Groups, cells: Callable[[dict[str, Any]], dict[str, str]], title: str) -> None:
    """A table by layer, with the sum over all, and one by kind of matrix."""
    for by, groups in (("layer", found["by_layer"] | found["total"]), ("kind", found["by_kind"])):
        rows = [{by: group, "coordinates": f"{own['coordinates']:,.0f}"} | cells(own) for group, own in groups.items()]
        print_frame(pd.DataFrame(rows), title)


def _print_accuracy(rates: Sequence[float], tables: Sequence[dict[str, Any]]) -> None:
    """Accuracy with its 95 % interval by rate and benchmark."""
    from mifo_verl.tools.evaluate.report import cell

    rows = []
    for rate, table in zip(rates, tables, strict=True):
        found = {name: one["metrics"]["avg"] for name, one in table["benchmarks"].items()}
        shown = found | {"average": table["average"]["avg"]}
        rows.append({"rate": f"{rate:g}"} | {name: cell(value) for name, value in shown.items()})
    print_frame(pd.DataFrame(rows), "percent correct [95 % interval] of the pruned update")


def _label(text: str, among: list[str]) -> str:
    """The last part of a path that tells it from the others."""
    parts = Path(text).parts
    for length in range(1, len(parts) + 1):
        own = "/".join(parts[-length:])
        if sum(other == text or "/".join(Path(other).parts[-length:]) == own for other in among) == 1:
            return own
    return text
