"""The part of a response that holds the answer: the text after the reasoning, and the last \\boxed{...} in it.

All of it takes time linear in the text, whatever the text.
"""

import re

THINK_END = "</think>"
MAX_CHARS = 50_000
"""A reward reads no more than this, from the end: an answer ends a response, and long text is slow to parse."""

_NO_ANSWER = re.compile(
    r"(?:the )?proof(?:\b[a-z .]*)?|(?:to be )?proved|q\.?e\.?d|see (?:the )?[a-z]+|omitted|missing|empty|nan|[-+]?inf"
    r"|(?:the )?(?:final )?(?:answer|solution|value|none)? ?(?:is |was )?not ?(?:provided|available|found|given|known)"
    r"|(?:none|no (?:final )?(?:answer|solution)) (?:was |is )?(?:provided|available|found|given)|no (?:final )?answer"
    r"|not applicable|#?n\.?/?a|null|nil|unknown|unanswerable|tbd|todo|to be determined|[-?.]*"
)
"""What data sets write in place of an answer."""
_OPENS = r"(?:boxed|fbox|framebox|bbox(?:\[[^\]\n]{0,80}\])?|colorbox\{[^{}\n]{0,40}\}) ?\{"
_BOX = re.compile(rf"\\{_OPENS}")
_TOKEN = re.compile(rf"(?P<box>(?<=\\){_OPENS})|\\(?!{_OPENS}).|[{{}}]", re.DOTALL)
"""The opening of a box, an escaped character, a brace. ``\\\\boxed{``, with a line break before it, is a box too."""
_BARE_BOX = re.compile(r"\\boxed ?([\w.,/+-]{1,40}?)[.,]?(?=[\s$\\]|$)")
_FORMULA = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_FORMULA_CHARS = 4_000
_LONGEST_LINE = 2_000


def after_think(text: str) -> str | None:
    """The text after the last ``</think>``, or None where the tag is missing."""
    _, tag, answer = text.rpartition(THINK_END)
    return answer if tag else None


def answer_part(text: str, require_think: bool = False) -> str:
    """What a reward reads: the text after the last ``</think>``.

    Without the tag it is all of the text, or with ``require_think`` nothing. At most ``MAX_CHARS`` from the end, from
    the start of a line if there is one soon, so that no formula is cut.
    """
    answer = after_think(text)
    if answer is None:
        answer = "" if require_think else text
    if len(answer) <= MAX_CHARS:
        return answer
    start = len(answer) - MAX_CHARS
    line = answer.find("\n", start, start + _LONGEST_LINE)
    return answer[start if line < 0 else line + 1 :]


def final_line(text: str) -> str | None:
    """What stands on the last line after ``####``, where GSM8K writes the answer; None for any other last line."""
    line = text.rstrip().rpartition("\n")[2].strip()
    return line.removeprefix("####").strip() if line.startswith("####") else None


def answer_tag(text: str) -> str | None:
    """What stands in the last ``<answer>...</answer>``, stripped; None if there is none."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end >= 0 else -1
    return text[start + len("<answer>") : end].strip() if start >= 0 else None


def last_formula(text: str) -> str | None:
    """The last formula, between dollars or LaTeX's brackets, of the last 4,000 characters; None where there is none."""
    found = _FORMULA.findall(text[-_FORMULA_CHARS:])
    return "".join(found[-1]).strip() if found else None


def last_boxed(text: str) -> str | None:
    """What stands inside the last ``\\boxed{...}`` whose braces balance, stripped; None where there is none.

    Braces may nest (``\\boxed{\\frac{1}{2}}``) and ``\\{`` is text. A box that is never closed, as in a response that
    was cut, is no box.
    """
    first = _BOX.search(text)
    if first is None:
        bare = _BARE_BOX.findall(text)
        return str(bare[-1]) if bare else None
    last: tuple[int, int] | None = None
    opened: list[int] = []  # where each open brace's content starts, negative where it is no box
    for match in _TOKEN.finditer(text, first.start()):
        token = match[0]
        if match["box"]:
            opened.append(match.end())
        elif token == "{":
            opened.append(-1)
        elif token == "}" and opened:
            start = opened.pop()
            if start >= 0 and (last is None or start > last[0]):
                last = start, match.start()
    return None if last is None else text[last[0] : last[1]].strip()


def word_for_none(answer: str) -> str | None:
    """The word that a gold answer writes for none, such as ``proof``, or '' if it is empty; None for an answer.

    Empty brackets, such as ``\\{\\}``, are an answer.
    """
    if re.fullmatch(r"[$\s]*(?:\\\{\s*\\\}|\[\s*\]|\(\s*\))[$.\s]*", answer):
        return None
    word = " ".join(answer.strip("$.{}[]()\"'\\ ").removeprefix("text{").casefold().split())
    return word if _NO_ANSWER.fullmatch(word) or answer.strip().rstrip(".") == "None" else None


PLACES = (answer_tag, last_boxed, final_line)
"""Where an answer is marked, the surest first."""
