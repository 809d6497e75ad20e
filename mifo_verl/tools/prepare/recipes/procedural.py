"""reasoning-gym: questions made by rule, at a level of difficulty, scored by their family's own scorer."""

import ast
import hashlib
import json
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mifo_verl.errors import nearest, require
from mifo_verl.rewards.gym import read_entry
from mifo_verl.tools.prepare.recipe import Recipe, Row, Split, hashed, make_row
from mifo_verl.tools.prepare.sources import Dropped

INSTRUCTION = "Reason step by step, and write the final answer between <answer> and </answer>."
NO_ORACLE = "any answer that the family's scorer accepts"
_TRIES_A_ROW = 20
_MOST_ROWS = 1_000_000


@dataclass(frozen=True)
class ReasoningGym(Recipe):
    """reasoning-gym: family= (several by comma), levels= (0 is the easiest, or default), rows of each in train=, val=.

    A question in five is for validation, by a hash of its text, so that no validation question is ever trained on.
    """

    name = "reasoning_gym"
    reward = "reasoning_gym"
    has_demonstrations = False
    family: str = ""
    levels: str = "default"
    """Levels of the family's curriculum, as 0,1,2; ``default`` takes the family's own settings."""
    config: str = "{}"
    """Settings of the family's config as a JSON object; they win over the level's."""
    seed: int = 0

    def __post_init__(self) -> None:
        gym = _import()
        known = sorted(set(gym.factory.DATASETS) - {"composite"})
        require(bool(self.family), "family", self.family, "set", "write family=chain_sum, or several with commas")
        for family in self.family.split(","):
            if family not in known:
                near = nearest(family, known) or f", such as {known[0]}"
                raise ValueError(
                    f"family={family} must be a family of reasoning-gym{near}; python -c 'import reasoning_gym'"
                )
        levels = self.levels.split(",")
        good = self.levels == "default" or all(level.isdecimal() for level in levels)
        require(good, "levels", self.levels, "default or whole numbers from 0", "write levels=0,1,2")
        try:
            good = isinstance(json.loads(self.config), dict)
        except ValueError:
            good = False
        require(good, "config", self.config, "a JSON object", "write config='{\"max_terms\": 4}'")

    def rows(self, split: Split, source: str) -> Iterator[Row | Dropped]:
        """The rows, family after family and level after level; questions that a level lacks count as dropped."""
        setting = "train" if split == "train" else "val"
        good = source.isdecimal() and int(source) <= _MOST_ROWS
        require(good, setting, source, f"a whole number of rows, at most {_MOST_ROWS}", f"write {setting}=1000")
        for family in self.family.split(","):
            for level in [None] if self.levels == "default" else [int(level) for level in self.levels.split(",")]:
                yield from self._rows_of(family, level, split, int(source))

    def _rows_of(self, family: str, level: int | None, split: Split, count: int) -> Iterator[Row | Dropped]:
        dataset = self._dataset(family, level, max(1, _TRIES_A_ROW * count))
        seen: set[str] = set()
        num_rows = 0
        for index in range(_TRIES_A_ROW * count):
            if num_rows == count:
                return
            try:
                entry = dataset[index]
            except Exception:  # some families give up on some seeds
                yield Dropped(f"{family} gave up on making a question")
                continue
            question = str(entry["question"])
            if question not in seen and split_of(question) == split:
                seen.add(question)
                row = _row(dataset, entry, family, level, split, index)
                num_rows += not isinstance(row, Dropped)
                yield row
        where = family if level is None else f"{family} at level {level}"
        yield from [Dropped(f"{where} has fewer different questions than asked for")] * (count - num_rows)

    def _dataset(self, family: str, level: int | None, size: int) -> Any:
        """The family's data set, the same for the same settings; the seed differs by family and level."""
        factory = _import().factory
        make, config_class = factory.DATASETS[family]
        digest = hashlib.sha256(f"{self.seed}/{family}/{level}".encode()).digest()
        given = {"seed": int.from_bytes(digest[:4], "big") >> 1, "size": size} | json.loads(self.config)
        try:
            config = config_class(**given) if level is None else _at_level(factory, family, level, given)
            if hasattr(config, "validate"):
                config.validate()
            return make(config=config)
        except Exception as error:  # asserts, type errors: whatever the family finds wrong with its config
            what = f"family={family} levels={self.levels} config={self.config}"
            raise ValueError(f"{what} must be settings that the family takes ({error!r}); correct them") from None


def split_of(question: str) -> Split:
    """The split of a question, by its text alone: one in five is for validation."""
    return "validation" if hashed(question) % 5 == 0 else "train"


def _import() -> Any:
    try:
        import reasoning_gym
        import reasoning_gym.factory
    except ImportError as error:
        raise ValueError(
            f"recipe=reasoning_gym must find the package reasoning-gym ({error}); pip install 'mifo_verl[gym]'"
        ) from None
    return reasoning_gym


def _at_level(factory: Any, family: str, level: int, given: dict[str, Any]) -> Any:
    from reasoning_gym.coaching.base_curriculum import DefaultCurriculumContext, RangeAttributeMode

    require(factory.has_curriculum(family), "levels", level, f"default for {family}", "the family has no curriculum")
    curriculum = factory.create_curriculum(family)
    deepest = max((len(attribute.levels) - 1 for attribute in curriculum.attributes.values()), default=0)
    require(level <= deepest, "levels", level, f"at most {deepest} for {family}", "choose a lower level")
    curriculum.set_global_level(level)
    config = curriculum.generate_configuration(given, DefaultCurriculumContext(RangeAttributeMode.UPPER_BOUND))
    for key, value in given.items():
        setattr(config, key, value)
    return config


def _row(
    dataset: Any, entry: dict[str, Any], family: str, level: int | None, split: Split, index: int
) -> Row | Dropped:
    """The row; dropped where the entry does not survive JSON, by the family's own scorer on its own answer."""
    answer = entry["answer"]
    stored = _as_json(dataset, entry)
    if stored is None:
        return Dropped("the entry cannot be stored as JSON")
    steps = None if answer is None else written_steps(entry)
    return make_row(
        f"reasoning_gym/{family}",
        str(entry["question"]),
        NO_ORACLE if answer is None else str(answer),
        None if steps is None else f"<think>\n{steps}\n</think>\n<answer>{answer}</answer>",
        split,
        index,
        level=level,
        instruction=INSTRUCTION,
        ability="reasoning",
        entry=stored,
    )


def _as_json(dataset: Any, entry: dict[str, Any]) -> str | None:
    """The entry as JSON, marked where lists have to be tuples again; None where its own answer is wrong afterwards."""
    for tuples in (False, True):
        try:
            stored = json.dumps(entry | ({"tuples": True} if tuples else {}), sort_keys=True, default=str)
        except (TypeError, ValueError):
            return None
        if entry["answer"] is None or float(dataset.score_answer(entry["answer"], read_entry(stored))) >= 1.0:
            return stored
    return None


_OPERATORS: dict[type[ast.operator], tuple[str, Callable[[Fraction, Fraction], Fraction]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
}
_FINAL_LINE = re.compile(r"\n?[ \t]*####.*\Z", re.DOTALL)


def written_steps(entry: dict[str, Any]) -> str | None:
    """The steps to an entry's answer; None where the family has none and the question is no arithmetic expression."""
    metadata = entry.get("metadata") or {}
    own = metadata.get("answer_cot")
    if isinstance(own, str) and own.strip():
        return _FINAL_LINE.sub("", own).strip()
    expression = metadata.get("expression")
    return arithmetic_steps(expression, str(entry["answer"])) if isinstance(expression, str) else None


def arithmetic_steps(expression: str, answer: str) -> str | None:
    """One line an operation, in the order in which it is done: ``2 * 3 = 6``, ``1 + 6 = 7``.

    None where the text is no expression of + - * / and numbers, or where its exact value is not ``answer``.
    """
    steps: list[str] = []
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body, steps)
        right = value == Fraction(answer.strip())
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError):
        return None
    return "\n".join(steps) if right and steps else None


def _value(node: ast.expr, steps: list[str]) -> Fraction:
    """The exact value; appends the operations done. Raises ValueError on any other expression."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, steps)
    if not isinstance(node, ast.BinOp) or type(node.op) not in _OPERATORS:
        raise ValueError("no arithmetic")
    left, right = _value(node.left, steps), _value(node.right, steps)
    sign, apply = _OPERATORS[type(node.op)]
    value = apply(left, right)
    steps.append(f"{_written(left)} {sign} {_operand(right)} = {_written(value)}")
    return value


def _written(value: Fraction) -> str:
    """An integer, an exact decimal, or a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    rest = value.denominator
    for factor in (2, 5):
        while rest % factor == 0:
            rest //= factor
    return str(float(value)) if rest == 1 and value.denominator < 10**12 else f"{value.numerator}/{value.denominator}"


def _operand(value: Fraction) -> str:
    return f"({_written(value)})" if value < 0 else _written(value)
