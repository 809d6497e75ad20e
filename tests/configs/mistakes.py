"""The corpus of mistakes: reading a file of tests/mistakes/, writing the data and the model that it asks for."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mifo_verl.data.addition import rows

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
