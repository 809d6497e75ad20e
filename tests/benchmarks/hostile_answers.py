"""Answers made to break a checker: families of bombs, each drawn with its own sizes, the same for the same seed."""

from collections.abc import Callable, Iterator
from random import Random

Family = Callable[[Random], str]


def _power_tower(r: Random) -> str:
    base, height = r.choice(["9", "10", "99", "x", r"\pi", "2.5"]), r.randint(3, 30)
    return rf"\boxed{{{base}" + f"^{{{base}" * height + "}" * height + "}"


def _factorials(r: Random) -> str:
    return rf"\boxed{{{r.randint(10**3, 10**9)}{'!' * r.randint(1, 6)}}}"


def _nested(r: Random) -> str:
    depth = int(10 ** r.uniform(1, 4.5))
    left, right = r.choice([("{", "}"), ("(", ")"), (r"\left(", r"\right)"), (r"\sqrt{", "}"), (r"\frac{1}{1+", "}")])
    return r"\boxed{" + left * depth + "1" + right * (depth - r.choice([0, 0, 1])) + "}"


def _unclosed(r: Random) -> str:
    return r.choice(["\\boxed{", "$", "$$", "\\[", "\\(", "{", "\\frac", "\\boxed{}", "\\", "["]) * int(
        10 ** r.uniform(2, 5)
    )


def _huge_integer(r: Random) -> str:
    digits = "".join(r.choices("0123456789", k=50)) * int(10 ** r.uniform(1, 4.3))
    return rf"\boxed{{1{digits}{r.choice(['', '^2', '^{99999}', '/7', '!'])}}}"


def _long_expression(r: Random) -> str:
    term = r.choice(["x+", "1+", "x_{1}*", r"\frac{1}{x}+", r"\sin(x)\cos(x)+", "x^2-y^3+", "2*3+", "(x+1)"])
    return r"$" + term * int(10 ** r.uniform(1, 4)) + "1$"


def _products(r: Random) -> str:
    return r"\boxed{" + "".join(f"(x+{i})^{{{r.randint(1, 40)}}}" for i in range(r.randint(2, 60))) + "}"


def _big_operators(r: Random) -> str:
    top = 10 ** r.randint(2, 12)
    body = r.choice(
        [
            rf"\sum_{{k=1}}^{{{top}}} \frac{{1}}{{k^{{k}}}}",
            rf"\prod_{{k=1}}^{{{top}}} k!",
            rf"\int_0^{{{top}}} e^{{x^x}}\,dx",
            rf"\int \frac{{\sin(x^{{{r.randint(2, 99)}}})}}{{x^x+1}}\,dx",
            rf"\lim_{{x\to\infty}} \frac{{x!^{{{r.randint(2, 99)}}}}}{{x^x}}",
            rf"\binom{{{top}}}{{{top // 2}}}",
        ]
    )
    return rf"\boxed{{{body}}}"


def _equations(r: Random) -> str:
    degree = r.randint(5, 60)
    return r"\boxed{" + "+".join(f"{r.randint(1, 99)}x^{{{i}}}" for i in range(degree)) + r"=\sin(x)+e^{x}}"


def _sets(r: Random) -> str:
    size = int(10 ** r.uniform(1, 3.5))
    return r"\boxed{\{" + ",".join(rf"\sqrt{{{i}}}+\sqrt{{{i + 1}}}" for i in range(size)) + r"\}}"


def _matrix(r: Random) -> str:
    side = r.randint(2, 60)
    rows = r"\\".join("&".join(r.choice(["x", "1", "x^2", r"\pi"]) for _ in range(side)) for _ in range(side))
    return rf"\boxed{{\begin{{pmatrix}}{rows}\end{{pmatrix}}^{{{r.randint(1, 999)}}}}}"


def _trigonometry(r: Random) -> str:
    inner = "x"
    for _ in range(r.randint(3, 40)):
        function = r.choice(["sin", "cos", "tan", "ln", "arctan"])
        inner = f"\\{function}({inner}+{r.randint(1, 9)})"
    return rf"\boxed{{{inner}^{{{r.randint(2, 50)}}}}}"


def _noise(r: Random) -> str:
    alphabet = r.choice(
        ["\0", "\ud800\udfff", "\\{}$^_&%", "0123456789+-*/^()", "\u202e\u0660\uff11∑√∞", "\n\t \r", "a\u0300"]
    )
    return "".join(r.choices(alphabet, k=int(10 ** r.uniform(0, 5))))


def _decimals(r: Random) -> str:
    return rf"The answer is {r.randint(1, 9)}.{'0' * int(10 ** r.uniform(1, 4.5))}1e{r.randint(1, 10**9)}"


def _plain_powers(r: Random) -> str:
    return (
        f"The answer is {'**'.join(str(r.randint(2, 999)) for _ in range(r.randint(3, 9)))}. 9^9^9^{r.randint(2, 99)}"
    )


def _megabyte(r: Random) -> str:
    unit = r.choice(
        ["x", "1", "</think>", r"\boxed{1}", "answer is $1$ ", "{}", r"\frac{1}{2}", "\\", "final answer is "]
    )
    return unit * (1_000_000 // len(unit))


def _dollars(r: Random) -> str:
    return "answer " * int(10 ** r.uniform(1, 4)) + r.choice(["$", "is $1", "$$1", "\\[", ": ("]) * int(
        10 ** r.uniform(1, 3.5)
    )


FAMILIES: dict[str, Family] = {
    family.__name__.strip("_"): family
    for family in (
        _power_tower,
        _factorials,
        _nested,
        _unclosed,
        _huge_integer,
        _long_expression,
        _products,
        _big_operators,
        _equations,
        _sets,
        _matrix,
        _trigonometry,
        _noise,
        _decimals,
        _plain_powers,
        _megabyte,
        _dollars,
    )
}


def hostile_answers(count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """``count`` pairs of family and response, the families in turn."""
    random = Random(f"hostile/{seed}")
    names = sorted(FAMILIES)
    for index in range(count):
        name = names[index % len(names)]
        yield name, FAMILIES[name](random)
