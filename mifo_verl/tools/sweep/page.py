"""A sweep's page: its tables and what can be claimed, as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mifo_verl.tools.sweep.claims import is_share
from mifo_verl.tools.sweep.show import claims, heading, is_explored, not_finished, parts, primaries, rows
from mifo_verl.tools.sweep.statistics import Interval

_HOW_TO_READ = """Mean over the seeds ({seeds}) ± half of the 95 % interval (Student's t). Differences are paired by
seed. A cell of fewer seeds than its arm has says how many (n=...).

Every comparison names before the runs one or two numbers that answer it. A difference in these is called higher or
lower where its 95 % interval leaves 0 out; what has 0 inside at 1 − 5 %/m (Bonferroni) is said to hold only read alone.
m = {m} is the number of tests of the plan: distinct pairs of arms by the numbers named for them, whatever runs are
finished. Half of the interval at that level is the smallest difference that could have been claimed. Where the arms'
training FLOPs differ by more than 10 %, the claim says by how much. All other numbers, and what was asked after runs
had started, are exploratory. Of these no claim is made, whatever their intervals: they say what to ask in the next runs
(`docs/sweep.md`).
"""
_LATE = "Asked after the runs had started: exploratory, no claims.\n\n"
_RATIOS = """Per solved prompt and per hard one; lost is positive. The interval of the ratio is Fieller's at 95 %, over
the seeds, and unbounded where that of the gain holds 0. No claim is made of a ratio.
"""


def to_markdown(table: Mapping[str, Any], title: str, command: str, picture: str | None = None) -> str:
    """A page that is made anew by the same command; ``picture``: the name of a picture of the report beside it."""
    seeds = sorted({int(s) for arm in table["arms"] for held in arm["numbers"].values() for s in held["by_seed"]})
    page = [
        f"# {title or 'A sweep'}\n",
        f"Made by the command below from the records of the runs; nothing here is written by hand.\n\n"
        f"```bash\n{command}\n```\n",
        *_verdict(table),
        *([f"![The answers, from the report of these runs]({picture})\n"] if picture else []),
        _HOW_TO_READ.format(seeds=", ".join(map(str, seeds)), m=table["num_tests"]),
        *_origin(table),
    ]
    for name, numbers in parts(table):
        page.append(f"## {name}\n\n{_markdown(('arm', 'seeds', *map(heading, numbers)), rows(table, numbers))}")
    if table["traded"]:
        page.append(f"## What SFT lost on solved prompts and gained on hard ones\n\n{_RATIOS}\n{_traded(table)}")
    if table["baseline"]:
        page.append(f"## Against {table['baseline']}\n\n{_list(claims(table['differences']))}")
    for question in table["questions"]:
        missing = [f"{first} - {second}: no runs to compare yet." for first, second in question["missing"]]
        named = f"{_LATE if question['late'] else ''}Answered by: {', '.join(map(heading, question['numbers']))}.\n\n"
        page.append(f"## {question['ask']}\n\n{named}{_list([*claims(question['differences']), *missing])}")
    if explored := _explored(table):
        page.append(f"## Exploratory differences\n\nNo claims (see the top).\n\n{explored}")
    return "\n".join(page)


def _origin(table: Mapping[str, Any]) -> list[str]:
    """Which runs are not there, which came later, and by which code they were made, a paragraph each."""
    found = [f"{not_finished(table)}\n"] if table["missing"] else []
    if table["added"]:
        found.append(f"Planned first: {table['planned']}. Added after runs had started: {table['added']}.\n")
    if len(table["code"]) > 1:
        parts_of = "; ".join(f"`{code}`: {', '.join(names)}" for code, names in table["code"].items())
        found.append(f"**Not all runs were made by the same code** (digest of the package's sources): {parts_of}.\n")
    else:
        found += [f"Code (digest of the package's sources): `{code}`.\n" for code in table["code"]]
    return found


def _verdict(table: Mapping[str, Any]) -> list[str]:
    """How many of the planned tests say something, in one line; none where nothing was asked."""
    tests = primaries(table)
    alone, together = (
        [one for one in tests if Interval(**one[level]).excludes_zero()] for level in ("paired", "corrected")
    )
    more = len(alone) - len(together)
    missing = table["num_tests"] - len(tests)
    but = f" {missing} of them have no runs yet." if missing else ""
    said = (
        f"**Of {table['num_tests']} planned tests {len(together)} can be claimed, and {more} more read alone.**{but}\n"
    )
    return [said] if tests else []


def _explored(table: Mapping[str, Any]) -> str:
    """Every exploratory difference of the page once."""
    found: dict[tuple[str, ...], list[str]] = {}
    for one in [*table["differences"], *(one for question in table["questions"] for one in question["differences"])]:
        if is_explored(one):
            value, form = one["paired"], "+.4f" if is_share(one["number"]) else "+.4g"
            ends = f"[{value['low']:{form}}, {value['high']:{form}}]"
            pair = f"{one['first']} - {one['second']}"
            cells = [pair, heading(one["number"]), f"{value['mean']:{form}}", ends, str(value["num_seeds"])]
            found[one["number"], *sorted((one["first"], one["second"]))] = cells
    return _markdown(("pair", "number", "difference", "95 % interval", "seeds"), found.values()) if found else ""


def _traded(table: Mapping[str, Any]) -> str:
    head = ("arm", "seeds", "solved asked", "hard asked", "lost on solved", "gained on hard", "lost / gained", "95 %")
    found = []
    for one in table["traded"]:
        means = [f"{asked:.1f}" for asked in one["asked"]] + [f"{one['lost']:+.4f}", f"{one['gained']:+.4f}"]
        found.append([one["arm"], str(one["num_seeds"]), *means, *_ratio(one)])
    return _markdown(head, found)


def _ratio(one: Mapping[str, Any]) -> tuple[str, str]:
    """(ratio, its interval) of an arm."""
    if one["ratio"] is None:
        return "nothing was gained", "–"
    ends = "unbounded" if one["low"] is None else f"[{one['low']:+.2f}, {one['high']:+.2f}]"
    return f"{one['ratio']:+.2f}", ends if one["num_seeds"] > 1 else "–"


def _markdown(head: Iterable[str], lines: Iterable[Sequence[str]]) -> str:
    names = list(head)
    cells = [names, ["---"] * len(names), *lines]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in cells)


def _list(lines: Sequence[str]) -> str:
    return "".join(f"- {line}\n" for line in lines) or "Nothing to compare yet.\n"
