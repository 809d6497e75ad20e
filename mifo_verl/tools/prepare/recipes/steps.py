"""Worked steps for questions of reasoning-gym: the family's own, or written here for arithmetic expressions."""

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

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
