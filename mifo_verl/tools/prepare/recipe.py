"""A recipe: from a source to rows. Each recipe is a frozen dataclass whose fields are its own settings."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from mifo_verl.tools.prepare.rows import Dropped, Row, Split
from mifo_verl.tools.prepare.sources import read_records


@dataclass(frozen=True)
class Recipe(ABC):
    """What is common to all. The first line of a recipe's docstring is its help."""

    name: ClassVar[str]
    reward: ClassVar[str] = "math"
    """The kind of reward that verifies its demonstrations (``mifo_verl.rewards.kinds``)."""
    require_think: ClassVar[bool] = False
    train: ClassVar[str] = ""
    """The source of the train split where the command line gives none; '' where it has to."""
    val: ClassVar[str] = ""

    @abstractmethod
    def rows(self, split: Split, source: str) -> Iterator[Row | Dropped]:
        """The rows of a split, or why a record became none. Raises ValueError on a setting or file that is wrong."""


@dataclass(frozen=True)
class FileRecipe(Recipe):
    """A recipe that makes a row of each record of a file or of a hub data set."""

    hub_train: ClassVar[str] = ""
    """``name:config:split`` of the hub's data set, taken for ``train=hub``."""
    hub_val: ClassVar[str] = ""

    @abstractmethod
    def row(self, record: dict[str, Any], split: Split, index: int) -> Row:
        """The row of a record. Raises Dropped."""

    def rows(self, split: Split, source: str) -> Iterator[Row | Dropped]:
        """A row, or the reason against it, for every record, in the order of the source."""
        setting, hub = ("train", self.hub_train) if split == "train" else ("val", self.hub_val)
        for index, record in enumerate(read_records(setting, source, hub)):
            try:
                yield record if isinstance(record, Dropped) else self.row(record, split, index)
            except Dropped as dropped:
                yield dropped
