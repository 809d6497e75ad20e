"""From the curves of arms to numbers at a matched gain, and the planned tests. Pure functions.

An arm that merely learns less also forgets less, so arms are compared where they have gained the same: along each arm's
curve, between the two measurements around the first place where it has gained so much, by linear interpolation.

* An arm that never gains so much has no number there; the table says how many checkpoints have one.
* The two arms of a test are compared, checkpoint by checkpoint, at the gain asked for, or at the most that both reach
  if that is less; a checkpoint where this is below half of what is asked for tells nothing, and is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from scipy.stats import spearmanr, ttest_1samp

from mifo_verl.tools.fork.records import Measured
from mifo_verl.tools.statistics import Interval, holm, t_interval

NUMBERS = {
    "lost": "accuracy lost on the skill it had",
    "lost_prompts": "solved prompts lost (1→0), of those solved at the start",
    "won_prompts": "prompts won (0→1), of those not solved at the start",
    "kl": "KL to the phase's start on its rollouts, nats a token",
    "cross_entropy_demonstrations": "cross-entropy of demonstrations, nats a token",
    "cross_entropy_rollouts": "cross-entropy of the start's rollouts, nats a token",
    "weight_change": "L2 norm of the weights' change",
    "update": "updates",
}
"""What is told at a matched gain. Shares and accuracies are in [0, 1]; lost is positive."""
PREDICTORS = ("kl", "weight_change", "gain", "update")
"""Numbers that may tell what is lost: the KL (Shenfeld et al. 2025, RL's Razor), or how far the weights have moved."""
FEWEST = 0.5
"""The share of the gain asked for below which two arms are not compared."""

Point = dict[str, float]
"""``gain`` and the ``NUMBERS`` after some updates."""


def curve_of(measured: Sequence[Measured]) -> list[Point]:
    """The points of an arm, the first of which is the phase's start: nothing gained, nothing lost."""
    start, points = measured[0], []
    solved = sum(start.own)
    for one in measured:
        lost = sum(before > now for before, now in zip(start.own, one.own, strict=True))
        won = sum(before < now for before, now in zip(start.own, one.own, strict=True))
        point = {
            "gain": _mean(one.gained) - _mean(start.gained),
            "lost": (lost - won) / len(one.own),
            "lost_prompts": lost / max(solved, 1),
            "won_prompts": won / max(len(one.own) - solved, 1),
        }
        point |= {name: getattr(one, name) for name in NUMBERS if name not in point}
        points.append({name: value for name, value in point.items() if value is not None})
    return points


def at_gain(curve: Sequence[Point], gain: float) -> Point | None:
    """The numbers where the curve first has this gain; None if it never has."""
    if curve[0]["gain"] >= gain:
        return curve[0]
    for before, after in pairwise(curve):
        if after["gain"] >= gain:
            share = (gain - before["gain"]) / (after["gain"] - before["gain"])
            return {name: value + share * (after[name] - value) for name, value in before.items()}
    return None


def most(curve: Sequence[Point]) -> float:
    """The largest gain of a curve."""
    return max(point["gain"] for point in curve)


@dataclass(frozen=True)
class Test:
    """``first`` minus ``second`` in one number at a matched gain, paired by checkpoint."""

    first: str
    second: str
    number: str
    paired: Interval | None
    """At 95 %; None if no checkpoint tells anything."""
    p: float
    """Of the paired t test, two-sided; 1 without a spread to test by."""
    p_holm: float
    """The same among all planned tests (Holm 1979); at most 0.05: it can be claimed."""
    lowered: int
    """Checkpoints compared at less than the gain asked for, because an arm did not reach it."""
    left_out: int
    """Checkpoints that tell nothing."""


def planned_tests(
    curves: Mapping[str, Mapping[str, Sequence[Point]]],
    pairs: Sequence[tuple[str, str]],
    gain: float,
    number: str,
) -> list[Test]:
    """The planned tests of the curves by arm and checkpoint; a pair without a run counts among the tests of Holm."""
    found = [_compared(curves.get(first, {}), curves.get(second, {}), gain, number) for first, second in pairs]
    p = [_p(differences) for differences, *_ in found]
    return [
        Test(*pair, number, t_interval(differences) if differences else None, own, among, lowered, left_out)
        for pair, (differences, lowered, left_out), own, among in zip(pairs, found, p, holm(p), strict=True)
    ]


def predictions(curves: Mapping[str, Mapping[str, Sequence[Point]]]) -> dict[str, Interval]:
    """How well each of the predictors orders what is lost, and how much better the KL does than the weights' change.

    Spearman's rank correlation of ``lost`` with the number, over the points after the start of all arms of a checkpoint;
    the mean over checkpoints with its interval. Checkpoints where nothing varies have none.
    """
    points: dict[str, list[Point]] = {}
    for own in curves.values():
        for checkpoint, curve in own.items():
            points.setdefault(checkpoint, []).extend(curve[1:])
    found: dict[str, list[float]] = {name: [] for name in PREDICTORS}
    for each in points.values():
        columns = {name: [point[name] for point in each] for name in ("lost", *PREDICTORS)}
        if all(len(set(column)) > 1 for column in columns.values()):
            for name in PREDICTORS:
                found[name].append(float(spearmanr(columns["lost"], columns[name]).statistic))
    better = [one - other for one, other in zip(found["kl"], found["weight_change"], strict=True)]
    return {name: t_interval(values) for name, values in (found | {"kl − weight_change": better}).items() if values}


def _compared(
    first: Mapping[str, Sequence[Point]], second: Mapping[str, Sequence[Point]], gain: float, number: str
) -> tuple[list[float], int, int]:
    """The differences of the checkpoints that both have; how many are lowered, and how many are left out."""
    differences, lowered, left_out = [], 0, 0
    for checkpoint in sorted(first.keys() & second.keys()):
        curves = first[checkpoint], second[checkpoint]
        matched = min(gain, *map(most, curves))
        one, two = (at_gain(curve, matched) for curve in curves)
        if matched < FEWEST * gain or one is None or two is None:
            left_out += 1
            continue
        lowered += matched < gain
        differences.append(one[number] - two[number])
    return differences, lowered, left_out


def _p(differences: Sequence[float]) -> float:
    if len(differences) < 2 or not t_interval(differences).has_width:
        return 1.0
    return float(ttest_1samp(differences, 0.0).pvalue)


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)
