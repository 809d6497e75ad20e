"""acc(q) <= p: method.md part 1 step 2, trap 4."""

from fractions import Fraction

import pytest

from mifo_verl.method.gate import GATES, AnyPrompt, Hpt, MaxAccuracy, Now, RandomGate
from mifo_verl.types import PromptGroup, RunFacts, Use


def group(num_correct: int, num_rollouts: int) -> PromptGroup:
    return PromptGroup("q", num_correct, num_rollouts, step=3)


@pytest.mark.parametrize(
    ("p", "num_correct", "num_rollouts", "hard"),
    [
        (0.1, 1, 10, True),  # trap 4: equal is hard; the nearest float32 to 0.1 is above it, to 0.7 below it
        (0.1, 2, 10, False),
        (0.7, 7, 10, True),
        (0.3, 3, 10, True),  # 3 * 0.1 > 0.3 in floats
        ("1/8", 1, 8, True),
        ("1/8", 2, 8, False),
        (0.125, 1, 8, True),
        ("1/8", 1, 7, False),  # a rollout was dropped: 1/7 > 1/8
        ("1/3", 1, 3, True),
        ("1/3", 2, 6, True),
        ("1/3", 3, 8, False),
        (0.3333333333333333, 1, 3, False),  # what was typed is below a third
        (0, 0, 8, True),
        (0, 1, 8, False),  # p = 0 is ReLIFT's rule
        (1, 8, 8, True),
        ("1", 1, 1, True),
    ],
)
def test_a_prompt_is_hard_where_its_accuracy_is_at_most_p(p, num_correct, num_rollouts, hard):
    gate, use = MaxAccuracy(p), Use.RL | Use.SFT_LATER if hard else Use.RL
    assert gate(group(num_correct, num_rollouts)) == use and gate.accepts(num_correct, num_rollouts) is hard


@pytest.mark.parametrize("p", [0.1, 0.2, 0.3, 0.6, 0.7, 0.9, "1/8", "2/7"])
def test_hard_agrees_with_exact_rationals_for_all_counts_up_to_20_rollouts(p):
    limit = Fraction(p) if isinstance(p, str) else Fraction(round(p * 10), 10)
    for n in range(1, 21):
        for correct in range(n + 1):
            assert MaxAccuracy(p).accepts(correct, n) is (Fraction(correct, n) <= limit), (correct, n)


def test_the_default_is_one_eighth():
    assert MaxAccuracy().accepts(1, 8) and not MaxAccuracy().accepts(2, 8)


def test_any_takes_a_prompt_that_is_always_solved():
    assert AnyPrompt()(group(8, 8)) == Use.RL | Use.SFT_LATER and AnyPrompt().accepts(8, 8)


def test_the_members_are_these():
    assert GATES.names() == ["any", "hpt", "max_accuracy", "now", "random"]


@pytest.mark.parametrize(
    ("gamma", "gated"),
    [
        (-1, []),
        ("-1/8", []),
        (0, [0]),
        (0.125, [0, 1]),  # 1 of 8, as a float
        ("2/8", [0, 1, 2]),
        (1, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_hpt_trains_by_demonstration_instead_of_rollouts_where_accuracy_is_at_most_gamma(gamma, gated):
    uses = [Hpt(gamma)(group(correct, 8)) for correct in range(9)]
    assert [correct for correct, use in enumerate(uses) if use == Use.SFT_NOW] == gated
    assert all(use in (Use.RL, Use.SFT_NOW) for use in uses)


@pytest.mark.parametrize(("gamma", "gradient"), [(-1, 0.15), (0, -0.1), ("1/8", -0.4), (1, -1.0)])
def test_hpt_over_four_questions_by_hand(gamma, gradient):
    # accuracies 0, 1/8, 4/8 and 1 with RL gradients 0, 0.2, 0.4 and 0; each demonstration's gradient is -1
    uses = [Hpt(gamma)(group(correct, 8)) for correct in (0, 1, 4, 8)]
    total = sum(-1 if use == Use.SFT_NOW else rl for use, rl in zip(uses, (0, 0.2, 0.4, 0), strict=True))
    assert total / 4 == pytest.approx(gradient)


def test_chord_trains_on_rollouts_and_demonstration():
    assert Now()(group(8, 8)) == Use.RL | Use.SFT_NOW
    assert Now().trains_now and Hpt().trains_now and not MaxAccuracy().trains_now


def test_a_share_of_the_questions_is_drawn_anew_in_every_step_and_the_same_in_every_run():
    def drawn(gate, step):
        uses = [gate(PromptGroup(f"q{number}", 1, 8, step)) for number in range(1000)]
        assert set(uses) <= {Use.RL, Use.SFT_NOW}
        return [use == Use.SFT_NOW for use in uses]

    first = drawn(RandomGate("1/4", seed=3), step=1)
    assert sum(first) / 1000 == pytest.approx(0.25, abs=0.04)
    assert drawn(RandomGate("1/4", seed=3), step=1) == first
    assert drawn(RandomGate("1/4", seed=3), step=2) != first != drawn(RandomGate("1/4", seed=4), step=1)
    assert not any(drawn(RandomGate(0), step=1)) and all(drawn(RandomGate(1), step=1))  # RL alone; SFT alone
    assert RandomGate().accepts(8, 8) and not RandomGate(0).accepts(0, 8)


def test_hpt_is_refused_where_questions_without_contrast_are_discarded():
    (problem,) = Hpt().problems(RunFacts(filters_groups=True))
    assert problem.setting == "mifo.gate.threshold" and "discards the questions that nobody solves" in problem.rule
    assert list(Hpt().problems(RunFacts())) == []


@pytest.mark.parametrize("p", [-0.1, 1.5, "9/8", "eighth", "1/0", float("nan"), None])
def test_a_p_outside_0_to_1_is_refused_with_the_full_name_of_the_setting(p):
    with pytest.raises(ValueError) as error:
        GATES.build({"name": "max_accuracy", "max_accuracy": p})
    assert str(error.value) == (f"mifo.gate.max_accuracy={p} must be a share in [0, 1]; write it as 0.125 or '1/8'")
