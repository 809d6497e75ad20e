"""The part of a response that holds the answer: the text after the reasoning, and the last \\boxed{...} in it."""

THINK_END = "</think>"


def after_think(text: str) -> str | None:
    """The text after the last ``</think>``, or None where the tag is missing."""
    _, tag, answer = text.rpartition(THINK_END)
    return answer if tag else None


def last_boxed(text: str) -> str | None:
    """What stands inside the last ``\\boxed{...}`` whose braces balance, stripped; None where there is none.

    Braces may nest (``\\boxed{\\frac{1}{2}}``). A box that is never closed, as in a response that was cut, is no box.
    """
    start = text.rfind("\\boxed{")
    while start >= 0:
        inside = _balanced(text, start + len("\\boxed{"))
        if inside is not None:
            return inside.strip()
        start = text.rfind("\\boxed{", 0, start)
    return None


def _balanced(text: str, start: int) -> str | None:
    """The text from ``start``, just after an opening brace, up to the brace that closes it; ``\\{`` is text."""
    depth, position = 1, start
    while position < len(text):
        if text[position] == "\\":
            position += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position]
        position += 1
    return None
