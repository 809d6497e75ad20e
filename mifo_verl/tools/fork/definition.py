"""What a fork compares: arms, each a list of overrides, and the tests that are planned; trainer_configs/fork/."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from mifo_verl.compose import ConfigError, config_folder
from mifo_verl.errors import nearest, require_count
from mifo_verl.tools.fork.numbers import NUMBERS


@dataclass(frozen=True)
class Bed:
    """The data of a fork, and the number that answers its planned tests at a matched gain. Files are parquet files."""

    train: str
    """The demonstrations."""
    own: str
    """Questions of the skill that the checkpoint has: what may be forgotten."""
    gained: str
    """Questions of the skill that the demonstrations teach."""
    gain: float
    """The gain at which arms are compared, as a share of the questions of ``gained``."""
    number: str = "lost"


@dataclass(frozen=True)
class Definition:
    """A file of ``trainer_configs/fork/``."""

    title: str
    updates: int
    """Of every arm's SFT phase."""
    at: tuple[int, ...]
    """The updates after which an arm is measured; the last is."""
    arms: dict[str, list[str]]
    """Overrides of every arm by its label, behind those of all."""
    pairs: list[tuple[str, str]] = field(default_factory=list)
    """The planned tests: first minus second."""
    overrides: list[str] = field(default_factory=list)
    beds: dict[str, Bed] = field(default_factory=dict)


def read_definition(name: str) -> Definition:
    """``trainer_configs/fork/<name>.yaml``, or the file of a path that ends in .yaml. Raises ConfigError."""
    folder = config_folder() / "fork"
    names = sorted(file.stem for file in folder.glob("*.yaml"))
    file = Path(name).expanduser() if name.endswith(".yaml") else folder / f"{name}.yaml"
    if not file.is_file():
        known = f"{', '.join(names)}{nearest(name, names)}"
        raise ConfigError(f"sweep={name} must be one of {known}, the files of {folder}/, or a .yaml file that exists")
    return parse(yaml.safe_load(file.read_text()), file)


def parse(node: Mapping[str, Any], file: Path) -> Definition:
    """A definition from its YAML. Raises ConfigError, naming the file, on keys and names that it cannot have."""
    _require_known("key", node, [one.name for one in fields(Definition)], file)
    for missing in {"title", "updates", "at", "arms"} - node.keys():
        raise ConfigError(f"{file}: {missing} must be set; add it")
    require_count("updates", node["updates"], "write updates: 60")
    beds = node.get("beds") or {}
    for own in beds.values():
        _require_known("key", own, [one.name for one in fields(Bed)], file)
        _require_known("number", [own.get("number", "lost")], list(NUMBERS), file)
    made = Definition(
        title=node["title"],
        updates=node["updates"],
        at=tuple(sorted({*(int(one) for one in node["at"] if one <= node["updates"]), node["updates"]})),
        arms={str(label): _overrides(given) for label, given in node["arms"].items()},
        pairs=[(str(first), str(second)) for first, second in node.get("pairs") or []],
        overrides=_overrides(node.get("overrides")),
        beds={str(name): Bed(**own) for name, own in beds.items()},
    )
    _require_known("arm of pairs", [arm for pair in made.pairs for arm in pair], list(made.arms), file)
    return made


def _require_known(what: str, given: Sequence[str] | Mapping[str, Any], known: Sequence[str], file: Path) -> None:
    for one in given:
        if one not in known:
            near = nearest(str(one), list(known))
            raise ConfigError(f"{file}: {what}={one} must be one of {', '.join(known)}{near}; correct it")


def _overrides(given: Any) -> list[str]:
    """A list of overrides, also written as one line with blanks between them."""
    return str(given).split() if isinstance(given, str) else [str(one) for one in given or []]
