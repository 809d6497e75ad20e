"""The quick start's task: column addition with a written carry."""

from collections.abc import Iterator
from dataclasses import dataclass

from mifo_verl.errors import require
from mifo_verl.tools.prepare import addition
from mifo_verl.tools.prepare.recipe import Recipe
from mifo_verl.tools.prepare.rows import Dropped, Row, Split


@dataclass(frozen=True)
class Addition(Recipe):
    """The addition task: train= and val= are the rows of each level, from 1 to 5 digits.

    Most rows are of the levels where RL has something to learn (2 and 3); 4 and 5 are hard for the start model.
    """

    name = "addition"
    reward = "boxed"
    train = "20,400,1000,60,30"
    val = "12,150,150,9,9"
    seed: int = 0

    def rows(self, split: Split, source: str) -> Iterator[Row | Dropped]:
        """The rows, level after level; sums that a level lacks count as dropped."""
        setting = "train" if split == "train" else "val"
        sizes = source.split(",")
        good = all(size.isdecimal() for size in sizes) and len(sizes) <= len(addition.LEVELS)
        require(good, setting, source, "whole numbers of rows, one a level", "write 20,400,1000,60,30")
        asked = dict(zip(addition.LEVELS, map(int, sizes), strict=False))
        made = addition.rows(asked, split, self.seed)
        yield from made
        for level, count in asked.items():
            num_rows = sum(row["extra_info"]["level"] == level for row in made)
            lacking = f"level {level} has only {num_rows} different sums, fewer than the {count} asked for"
            yield from [Dropped(lacking)] * (count - num_rows)
