"""What runs inside a checker for mathematical answers: math-verify itself, without its own limits."""

from functools import lru_cache
from typing import Any

from math_verify import parse, verify

_WARM_UP = (
    r"\frac{1}{2}", r"\sqrt{3}+2\pi", r"x^2-\frac{3}{x_1}", r"\left(3,\frac{\pi}{2}\right)", r"(-\infty,2]\cup[5,9)",
    r"\{1,2\}", r"x=5", r"3\le x<7", r"10\%", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\sin(2t)e^{-t}", r"2^{n-1}",
    r"12{,}500", r"30^\circ", r"\$5.20", r"\text{even}", r"1,2,3", r"5!", r"\log_2 8", r"\binom{5}{2}",
)  # fmt: skip


def check(request: dict[str, Any]) -> dict[str, Any]:
    """Whether the text holds the gold answer, and what math-verify read as the text's answer."""
    found = parse(request["text"], parsing_timeout=None)
    correct = verify(_gold(request["gold"]), found, timeout_seconds=None)
    return {"correct": bool(correct), "extracted": next((part for part in found[::-1] if isinstance(part, str)), None)}


@lru_cache(maxsize=256)
def _gold(answer: str) -> list[Any]:
    """The parsed gold answer. It is boxed first: math-verify reads LaTeX only inside a box or dollars."""
    return parse(f"\\boxed{{{answer}}}", parsing_timeout=None)


def warm_up() -> None:
    """Fill the parser's tables with the shapes that answers have: the first LaTeX would take a checker 50 ms."""
    for answer in _WARM_UP:
        check({"gold": answer, "text": f"so the answer is ${answer}$. \\boxed{{{answer}}}"})
        check({"gold": answer, "text": "The answer is 12.5"})
    _gold.cache_clear()
