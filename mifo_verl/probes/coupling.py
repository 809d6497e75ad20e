"""The coupling table: what RL cost SFT and SFT cost RL, by interval and in all, from the records of a run.

The two couplings are those of the non-decoupling study (arXiv 2601.07389). Standard library only; docs/results.md
defines what is measured.
"""

from collections.abc import Iterable
from typing import Any

ROUNDING = 1e-9
"""A smaller change is none: means of accuracies are taken in floats."""
DIFFERENCES = {
    "rl_raised_cross_entropy": ("rl", "cross_entropy", 1),
    "sft_raised_cross_entropy": ("sft", "cross_entropy", 1),
    "sft_lost_accuracy": ("sft", "accuracy", -1),
    "sft_lost_solved": ("sft", "solved_accuracy", -1),
    "sft_gained_hard": ("sft", "hard_accuracy", 1),
    "sft_raised_entropy": ("sft", "policy_entropy", 1),
    "sft_raised_margin": ("sft", "reward_margin", 1),
}
"""A column of the table: the phase, what is measured before and after it, and 1 for after - before, -1 for the
opposite."""
KL, PRICE = "kl_to_before", "lost_solved_per_gained_hard"
NET = "sft/net_accuracy"
"""What SFT phases gained on hard prompts less what they lost on solved ones; see ``asked_of``."""

Row = dict[str, float | None]


def coupling(lines: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """``intervals``: a row for every interval that was measured; ``total``: the sums of their columns.

    The last column is the accuracy lost on solved prompts for each unit gained on hard ones, None where nothing was
    gained; in the total it is the ratio of the sums over the intervals that have both.
    """
    found: dict[int, Row] = {}
    for line in lines:
        measured = {name: value for name in DIFFERENCES if (value := _difference(line, name)) is not None}
        if (kl := line.get(KL)) is not None:
            measured[KL] = kl
        found.setdefault(line["interval"], {}).update(measured)
    rows = [row for _, row in sorted(found.items()) if row]
    intervals = [interval for interval, row in sorted(found.items()) if row]
    total: Row = {name: _sum(row.get(name) for row in rows) for name in (*DIFFERENCES, KL)}
    both = [row for row in rows if "sft_lost_solved" in row and "sft_gained_hard" in row]
    total[PRICE] = _price(_sum(row["sft_lost_solved"] for row in both), _sum(row["sft_gained_hard"] for row in both))
    return {
        "intervals": [{"interval": i} | _whole(row) for i, row in zip(intervals, rows, strict=True)],
        "total": total,
    }


def asked_of(sft: Iterable[dict[str, Any]]) -> dict[str, float]:
    """What SFT phases changed on the training prompts that were asked before and after them, one vote a prompt.

    ``sft/solved_accuracy``, ``sft/hard_accuracy``: after - before, each phase weighted by the prompts of the kind that
    it asked. ``sft/net_accuracy``: over the phases that asked both kinds, the hard prompts gained less the solved ones
    lost (a share of a prompt where it was answered more than once), divided by all prompts asked there: +0.1 is one
    prompt in ten won. ``solved_asked`` and ``hard_asked``: how many prompts, summed over all phases.
    """
    found: dict[str, float] = {}
    won: list[dict[str, tuple[int, float]]] = []
    for line in sft:
        kinds = {kind: _prompts_won(line, kind) for kind in ("solved", "hard")}
        won.append({kind: pair for kind, pair in kinds.items() if pair is not None})
    for kind in ("solved", "hard"):
        if pairs := [phase[kind] for phase in won if kind in phase]:
            found[f"sft/{kind}_accuracy"], found[f"{kind}_asked"] = _per_prompt(pairs), float(sum(n for n, _ in pairs))
    if both := [pair for phase in won if len(phase) == 2 for pair in phase.values()]:
        found[NET] = _per_prompt(both)
    return found


def _prompts_won(line: dict[str, Any], kind: str) -> tuple[int, float] | None:
    """(prompts of a kind that a phase asked, how many more of them were right after it); None where it asked none."""
    num_asked = (line.get("probe") or {}).get(kind, 0)
    before, after = (mean_of(line.get(f"{kind}_accuracy_{side}")) for side in ("before", "after"))
    return None if not num_asked or before is None or after is None else (num_asked, num_asked * change(before, after))


def _per_prompt(pairs: list[tuple[int, float]]) -> float:
    return sum(won for _, won in pairs) / sum(num_asked for num_asked, _ in pairs)


def change(before: float, after: float) -> float:
    """What a phase changed, 0 where it is only rounding."""
    return after - before if abs(after - before) > ROUNDING else 0.0


def mean_of(value: Any) -> float | None:
    """A probe's one number: itself, or the ``mean`` of a table by data source."""
    if isinstance(value, dict):
        value = value.get("mean")
    return None if value is None or isinstance(value, bool) or not isinstance(value, int | float) else float(value)


def _difference(line: dict[str, Any], name: str) -> float | None:
    phase, quantity, sign = DIFFERENCES[name]
    before, after = mean_of(line.get(f"{quantity}_before")), mean_of(line.get(f"{quantity}_after"))
    if line["phase"] != phase or before is None or after is None:
        return None
    return change(before, after) if sign > 0 else change(after, before)


def _whole(row: Row) -> Row:
    price = _price(row.get("sft_lost_solved"), row.get("sft_gained_hard"))
    return {name: row.get(name) for name in (*DIFFERENCES, KL)} | {PRICE: price}


def _price(lost: float | None, gained: float | None) -> float | None:
    return None if lost is None or gained is None or gained <= 0 else lost / gained


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
