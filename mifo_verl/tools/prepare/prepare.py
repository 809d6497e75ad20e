"""``python -m mifo_verl.tools.prepare prepare <recipe> key=value ...``: settings checked, splits prepared, reports shown."""

import textwrap
from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mifo_verl.errors import nearest, require
from mifo_verl.rewards.kinds import scorer
from mifo_verl.tools.prepare.decontamination import read_sets
from mifo_verl.tools.prepare.preparation import Preparation, Report
from mifo_verl.tools.prepare.recipe import Recipe
from mifo_verl.tools.prepare.recipes import RECIPES
from mifo_verl.tools.prepare.rows import Split

_COMMON = {
    "out": "the folder for train.parquet and validation.parquet, each with its .report.json",
    "train": "the source of the train split: a .jsonl, .json, .csv or .parquet file, hub, or hub:name:config:split",
    "val": "the source of the validation split",
    "max_rows": "the most rows of each split",
    "system": "a system message in front of every prompt; none takes one out",
    "decontaminate": "files of evaluation questions, with commas; train questions that are in them are dropped",
    "unverified": "keep (default), null or drop: what happens to a demonstration that does not verify",
    "tokenizer": "a folder or hub name: lengths are reported in its tokens too",
}


def usage() -> str:
    """The recipes with their settings, and the settings of all."""
    lines = ["prepare <recipe> key=value ...: rows of verl's schema, and a report", "recipes:"]
    for name, recipe in RECIPES.items():
        lines += textwrap.wrap(_first_line(recipe), 110, initial_indent=f"  {name:<14} ", subsequent_indent=" " * 17)
        own = ", ".join(f"{field.name}={field.default}" for field in fields(recipe))
        lines += textwrap.wrap(own, 110, initial_indent=" " * 17 + "own settings: ", subsequent_indent=" " * 19)
    return "\n".join([*lines, "settings of all:", *(f"  {key:<14} {text}" for key, text in _COMMON.items())])


def prepare(name: str, settings: dict[str, str], console: Console) -> None:
    """Prepare the splits asked for. Raises ValueError, naming the setting, on what a user can fix."""
    rule = f"one of {', '.join(RECIPES)}{nearest(name, list(RECIPES))}"
    require(name in RECIPES, "recipe", name, rule, "write prepare gsm8k")
    recipe = _recipe(RECIPES[name], settings)
    sources: dict[Split, str] = {
        "train": settings.get("train", recipe.train),
        "validation": settings.get("val", recipe.val),
    }
    if "out" not in settings:
        raise ValueError(f"out must be set for {name}; add out=<folder>")
    if not any(sources.values()):
        raise ValueError(f"train or val must be set for {name}; add train=<file>, val=<file> or both")
    every = _preparation(recipe, settings)
    for split, source in sources.items():
        if source:
            preparation = every if split == "train" else replace(every, sets=None)
            path = Path(settings["out"]) / f"{split}.parquet"
            report = Report(name, {key: value for key, value in settings.items() if key != "out"})
            show(preparation.run(recipe.rows(split, source), path, report), path, console)


def show(report: Report, path: Path, console: Console) -> None:
    """The report as one line and a table."""
    console.print(
        f"{path}: {report.rows} rows, {report.demonstrations} with a demonstration, {report.verified} of them verify",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=None, padding=(0, 2, 0, 2), show_header=False)
    table.add_row("records", str(report.records))
    for reason, count in report.dropped.most_common():
        table.add_row(f"dropped: {reason}", str(count))
    for name, count in report.contaminated_by.most_common():
        table.add_row(f"  contaminated by {name}", str(count))
    for name, count in sorted(report.by_source.items())[:20]:
        table.add_row(f"rows of {name}", str(count))
    for name, lengths in report.lengths.items():
        table.add_row(
            name.replace("_", ", in "), "  ".join(f"{key} {value}" for key, value in lengths.items()) or "none"
        )
    console.print(table, highlight=False, soft_wrap=True)


def _preparation(recipe: Recipe, settings: dict[str, str]) -> Preparation:
    """What the settings of all recipes ask for."""
    limit, unverified = settings.get("max_rows", ""), settings.get("unverified", "keep")
    require(not limit or limit.isdecimal(), "max_rows", limit, "a whole number", "write max_rows=100")
    choices = ("keep", "null", "drop")
    require(unverified in choices, "unverified", unverified, "keep, null or drop", "leave it out for keep")
    paths = settings.get("decontaminate")
    return Preparation(
        scorer(recipe.reward, require_think=recipe.require_think),
        unverified,
        int(limit) if limit else None,
        settings.get("system"),
        read_sets(paths.split(",")) if paths else None,
        _counter(settings.get("tokenizer")),
    )


def _recipe(kind: type[Recipe], settings: dict[str, str]) -> Recipe:
    """The recipe with its own settings. Raises ValueError on a key that is neither its own nor common."""
    own = {field.name: field for field in fields(kind)}
    given: dict[str, Any] = {}
    for key, value in settings.items():
        if key in own and isinstance(own[key].default, int):
            require(value.isdecimal(), key, value, "a whole number, at least 0", f"write {key}=1")
            given[key] = int(value)
        elif key in own:
            given[key] = value
        elif key not in _COMMON:
            known = [*own, *_COMMON]
            rule = f"key=value, key one of {', '.join(known)}{nearest(key, known)}"
            require(False, key, value, rule, "see python -m mifo_verl.tools.prepare for all of them")
    assert all(field.default is not MISSING for field in own.values())
    return kind(**given)


def _counter(tokenizer: str | None) -> Callable[[str], int] | None:
    if tokenizer is None:
        return None
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise ValueError(f"tokenizer={tokenizer} must be a tokenizer that loads ({why}); give its folder") from None
    return lambda text: len(loaded.encode(text, add_special_tokens=False))


def _first_line(recipe: type[Recipe]) -> str:
    return (recipe.__doc__ or "").strip().split("\n")[0]
