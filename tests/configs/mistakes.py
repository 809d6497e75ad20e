"""The corpus of mistakes: reading a file of tests/mistakes/, writing what it asks for, and what a check says of it.

``python -m tests.configs.mistakes`` (make mistakes) prints the share that is caught before a run starts.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from mifo_verl.checks.preflight import check_run
from mifo_verl.compose import ConfigError, compose_config
from mifo_verl.tools.prepare.addition import rows

FOLDER = Path(__file__).parents[1] / "mistakes"
MODEL = Path(__file__).parents[2] / "mifo_verl" / "data" / "addition_start"
TRAIN = rows({2: 20, 3: 20}, "train", 0)
VALIDATION = rows({2: 5, 3: 5}, "validation", 0)


@dataclass(frozen=True)
class Mistake:
    """One file: what is wrong, and the pieces of the message that has to name it, decided before the check was."""

    name: str
    kind: str
    expect: list[str]
    level: str = "error"
    caught: bool = True
    thread: str = ""
    overrides: list[str] = field(default_factory=list)
    train: dict[str, Any] | None = None
    model: dict[str, Any] | None = None
    reward: str | None = None
    env: dict[str, str] = field(default_factory=dict)


def read_all() -> list[Mistake]:
    """Every file of the corpus, by name."""
    return [Mistake(name=file.stem, **yaml.safe_load(file.read_text())) for file in sorted(FOLDER.glob("*.yaml"))]


def overrides_of(mistake: Mistake, folder: Path) -> list[str]:
    """The command line of a mistake; its files are written to the folder."""
    data, model = folder / "data", folder / "model"
    data.mkdir(parents=True)
    _write(TRAIN, mistake.train or {}, data)
    pq.write_table(pa.Table.from_pylist(VALIDATION), data / "validation.parquet")
    _copy_model(mistake.model or {}, model)
    base = [
        "prepare=null",
        f"data.train_files={data}/train.parquet",
        f"data.val_files={data}/validation.parquet",
        "buffer_size=8",
        "trainer.total_training_steps=4",
        "mifo.probe.every=4",  # so short a run's probes would take too large a share of it
        f"run_dir={folder}/run",
        f"actor_rollout_ref.model.path={model}",
    ]
    if mistake.reward is not None:
        (folder / "reward.py").write_text(mistake.reward)
        base.append(f"reward.custom_reward_function.path={folder}/reward.py")
    given = [each.replace("{data}", str(data)).replace("{model}", str(model)) for each in mistake.overrides]
    experiment = [] if any(each.startswith("experiment=") for each in given) else ["experiment=quickstart"]
    names = {each.partition("=")[0] for each in given}
    return [*experiment, *(each for each in base if each.partition("=")[0] not in names), *given]


def _write(base: list[dict[str, Any]], edit: dict[str, Any], folder: Path) -> None:
    """The training rows with a mistake's edits. Pieces of text: $question, $truth of the row."""
    path = folder / edit.get("name", "train.parquet")
    if "text" in edit:
        path.write_text(edit["text"])
        return
    made = [dict(row) for row in base[: edit.get("rows", len(base))]]
    for number, row in enumerate(made):
        known = {"question": row["prompt"][0]["content"], "truth": row["reward_model"]["ground_truth"]}
        for column, value in (edit.get("set", {}) | edit.get("change", {}).get(number, {})).items():
            row[column] = _fill(value, known)
        if number >= edit.get("clear_target_from", len(made)):
            row["target"] = None
    if "fill" in edit:
        fill = edit["fill"]
        message = made[fill["row"]][fill["column"]][-1]
        made[fill["row"]][fill["column"]] = [message | {"content": fill["text"] * fill["times"] + message["content"]}]
    made += [made[number] for number, times in edit.get("repeat", {}).items() for _ in range(times)]
    columns = [column for column in (made or base)[0] if column not in edit.get("drop", [])]
    table = pa.Table.from_pylist(made) if made else pa.Table.from_pylist(base).slice(0, 0)
    pq.write_table(table.select(columns), path)


def _fill(value: Any, known: dict[str, str]) -> Any:
    if isinstance(value, str):
        return Template(value).safe_substitute(known)
    if isinstance(value, list):
        return [_fill(each, known) for each in value]
    return {key: _fill(each, known) for key, each in value.items()} if isinstance(value, dict) else value


def _copy_model(edit: dict[str, Any], folder: Path) -> None:
    shutil.copytree(MODEL, folder)
    for part in ("config", "tokenizer_config"):
        path = folder / f"{part}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | edit.get(part, {})))
    if "chat_template" in edit:
        (folder / "chat_template.jinja").unlink()
        if edit["chat_template"] is not None:
            (folder / "chat_template.jinja").write_text(edit["chat_template"])
    for name in edit.get("remove", []):
        (folder / name).unlink()
    for name, text in edit.get("files", {}).items():
        (folder / name).write_text(text)


def messages_of(mistake: Mistake, folder: Path) -> list[str]:
    """What a check says of a mistake: its errors, and its warnings where the mistake is one."""
    overrides = overrides_of(mistake, folder)
    with _environment(mistake.env):
        try:
            config = compose_config(overrides)
            with _environment(config.environment()):
                found = check_run(config.node, overrides).found
        except ConfigError as error:
            return error.errors
    return [str(finding) for finding in found.errors() + (found.warnings() if mistake.level == "warning" else [])]


def named(mistake: Mistake, messages: list[str]) -> list[str]:
    """The messages with every piece that the mistake's file expects."""
    return [message for message in messages if all(str(piece) in message for piece in mistake.expect)]


@contextmanager
def _environment(values: dict[str, str]) -> Any:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def main() -> int:
    """Check every mistake; returns 1 where fewer than 95 of 100 are caught."""
    corpus, slowest, missed = read_all(), 0.0, []
    for mistake in tqdm(corpus, desc="mistakes", disable=None):
        with tempfile.TemporaryDirectory() as folder, redirect_stderr(open(os.devnull, "w")):
            started = time.monotonic()
            messages = messages_of(mistake, Path(folder) / "run")
            slowest = max(slowest, time.monotonic() - started)
        if not named(mistake, messages):
            missed.append(mistake)
    table = Table(title="Mistakes that are not caught", title_justify="left")
    for column in ("file", "mistake", "expected"):
        table.add_column(column)
    for mistake in missed:
        table.add_row(mistake.name, mistake.kind, ", ".join(map(str, mistake.expect)))
    Console().print(table)
    errors = sum(mistake.level == "error" for mistake in corpus if mistake not in missed)
    caught = len(corpus) - len(missed)
    print(f"{caught} of {len(corpus)} mistakes caught before start ({100 * caught / len(corpus):.1f} %): ", end="")
    print(f"{errors} as errors, {caught - errors} as warnings; the slowest took {slowest:.1f} s after the imports")
    return 0 if caught >= 0.95 * len(corpus) else 1


if __name__ == "__main__":
    sys.exit(main())
