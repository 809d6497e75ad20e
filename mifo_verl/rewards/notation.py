"""One notation for answers that people and models write in many: unicode, spacing, boxes, units, plain-text formulas.

Text to text, without reading any mathematics. All of it takes time linear in the text but for short answers.
"""

import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction

_TEXT = r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|rm|bf)\s*"
_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau phi chi psi omega"
_SIGNS = str.maketrans({
    **{letter: rf"\{name} " for letter, name in zip("αβγδεζηθικλμνξπρστφχψω", _GREEK.split(), strict=True)},
    **{name[0]: rf"\{name[1:]} " for name in "ΓGamma ΔDelta ΘTheta ΛLambda ΞXi ΠPi ΣSigma ΦPhi ΨPsi ΩOmega".split()},
    **dict(zip("ℝℤℕℚℂ", (rf"\mathbb{{{name}}}" for name in "RZNQC"), strict=True)),
    **dict.fromkeys("−–—", "-"), "\u2060": " ", "×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "⋅": r"\cdot ",
    "∗": "*", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ",
    "≡": r"\equiv ", "±": r"\pm ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\varnothing ",
    "°": r"^\circ", "º": r"^\circ", "∠": r"\angle ", "△": r"\triangle ", "⟨": "(", "⟩": ")", "′": "'", "。": ".",
    "、": ", ", "∶": ":", "∕": "/", "⁄": "/", "→": r"\to ", "∛": r"\sqrt[3]", "∣": r"\mid ",
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ",
})  # fmt: skip
"""Signs that Unicode's own compatibility forms (NFKC) do not already turn into plain ones."""
_SUPERSCRIPTS, _SUBSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "₀₁₂₃₄₅₆₇₈₉"
_RAISED = str.maketrans(_SUPERSCRIPTS + _SUBSCRIPTS, "0123456789-+n0123456789")
_WORDS = {
    **{name: rf"\{name} " for name in "pi alpha beta gamma delta theta lambda mu sigma phi omega".split()},
    **dict.fromkeys(("infinity", "inf", "oo"), r"\infty "),
    **dict.fromkeys(("percent", "per cent"), r"\%"),
    **dict.fromkeys(("all real numbers", "all reals"), r"\mathbb{R}"),
    **dict.fromkeys(("the empty set", "empty set"), r"\varnothing "),
}
_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty".split()
    )
}
_DENIES = (
    r"(?i:n't\b|\b(?:not?|never|cannot|none|nothing|neither|nor|without|except|excluding|unequal|un-equal|unlike|but"
    r"|wrong|incorrect|false|than|least|most|under|over|below|above|half|twice|minus)\b)"
)
"""What before a value says that it is another one."""
_WORD = re.compile(rf"(?<![\\a-zA-Z])({'|'.join(_WORDS)})(?![a-zA-Z])")


def _scaled(found: re.Match[str]) -> str:
    """``4.5 million`` as a product."""
    return rf"\cdot 10^{{{dict(hundred=2, thousand=3, million=6, billion=9, trillion=12)[found[1]]}}}"


def _reciprocal(found: re.Match[str]) -> str:
    """``\\coth x`` as 1 over ``\\tanh x``, which math-verify knows."""
    name = {"coth": "tanh", "sech": "cosh", "csch": "sinh"}[found[1]]
    return rf"\frac{{1}}{{\{name}({found[2] or found[3] or found[4]})}}"


_RULES: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(pattern), to)
    for pattern, to in (
        (r"\\\\(?=[\[\s(]|$|[a-zA-Z0-9-])", "\0"),  # a row of a matrix ends: no spacing command
        (r"\\[df]?box(?:ed)?\s*\{|\\(?:bm|boldsymbol|underline|mathit|textcolor\s*\{[^{}]*\})\s*\{", "{"),
        (r"\\color\s*\{[^{}]*\}|\\(?:[lL]arge|LARGE|[hH]uge|small|normalsize|textstyle)(?![a-zA-Z])", ""),
        (r"\\(?:bf|rm|it)(?![a-zA-Z]|\s*\{)|\\\s*$", ""),
        (r"\\\(|\\\)|\\\[|\\\]|(?<!\\)\$|\\!|\\displaystyle|\\limits|\*\*(?=\s|$)|^\*\*", ""),
        (r"\\[,;:> ]|\\q?quad(?![a-zA-Z])|\\thinspace|\\[hv]space\*?\s*\{[^{}]*\}|~|&nbsp;", " "),
        (r"\s{2,}", " "),
        (r"\\colon(?![a-zA-Z])", ":"),
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\s?", ""),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\leq(?![a-zA-Z])|\\leqslant|<=", r"\\le "),
        (r"\\geq(?![a-zA-Z])|\\geqslant|>=", r"\\ge "),
        (r"\\neq(?![a-zA-Z])|(?<=\s)!=|\\not\s*=", r"\\ne "),
        (r"\\emptyset|\\O(?![a-zA-Z])|\\\{\s*\\\}", r"\\varnothing "),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"),
        (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"\\(?:dots|cdots|ldots|dotsc)(?![a-zA-Z])|\.\.\.", r"\\ldots "),
        (r"\\%|(?<!\\)%", r"\\%"),
        (r"(?<=\d)\{,\}(?=\d)", ","),
        (r"(?<=\d)\{\.\}(?=\d)", "."),
        (r"\\\$|^[€£¥](?=\d)|\s*[€£¥¢]\s*$|^\\(?:pounds|euro)(?![a-z])", ""),
        (r"\^\s*\{\s*\\circ\s*\}|\\degrees?(?![a-zA-Z])|(?<=[\d})])\s*\\text\s*\{\s*degrees?\s*\}", r"^\\circ"),
        (r"^\s*[a-zA-Z]\s*\\in(?![a-zA-Z])\s*", ""),
        (r"\\langle(?![a-zA-Z])", "("),
        (r"\\rangle(?![a-zA-Z])", ")"),
        (rf"(?:{_TEXT}|\\operatorname\s*)\{{\s*mod\s*\}}", "mod "),
        (r"\(?\\?(?<![a-zA-Z])[pb]?mod\s*(?:\{\s*(\w+)\s*\}|(\w+))\)?", r"\\pmod{\1\2}"),
        (r"^\s*\\\{\s*[a-zA-Z](?:\s*\\in[^|:]*?)?\s*(?:\\mid(?![a-z])|\\vert|\||:)"
         r"(.*[<>].*|.*\\(?:le|ge|ne) .*)\\\}\s*$", r"\1"),
        (r"\\sqrt\[3\]\s*\(?(\w+)\)?", r"\\sqrt[3]{\1}"),
        (r"(?<=\d)\.(?=/)", ""),
        (rf"(?<=[\dA-F)}}])\s*_?\{{?\s*(?:{_TEXT}\{{)?[\s(]*(?:in )?base[\s}}]*(\d+|[a-z]{{3,7}})[\s)}}]*$", r"_{\1}"),
        (r"_\{\s*\((\d+)\)\s*\}", r"_{\1}"),
        (rf"_\{{\s*{_TEXT}\{{\s*(\w+)\s*\}}\s*\}}", r"_{\1}"),
        (r"(\d)\u0305", r"\\overline{\1}"),
        (r"√\s*\(([^()]*)\)|√\s*\{([^{}]*)\}|√\s*(\d+|[a-zA-Z])", r"\\sqrt{\1\2\3}"),
        (r"(?<![\\a-zA-Z])sqrt\s*(?:\(([^()]*)\)|(\d+))", r"\\sqrt{\1\2}"),
        (r"(?<![\\a-zA-Z\d.])(\d+(?:\.\d+)?)[eE]([+-]?\d+)(?![\w.])", r"\1\\times 10^{\2}"),
        (r"(?<![\\a-zA-Z])(?:np|numpy|math|sympy|sp)\.(?=[a-z])", ""),
        (r"(?<![\\a-zA-Z])(exp|ln|(?:arc)?(?:sin|cos|tan)h?|cot|sec|csc|max|min|gcd|log(?=_))(?=\s*[(_])", r"\\\1"),
        (r"(?<![\\a-zA-Z])log(?=\s*\()", r"\\log"),
        (r"(?<![\\a-zA-Z])cbrt\s*\(([^()]*)\)", r"\\sqrt[3]{\1}"),
        (r"(?<![\\a-zA-Z])abs\s*\(([^()]*)\)", r"|\1|"),
        (r"(?<![\\a-zA-Z])(floor|ceil)\s*\(([^()]*)\)", r"\\l\1 \2 \\r\1 "),
        (r"\*\*", "^"),
        (r"(?<=\d)\s*\*\s*I(?![a-zA-Z])", " i"),
        (r"(?<=[\w)])\s*\*\s*(?=[\w(\\-])", r"\\cdot "),
        (rf"{_TEXT}\{{\s*(-?[\d.,]*)\s*\}}", r"\1"),
        (rf"(?<=\d)\s*(?:{_TEXT}\{{)?\s*(hundred|thousand|million|billion|trillion)(?![a-z])\s*\}}?", _scaled),
        (r"(\\(?:sin|cos|tan|cot|sec|csc)\s*(?:\^\{?\d\}?)?\s*[({]?\s*)(\d+(?:\.\d+)?)\s*\^\\circ",
         r"\1\\frac{\2\\pi}{180}"),
        (r"^(?:Rs|USD|US|EUR|INR)\.?\s*(?=\d)", ""),
        (rf"^(\d+(?:\.\d+)?)\s*(?:{_TEXT}\{{\s*to\s*\}}|to)\s*(\d+(?:\.\d+)?)$", r"\1:\2"),
        (rf"(?:{_TEXT}|\\operatorname\s*)\{{cis\}}\s*\(([^()]*)\)", r"(\\cos(\1)+i \\sin(\1))"),
        (r"\{?(?<![\w.])(\d+|[a-z])\s*(?:\\|\b)choose\s*(\d+|[a-z])\b\}?|(?<![a-zA-Z])C\((\d+),\s*(\d+)\)",
         r"\\binom{\1\3}{\2\4}"),
        (r"\\(coth|sech|csch)\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\w|\\[a-z]+))", _reciprocal),
        (r"\^\s*\{?\s*((?:\\prime\s*)+)\}?", lambda found: "'" * found[1].count("prime")),
        (r"\\(hat|bar|vec|dot|ddot|tilde)\s+([a-zA-Z])(?![a-zA-Z])", r"\\\1{\2}"),
        (rf"^\s*(?:{_TEXT}\{{)?\s*(?i:(?:the )?(?:final )?answer(?: is)?)\s*:?\s*\}}?(?=[^a-z}}])", ""),
        (rf"^\s*(?:{_TEXT}\{{)?\s*\(?(?i:\\approx|(?:approximately|about|around|roughly|exactly|total|sum)\s*:?)"
         rf"\s*\)?\s*\}}?\s*(?=[-+\d\\($.])", ""),
        (rf"^\s*{_TEXT}\{{(?![^{{}}]*{_DENIES})"
         rf"(?:[A-Za-z' ]*(?:\b(?:is|are|was|equals)|:)|\s*(?i:therefore|thus|so|hence),?)\s*\}}(?=\s*\S)", ""),
        (r"\+/-|^\s*\+-", r"\\pm "),
        (r"\+\s*-", "-"),
        (r"(?<=\d)\s*x\s*(?=10\s*\^)", r"\\times "),
        (r"\\(?:mathrm|text|operatorname)\{([eid])\}", r"\1"),
        (r"(?<=\d)i(?![a-zA-Z])", " i"),  # math-verify takes i for the imaginary unit only alone
        (rf"{_TEXT}\{{\s*(,?\s*(?:or|and))\s*\}}", r" \1 "),
        (r"\\vee(?![a-zA-Z])", r"\\lor "),
        (r"\\wedge(?![a-zA-Z])", r"\\land "),
    )
]  # fmt: skip
_THOUSANDS = re.compile(r"(?<![\d.,/\w}])(\d{1,3})((?:[ ,]\d{3})+)(?![\d,/]|\.\d{3}(?!\d),)(?! \d)")
_MIXED = re.compile(r"(?<![\w.,/^}])(-?)(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d/.])")
_REPEATING = re.compile(
    r"(?<!\d)(\d*)\.(\d*)(?:\\overline|\\bar|\\dot|\\overline\s)\s*\{?\s*(\d+)\s*\}?(?:(\d*)\\dot\s*\{?(\d)\}?)?"
)
_ELLIPSIS = re.compile(r"(?<!\d)(\d*\.\d{0,6}?)(\d{1,6}?)\2+\s*\\ldots")
_PERIOD = re.compile(r"(?<!\d)(\d*\.\d{0,20})\((\d{1,20})\)")
_LABEL = re.compile(
    rf"(?!.*(?:[,/&]|\b(?:and|or)\b)\W*(?:{_TEXT}\{{)?\(?[A-J]\)?\W*$)(?:{_TEXT}\{{\s*\(?\s*([A-J])\s*[).:]*\s*\}}[.:)]?(?![-+*/^=_])|\(?([A-J])\)(?=\s+\S))\s*(.*)",
    re.DOTALL,
)
_WHOLE_TEXT = re.compile(rf"{_TEXT}\{{((?:[^{{}}]|\{{[^{{}}]*\}})*)\}}")
_NO_UNIT = (
    r"(?![^{}]*\s\d)(?!\s*(?:or|and|more|less|at|not|about|if|than|to|squared|cubed|"
    r"factorial|below|above|over|plus|minus|times\s+\S|remainder|mod|choose|matrix|matrices)\b)"
)
_UNIT = re.compile(
    rf"(?<=[\d}})!a-z])(?:\s*(?:\\cdot|/)?\s*{_TEXT}\{{{_NO_UNIT}(?:[^{{}}]|\{{[^{{}}]*\}})*\}}(?:\s*\^\s*\{{?-?\d\}}?)?)+\s*$"
    r"|\^\\circ\s*[CF]?\s*$"
)
_NUMBER = r"(?:[-+\d.,/(){}^\s]|\\(?:sqrt|frac|pi|cdot|times)(?![a-zA-Z]))*[\d)}i]"
_UNIT_WORDS = re.compile(
    rf"({_NUMBER})\s+(?:{_NO_UNIT}(?=[A-Za-z./ ]*[A-Za-z]{{2}})[A-Za-z][A-Za-z./ ]+(?:\^\{{?\d\}}?)?"
    r"|[mgshLJNWVK](?:\^\{?[23]\}?)?"
    r"|(?:[kcm]?m|ft|in|mi|[km]?g|m?[lL])/(?:s|sec|h|hr|min|day|c?m|m?[lL])(?:\^\{?[23]\}?)?)"
)
_CLAUSE = re.compile(
    rf"\s*,?\s*(?:{_TEXT}\{{\s*,?\s*(?:for|where)\b.*|\b(?:for (?:all|any|every|some)|where)\b.*"
    r"|[a-zA-Z]\s*\\in\s*\\mathbb\s*\{[A-Z]\}\s*$)",
    re.DOTALL,
)
_ROWS = r"\{(?:cases|array|aligned|align\*?|gathered|split)\}"
_CASES = re.compile(rf"(?:\\\{{)?\s*\\begin{_ROWS}(?:\{{[lcr|]*\}})?(.*)\\end{_ROWS}\s*\.?", re.DOTALL)
_ESCAPED = re.compile(r"\\\\(?:[a-zA-Z]{2}|[^\w\s-])")  # LaTeX that was escaped twice, no end of a row


def unify(answer: str) -> str:
    """The answer in LaTeX's plain signs: one way for fractions, spaces, relations, brackets, decimals, percent."""
    text = re.sub(f"[{_SUPERSCRIPTS}]+", lambda run: "^{" + run[0].translate(_RAISED) + "}", answer)
    text = re.sub(f"[{_SUBSCRIPTS}]+", lambda run: "_{" + run[0].translate(_RAISED) + "}", text)
    text = "".join(sign if sign < "\x7f" else _plain(sign) for sign in text.translate(_SIGNS)).translate(_SIGNS)
    for pattern, to in _RULES:
        text = pattern.sub(to, text)
    text = text.replace("\0", r"\\")
    text = _WORD.sub(lambda word: _WORDS[word[0]], text)
    text = re.sub(rf"{_TEXT}\{{\s*\\%\s*\}}", r"\\%", text)
    text = _ELLIPSIS.sub(r"\1\\overline{\2}", _PERIOD.sub(r"\1\\overline{\2}", text))
    text = _REPEATING.sub(_fraction_of, text)
    text = _MIXED.sub(r"\1(\2+\\frac{\3}{\4})", text)
    text = _THOUSANDS.sub(lambda found: found[1] + re.sub("[ ,]", "", found[2]), text)
    if re.search(r"[<>=]|\\(?:le|ge|ne)(?![a-z])", text):
        text = text.replace(r"\lor", " or ").replace(r"\land", " and ")
    cases = _CASES.fullmatch(text.strip())
    rows = re.sub(r"&\s*(?==)", "", cases[1] if cases else "" if r"\begin" in text else text)
    if (cases or (r"\\" in rows and not _ESCAPED.search(rows))) and "&" not in rows:
        text = ", ".join(row.strip(" ,;.") for row in rows.split(r"\\") if row.strip(" ,;."))
    text = bare(text)
    return _NUMBERS.get(text.lower(), text)


def bare(text: str) -> str:
    """Without braces, a text command or a closing mark around the whole."""
    before = None
    while text != before:
        before, text = text, text.strip().rstrip(".,;:").strip()
        whole = _WHOLE_TEXT.fullmatch(text)
        if whole:
            text = whole[1]
        elif text.startswith("{") and closing(text, 0) == len(text) - 1:
            text = text[1:-1]
    return text


def closing(text: str, start: int) -> int:
    """Where the bracket at ``start`` is closed, of whatever kind; -1 if it never is."""
    depth = 0
    for index in range(start, len(text)):
        if text[index] in "([{":
            depth += 1
        elif text[index] in ")]}":
            depth -= 1
            if depth == 0:
                return index
    return -1


def squeezed(text: str) -> str:
    """Without spaces, and without braces around one character: for a comparison letter by letter."""
    text = re.sub(r"(\\[a-zA-Z]+)\s+(?=[a-zA-Z])|(?<=\d) +(?=\d)", "\\1\0", text)
    return re.sub(r"\{(\w)\}", r"\1", text.replace(" ", ""))


def labelled(text: str) -> tuple[str | None, str]:
    """(the letter of a choice before the answer, the answer without it): ``\\textbf{(B)}\\ 12`` is B and 12."""
    match = _LABEL.fullmatch(text)
    return (None, text) if match is None else (match[1] or match[2], match[3].strip())


def without_unit(text: str) -> str:
    """Without the unit behind a number or formula: ``7\\text{ kg}``, ``60^\\circ``, ``72 clips``."""
    text = _UNIT.sub("", text).strip()
    words = _UNIT_WORDS.fullmatch(text)
    return words[1] if words else text


_UNITS = {
    unit: (quantity, top, bottom)
    for line in (
        "length km:1000 m,meter,metre:1 cm,centimeter,centimetre:1/100 mm,millimeter,millimetre:1/1000 "
        "in,inch,inche:254/10000 ft,foot,feet:3048/10000 yd,yard:9144/10000 mi,mile:1609344/1000",
        "mass kg,kilogram:1000 g,gram:1 mg,milligram:1/1000 lb,pound:45359237/100000 oz,ounce:45359237/1600000",
        "time s,sec,second:1 min,minute:60 h,hr,hour:3600 day:86400 week:604800",
        "money dollar:100 cent:1",
        "volume l,liter,litre:1000 ml,milliliter,millilitre:1",
        "celsius c,celsius:1",
        "fahrenheit f,fahrenheit:1",
    )
    for quantity, *units in [line.split()]
    for names, _, factor in [unit.partition(":") for unit in units]
    for top, _, bottom in [factor.partition("/")]
    for unit in names.split(",")
}
"""(quantity, factor, divisor) of the units that are told apart."""
_SPEEDS = {"mph": "mi/h", "kph": "km/h", "kmh": "km/h"}


def unit_of(text: str) -> tuple[str, str, str, str]:
    """(one name for a unit, its quantity, factor and divisor); empty for anything that is no unit known here."""
    parts = re.split(r"/|\bper\b", re.sub(r"\b(mph|kph|kmh)\b", lambda found: _SPEEDS[found[1]], text))
    quantities, top, bottom = [], 1, 1
    for place, part in enumerate(parts):
        power = re.search(r"\^\s*\{?([23])", part)
        word = re.sub(r"\\[a-z]+|[^A-Za-z]|\band\b", " ", part).strip().lower()
        quantity, above, below = _UNITS.get(word if word in _UNITS else word.removesuffix("s"), ("", "", ""))
        if not quantity:
            return "", "", "", ""
        factors = [int(number or 1) ** int(power[1] if power else 1) for number in (above, below)]
        over, under = factors if place == 0 else reversed(factors)
        top, bottom = top * over, bottom * under
        quantities.append(quantity + (power[1] if power else ""))
    quantity = "/".join(quantities)
    return f"{quantity} {Fraction(top, bottom)}", quantity, str(top), str(bottom)


def without_clause(text: str) -> str:
    """Without ``for any constant c``, ``where ...`` at the end."""
    return _CLAUSE.sub("", text).strip()


def _plain(sign: str) -> str:
    """Unicode's compatibility form: ``½`` is a fraction, ``２`` is 2, ``℃`` is °C."""
    plain = unicodedata.normalize("NFKC", sign)
    top, _, bottom = plain.partition("⁄")
    return rf"\frac{{{top}}}{{{bottom}}}" if top and bottom else plain


def _fraction_of(found: re.Match[str]) -> str:
    """A repeating decimal as an exact fraction: ``0.\\overline{36}`` is 36/99."""
    whole, fixed, repeated = found[1] or "0", found[2], found[3] + (found[4] or "") + (found[5] or "")
    if len(fixed + repeated) > 60:
        return found[0]
    bottom = (10 ** len(repeated) - 1) * 10 ** len(fixed)
    return rf"\frac{{{int(whole + fixed + repeated) - int(whole + fixed)}}}{{{bottom}}}"
