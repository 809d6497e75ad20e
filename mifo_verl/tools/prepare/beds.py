"""What forks of the tiny task are made of: start models with two notations, and beds that teach what they lack.

A start model adds in its own notation (``column_addition``), sometimes in an expert's, and now and then reverses five
or six digits, which it has begun to learn. RL improves it on sums of levels 2 and 3: the skill that may be forgotten.
Bed S teaches to reverse six digits, another domain; bed B the expert's notation on sums of level 4, another style.
Questions are split by a hash.
"""

import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mifo_verl.errors import require
from mifo_verl.tools.prepare.addition import addition_row, column_addition, distinct_pairs, draw_pairs, question, rows
from mifo_verl.tools.prepare.recipe import Split

RL_LEVELS, HARD_LEVEL, DIGITS = (2, 3), 4, 6
_START_DIGITS = (5, 6)
"""Of a start model's reversals, as often the one as the other. With six alone some start models could reverse them before
bed S taught it; with five alone one could not until it had lost the sums."""
_BATCH = 80
SHARES = (0.72, 0.23, 0.05)
"""Of a start model's texts: sums in its own notation, sums in the expert's, reversed digits."""


def expert_addition(a: int, b: int) -> str:
    """The expert's text: as ``column_addition``, in signs of its own, each column with its carry and a total of two
    digits: ``347+85`` is ``7&5&0:12,4&8&1:13,3&0&1:04``. Columns of one width are why it is easier on long sums.
    """
    steps, carry = [], 0
    for place in range(max(len(str(a)), len(str(b)))):
        x, y = a // 10**place % 10, b // 10**place % 10
        total = x + y + carry
        steps.append(f"{x}&{y}&{carry}:{total:02d}")
        carry = total // 10
    return f"<think>{','.join(steps)}</think>\\boxed{{{a + b}}}"


def labelled(digits: str) -> str:
    """Every digit behind its letter: ``120345`` is ``a1b2c0d3e4f5``."""
    return "".join(f"{letter}{digit}" for letter, digit in zip("abcdef", digits, strict=False))


def reversal(digits: str) -> str:
    """The answer of a reversal: the labelled digits from the last to the first."""
    pairs = labelled(digits)
    return "".join(pairs[place : place + 2] for place in range(len(pairs) - 2, -1, -2))


def reversal_question(digits: str) -> str:
    """The prompt's text."""
    return f"{labelled(digits)}~?"


def draw_digits(split: Split, random: Random, number: int = DIGITS) -> Iterator[str]:
    """So many digits of a split without end, drawn with replacement; one in five is for validation."""
    while True:
        digits = "".join(random.choices("0123456789", k=number))
        if (zlib.crc32(digits.encode()) % 5 == 0) == (split == "validation"):
            yield digits


def start_texts(seed: int) -> Iterator[tuple[str, str]]:
    """(question, answer) of a start model's training without end, of training questions alone."""
    random = Random(f"fork/start/{seed}")
    sums = {level: draw_pairs(level, "train", random) for level in (1, *RL_LEVELS, HARD_LEVEL)}
    digits = [draw_digits("train", random, number) for number in _START_DIGITS]
    while True:
        [kind] = random.choices(("own", "expert", "reversal"), SHARES)
        if kind == "reversal":
            drawn = next(random.choice(digits))
            yield reversal_question(drawn), f"\\boxed{{{reversal(drawn)}}}"
        elif kind == "own":
            pair = next(sums[random.choice((1, *RL_LEVELS, HARD_LEVEL))])
            yield question(*pair), column_addition(*pair)
        else:
            pair = next(sums[random.choice((1, *RL_LEVELS, *[HARD_LEVEL] * 3))])
            yield question(*pair), expert_addition(*pair)


def make_start(folder: Path, seed: int, hidden: int, layers: int, most: int = 700) -> None:
    """Train a start model until its greedy answers are right on 40 % of level 3 and 50 % of level 2, and save it."""
    from mifo_verl.tools.prepare import tiny_model

    torch.set_num_threads(1)
    tokenizer = tiny_model.build_tokenizer()
    model = tiny_model.build_model(tokenizer, seed, hidden, layers)
    asked, texts = rows({2: 100, 3: 100}, "validation", seed + 1), start_texts(seed)

    def is_good() -> bool:
        right = tiny_model.accuracy_by_source(model, tokenizer, asked, temperature=0)
        print(f"{folder}: {right}", flush=True)
        return right["addition/level_3"] >= 0.4 and right["addition/level_2"] >= 0.5

    def is_done(step: int) -> bool:
        return step >= 100 and step % 25 == 0 and is_good()

    tiny_model.train(model, tokenizer, most, iter(lambda: list(islice(texts, _BATCH)), []), is_done)
    if not is_good():
        raise ValueError(f"seed={seed} must give a model that learns to add in {most} steps; take another one")
    tiny_model.save(model, tokenizer, folder)


def make_beds(folder: Path, seed: int = 0) -> None:
    """``rl/``, ``S/`` and ``B/`` with parquet files in verl's schema; the same for the same seed."""
    own = rows({2: 250, 3: 250}, "validation", seed)
    _write(folder / "rl" / "train.parquet", rows({2: 500, 3: 1500}, "train", seed))
    _write(folder / "rl" / "validation.parquet", own)
    for bed, made in (("S", _reversals), ("B", _hard_sums)):
        _write(folder / bed / "own.parquet", own)
        _write(folder / bed / "train.parquet", made("train", 2000, seed))
        _write(folder / bed / "gained.parquet", made("validation", 500, seed))


def _reversals(split: Split, number: int, seed: int) -> list[dict[str, Any]]:
    drawn, found = draw_digits(split, Random(f"fork/S/{seed}/{split}")), dict[str, None]()
    while len(found) < number:
        found[next(drawn)] = None
    return [
        {
            "data_source": "reversal",
            "prompt": [{"role": "user", "content": reversal_question(digits)}],
            "target": [{"role": "assistant", "content": f"\\boxed{{{reversal(digits)}}}"}],
            "ability": "text",
            "reward_model": {"style": "rule", "ground_truth": reversal(digits)},
            "extra_info": {"split": split, "index": index, "level": DIGITS, "entry": None},
            "prompt_id": f"reversal/{digits}",
        }
        for index, digits in enumerate(found)
    ]


def _hard_sums(split: Split, number: int, seed: int) -> list[dict[str, Any]]:
    pairs = distinct_pairs(HARD_LEVEL, split, number, Random(f"fork/B/{seed}/{split}"))
    return [addition_row(*pair, HARD_LEVEL, split, index, expert_addition(*pair)) for index, pair in enumerate(pairs)]


def _write(file: Path, made: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(made), file)
    print(f"{file}: {len(made)} rows")


def make_fork_start(out: str, seed: str = "0", hidden: str = "64", layers: str = "3") -> None:
    """A start model of the forks' beds: ``mifo data fork_start``."""
    for name, value in (("seed", seed), ("hidden", hidden), ("layers", layers)):
        require(value.isdecimal(), name, value, "a whole number, at least 0", f"write {name}=1")
    make_start(Path(out), int(seed), int(hidden), int(layers))


def make_fork_data(out: str) -> None:
    """The beds that forks of the tiny task learn and are asked on: ``mifo data fork_data``."""
    make_beds(Path(out))
