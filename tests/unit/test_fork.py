"""Forks: numbers at a matched gain by hand-made curves, the planned tests, the arms file, the page."""

from pathlib import Path

import msgspec
import pytest

from mifo_verl.compose import ConfigError
from mifo_verl.tools.fork.definition import Bed, parse, read_definition
from mifo_verl.tools.fork.numbers import at_gain, curve_of, most, planned_tests, predictions
from mifo_verl.tools.fork.page import frontier, write_page
from mifo_verl.tools.fork.records import Began, Ended, Measured, read_arm
from mifo_verl.tools.statistics import holm


def measured(update: int, own: list[int], gained: list[int], kl: float = 0.0) -> Measured:
    return Measured(
        update=update,
        own=own,
        gained=gained,
        kl=kl,
        cross_entropy_rollouts=0.5,
        cross_entropy_demonstrations=None,
        weight_change=update / 10,
    )


def line(*points: tuple[float, float]) -> list[dict[str, float]]:
    """A curve of (gain, lost)."""
    return [{"gain": gain, "lost": lost} for gain, lost in points]


def test_a_point_counts_the_prompts_that_were_lost_and_won_since_the_start():
    start, later = measured(0, [1, 1, 1, 1, 0], [0, 0]), measured(10, [1, 0, 0, 0, 1], [1, 0], kl=0.25)
    [first, point] = curve_of([start, later])
    assert (first["gain"], first["lost"], first["lost_prompts"], first["won_prompts"]) == (0, 0, 0, 0)
    assert point["gain"] == 0.5
    assert point["lost"] == pytest.approx(0.4)  # 4 of 5 right, then 2 of 5
    assert point["lost_prompts"] == 0.75  # three of the four that were solved
    assert point["won_prompts"] == 1.0  # the one that was not
    assert (point["kl"], point["update"], point["weight_change"]) == (0.25, 10, 1.0)
    assert "cross_entropy_demonstrations" not in point


def test_between_two_measurements_a_number_lies_on_the_line_between_them():
    curve = line((0, 0), (0.2, 0.1), (0.6, 0.5))
    assert at_gain(curve, 0.1) == pytest.approx({"gain": 0.1, "lost": 0.05})
    assert at_gain(curve, 0.3) == pytest.approx({"gain": 0.3, "lost": 0.2})  # a quarter of the way from .1 to .5
    assert at_gain(curve, 0.6) == pytest.approx({"gain": 0.6, "lost": 0.5})
    assert at_gain(curve, 0) == {"gain": 0, "lost": 0}


def test_the_first_place_with_the_gain_counts_and_an_arm_that_never_gains_it_has_no_number():
    curve = line((0, 0), (0.4, 0.1), (0.2, 0.3), (0.4, 0.9))
    assert at_gain(curve, 0.4) == pytest.approx({"gain": 0.4, "lost": 0.1})
    assert most(curve) == 0.4 and at_gain(curve, 0.5) is None


def test_a_pair_is_compared_at_the_gain_that_both_reach_and_left_out_below_half_of_it():
    steep, flat = line((0, 0), (0.8, 0.8)), line((0, 0), (0.8, 0.4))
    short, none = line((0, 0), (0.5, 0.1)), line((0, 0), (0.3, 0.0))
    curves = {
        "plain": {"a": steep, "b": steep, "c": steep, "d": steep},
        "frozen": {"a": flat, "b": short, "c": none},
    }
    [test] = planned_tests(curves, [("frozen", "plain")], gain=0.8, number="lost")
    # a: 0.4 - 0.8 at 0.8; b: 0.1 - 0.5 at 0.5, which is lowered; c: at most 0.3, below 0.4; d: no run of both
    assert test.paired is not None and test.paired.mean == pytest.approx(-0.4)
    assert (test.paired.num_values, test.lowered, test.left_out) == (2, 1, 1)


def test_a_planned_test_is_a_paired_t_test_and_counts_among_all_of_the_plan_whether_run_or_not():
    def arm(*losses: float) -> dict[str, list[dict[str, float]]]:
        return {str(place): line((0, 0), (1, lost)) for place, lost in enumerate(losses)}

    curves = {"plain": arm(0.5, 0.5, 0.5, 0.5), "frozen": arm(0.2, 0.3, 0.3, 0.4)}
    found = planned_tests(curves, [("frozen", "plain"), ("mifo", "plain"), ("frozen", "mifo")], 1.0, "lost")
    # differences -.3 -.2 -.2 -.1: mean -.2, standard error .0816/2 = .0408, t = -4.899 with 3 degrees: p = .01628
    assert found[0].p == pytest.approx(0.01628, abs=1e-5)
    assert found[0].p_holm == pytest.approx(3 * 0.01628, abs=5e-5)
    assert (found[0].paired.low, found[0].paired.high) == pytest.approx((-0.32992, -0.07008), abs=1e-5)
    assert [(one.paired, one.p, one.p_holm) for one in found[1:]] == [(None, 1.0, 1.0)] * 2


def test_a_number_tells_what_is_lost_as_well_as_it_orders_the_points_of_a_checkpoint():
    def points(*rows: tuple[float, ...]) -> list[dict[str, float]]:
        names = ("lost", "kl", "weight_change", "gain", "update")
        return [dict.fromkeys(names, 0.0), *(dict(zip(names, row, strict=True)) for row in rows)]

    curves = {
        "plain": {"a": points((0.1, 1, 9, 1, 1), (0.3, 3, 8, 3, 2)), "b": points((0.1, 1, 1, 1, 1), (0.2, 2, 2, 2, 2))},
        "frozen": {"a": points((0.2, 2, 7, 2, 1), (0.4, 4, 6, 1, 2))},
    }
    found = predictions(curves)
    # a: as lost rises, kl ranks 1 2 3 4 and the weights' change 4 2 3 1: 1 - 6 * (9 + 0 + 0 + 9) / (4 * 15) = -.8; b: 1, 1
    assert (found["kl"].mean, found["kl"].num_values) == (1.0, 2)
    assert found["weight_change"].mean == pytest.approx((-0.8 + 1) / 2)
    assert found["kl − weight_change"].mean == pytest.approx((1.8 + 0) / 2)
    # a: updates rank 1.5 1.5 3.5 3.5, so their covariance with 1 2 3 4 is 4, of squares 5 and 4; b: 1
    assert found["update"].mean == pytest.approx((4 / 20**0.5 + 1) / 2)
    assert predictions({"plain": {"a": curves["plain"]["a"][:1]}}) == {}


def test_holm_multiplies_the_smallest_by_all_and_the_others_by_those_left_and_never_falls():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def records(folder: Path, arm: str, checkpoint: str, right: int, key: str = "k") -> None:
    began = Began(arm=arm, checkpoint=checkpoint, overrides=[], key=key, weights_sha256=["0"], mask=None)
    points = [measured(0, [1] * 10, [0] * 10), measured(4, [1] * right + [0] * (10 - right), [1] * 8 + [0] * 2, 0.5)]
    lines = [began, *points, Ended(frozen_drift=None, weights_sha256=["1"], seconds=1.0)]
    (folder / checkpoint).mkdir(parents=True, exist_ok=True)
    (folder / checkpoint / f"{arm}.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, lines)) + b"\n")


def test_the_page_is_made_of_the_records_alone(tmp_path, capsys):
    for checkpoint, right in (("a", 6), ("b", 4)):
        records(tmp_path, "plain", checkpoint, right)
        records(tmp_path, "frozen", checkpoint, right + 3)
    definition = parse(
        {"title": "T", "updates": 4, "at": [4], "arms": {"plain": "", "frozen": ""}, "pairs": [["frozen", "plain"]]},
        Path("arms.yaml"),
    )
    write_page(tmp_path, definition, Bed("t", "o", "g", gain=0.4), "mifo analyze fork")
    said = (tmp_path / "fork.md").read_text()
    assert "Before the phase 100.0 ± 0.0 % of the questions of the skill they had are right" in said
    # at the end plain has lost 40 and 60 points, at half of the gain half of them; frozen 10 and 30, 5 and 15
    assert "| plain | 2 of 2 | 80.0 ± 0.0 | 50.0 ± 127.1 | 25.0 ± 63.5 |" in said
    assert "| frozen | 2 of 2 | 80.0 ± 0.0 | 20.0 ± 127.1 | 10.0 ± 63.5 |" in said
    assert "| frozen − plain | -15 points | [-15, -15] | 2 | 0 | 0 | 1 | 1 | none |" in said
    table = (tmp_path / "fork.csv").read_text().splitlines()
    assert table[0].startswith("arm,checkpoint,gain,lost,lost_prompts,won_prompts,kl,") and len(table) == 9
    html = (tmp_path / "fork.html").read_text()
    assert "What was lost for what was gained" in html and "<td>frozen</td>" in html
    assert "frozen" in capsys.readouterr().out


def test_the_frontier_has_a_curve_an_arm_with_kl_as_its_colour_and_ends_where_a_checkpoint_gains_no_more():
    one = [{"gain": 0, "lost": 0, "kl": 0}, {"gain": 0.8, "lost": 0.4, "kl": 1.0}]
    two = [{"gain": 0, "lost": 0, "kl": 0}, {"gain": 0.4, "lost": 0.4, "kl": 1.0}]
    band, curve = frontier({"plain": {"a": one, "b": two}}).data
    assert band["fill"] == "toself" and curve["name"] == "plain"
    assert (curve["x"][0], curve["x"][-1]) == (0, 40) and len(curve["x"]) == 21
    assert curve["y"][-1] == pytest.approx(30)  # the mean of 20 and 40
    assert curve["marker"]["color"][-1] == pytest.approx(0.75)


def test_the_frontier_shows_the_number_of_the_bed_and_no_two_of_many_arms_look_alike():
    one = [
        {"gain": 0, "lost": 0, "lost_prompts": 0, "kl": 0},
        {"gain": 0.8, "lost": 0.4, "lost_prompts": 0.6, "kl": 1.0},
    ]
    figure = frontier({str(arm): {"a": one} for arm in range(20)}, "lost_prompts")
    assert {curve["y"][-1] for curve in figure.data} == {60}
    assert len({(curve["line"]["color"], curve["line"]["dash"]) for curve in figure.data}) == 20


def test_a_record_that_is_not_whole_is_named_with_its_cure(tmp_path):
    records(tmp_path, "plain", "a", 5)
    file = tmp_path / "a" / "plain.jsonl"
    assert read_arm(file).ended.seconds == 1.0
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(
        ValueError, match=r"a/plain.jsonl is not the whole record of an arm .*; delete it to run the arm again"
    ):
        read_arm(file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pairs": [["frozn", "plain"]]}, "arm of pairs=frozn must be one of plain, frozen (did you mean frozen?)"),
        ({"beds": {"S": {"number": "losst"}}}, "number=losst must be one of lost, lost_prompts"),
        ({"arm": {}}, "key=arm must be one of title"),
        ({"updates": 0}, "updates=0 must be a whole number of at least 1"),
    ],
)
def test_mistakes_in_an_arms_file_are_named(change, said):
    node = {"title": "T", "updates": 4, "at": [4], "arms": {"plain": "", "frozen": ""}} | change
    with pytest.raises(ValueError) as error:
        parse(node, Path("arms.yaml"))
    assert said in str(error.value)


def test_an_arms_file_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ConfigError, match=r"sweep=recip must be one of .*\(did you mean recipe\?\)"):
        read_definition("recip")
