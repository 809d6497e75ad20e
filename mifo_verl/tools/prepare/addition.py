"""A task that a laptop learns: column addition with a written carry, in five levels of difficulty.

    347+85=?    ->    <think>7+5=12;4+8+1=13;3+0+1=4</think>\\boxed{432}

The level is the number of digits of the longer operand. Only the boxed answer is rewarded, not the steps. a+b and b+a
fall into the same split, chosen by a hash of the operands, so that no validation sum is ever trained on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import Any

from mifo_verl.errors import require
from mifo_verl.tools.prepare.recipe import Recipe, Row, Split, hashed
from mifo_verl.tools.prepare.sources import Dropped

LEVELS = (1, 2, 3, 4, 5)
_MOST_ROWS = 100_000
"""The most rows of a level in one split: few enough of the pairs of level 3 that drawing without repeats stays fast."""


def column_addition(a: int, b: int) -> str:
    """The expert's text: every column from the right, with the carry where there is one, then the boxed sum."""
    digits_a, digits_b = str(a)[::-1], str(b)[::-1]
    steps, carry = [], 0
    for column in range(max(len(digits_a), len(digits_b))):
        x, y = int(digits_a[column : column + 1] or 0), int(digits_b[column : column + 1] or 0)
        total = x + y + carry
        steps.append(f"{x}+{y}" + (f"+{carry}" if carry else "") + f"={total}")
        carry = total // 10
    return f"<think>{';'.join(steps)}</think>\\boxed{{{a + b}}}"


def split_of(a: int, b: int) -> Split:
    """The split of a pair, whatever the order of its operands: one pair in five is for validation."""
    return "validation" if hashed(f"{min(a, b)}+{max(a, b)}") % 5 == 0 else "train"


def draw_pairs(level: int, split: Split, random: Random) -> Iterator[tuple[int, int]]:
    """Pairs of a level and split without end, drawn with replacement; the operands stand in either order."""
    long_range, short_range = _operands(level)
    while True:
        pair = random.choice(long_range), random.choice(short_range)
        if random.random() < 0.5:
            pair = pair[1], pair[0]
        if split_of(*pair) == split:
            yield pair


def distinct_pairs(level: int, split: Split, num_pairs: int, random: Random) -> list[tuple[int, int]]:
    """``num_pairs`` different pairs, or all there are where the level has fewer (level 1: about 80 + 20)."""
    if level <= 2:
        long_range, short_range = _operands(level)
        every = {pair for a, b in product(long_range, short_range) for pair in ((a, b), (b, a))}
        pairs = sorted(pair for pair in every if split_of(*pair) == split)
        random.shuffle(pairs)
        return pairs[:num_pairs]
    found: dict[tuple[int, int], None] = {}
    drawn = draw_pairs(level, split, random)
    while len(found) < num_pairs:
        found[next(drawn)] = None
    return list(found)


def rows(num_rows_by_level: Mapping[int, int], split: Split, seed: int) -> list[dict[str, Any]]:
    """Rows in verl's schema, level after level, no prompt twice; the same for the same arguments.

    A level that has too few pairs gives all of them: compare the length. Validation rows carry their demonstration
    too. Raises ValueError on an unknown level, a negative number, or more than 100,000 rows of a level.
    """
    made: list[dict[str, Any]] = []
    for level, num_rows in num_rows_by_level.items():
        require(level in LEVELS, "level", level, "one of 1, 2, 3, 4, 5", "it is the number of digits")
        require(0 <= num_rows <= _MOST_ROWS, "rows a level", num_rows, f"in [0, {_MOST_ROWS}]", "ask for fewer rows")
        for a, b in distinct_pairs(level, split, num_rows, Random(f"addition/{seed}/{split}/{level}")):
            made.append(addition_row(a, b, level, split, len(made), column_addition(a, b)))
    return made


def question(a: int, b: int) -> str:
    return f"{a}+{b}=?"


def _operands(level: int) -> tuple[range, range]:
    """The longer operand has ``level`` digits, the shorter one at least one digit less (level 1: 0 to 9 both)."""
    if level == 1:
        return range(10), range(10)
    return range(10 ** (level - 1), 10**level), range(10 ** (level - 2), 10**level)


def addition_row(a: int, b: int, level: int, split: Split, index: int, text: str) -> dict[str, Any]:
    """The row of a sum in verl's schema, ``text`` its demonstration."""
    return {
        "data_source": f"addition/level_{level}",
        "prompt": [{"role": "user", "content": question(a, b)}],
        "target": [{"role": "assistant", "content": text}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": str(a + b)},
        "extra_info": {"split": split, "index": index, "level": level, "entry": None},
        "prompt_id": f"addition/{a}+{b}",
    }


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
        good = all(size.isdecimal() for size in sizes) and len(sizes) <= len(LEVELS)
        require(good, setting, source, "whole numbers of rows, one a level", "write 20,400,1000,60,30")
        asked = dict(zip(LEVELS, map(int, sizes), strict=False))
        made = rows(asked, split, self.seed)
        yield from made
        for level, count in asked.items():
            num_rows = sum(row["extra_info"]["level"] == level for row in made)
            lacking = f"level {level} has only {num_rows} different sums, fewer than the {count} asked for"
            yield from [Dropped(lacking)] * (count - num_rows)
