"""CHORD's mu by step, and the weights at which an update is RL's or SFT's alone."""

import pytest

from mifo_verl.method.mixing import MIXINGS, Chord, Constant, NoMixing, Progressive, Weights
from mifo_verl.types import Progress, RunFacts


def at(step: int) -> Progress:
    return Progress(step=step, interval=1, rl_steps=step)


def test_mu_of_chord_falls_from_its_peak_to_its_valley_by_a_cosine():
    mu = [Chord(warmup=0, decay=200, peak=0.9, valley=0.05)(at(step)).sft for step in (0, 50, 100, 150, 200, 201)]
    assert mu == pytest.approx([0.9, 0.77552038, 0.475, 0.17447962, 0.05, 0.05], abs=1e-8)


def test_mu_of_chord_rises_from_0_while_it_warms_up():
    mu = [Chord(warmup=200, decay=400, peak=0.5, valley=0.02)(at(step)).sft for step in (0, 100, 200, 400, 600)]
    assert mu == pytest.approx([0.0, 0.25, 0.5, 0.26, 0.02], abs=1e-8)


def test_the_weights_of_chord_are_1_minus_mu_and_mu():
    assert Chord(peak=0.1, valley=0.1)(at(7)) == Weights(rl=0.9, sft=0.1)
    assert Chord(peak=0, valley=0)(at(7)) == Weights(rl=1.0, sft=0.0)
    assert Chord(peak=1, valley=1)(at(7)) == Weights(rl=0.0, sft=1.0)


@pytest.mark.parametrize(("mu", "gradient"), [(0.0, 0.4), (0.1, 0.26), (0.9, -0.86), (1.0, -1.0)])
def test_chord_of_an_rl_gradient_of_0_4_and_an_sft_gradient_of_minus_1(mu, gradient):
    weights = Chord(decay=0, valley=mu)(at(0))
    assert weights.rl * 0.4 + weights.sft * -1.0 == pytest.approx(gradient, abs=1e-12)


def test_progressive_weighs_sft_less_from_stage_to_stage():
    mixing = Progressive(stages=[0.9, 0.5, 0.0])
    mu = [mixing(Progress(step, 1, step, steps=9)).sft for step in range(10)]
    assert mu == [0.9, 0.9, 0.9, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0]
    assert mixing(Progress(8, 1, 8, steps=9)) == Weights(rl=1.0, sft=0.0)  # RL's, to the bit
    of_a_budget = [mixing(Progress(1, 1, 1, steps=900, spent=spent)).sft for spent in (0.0, 0.3, 0.34, 0.7, 1.2)]
    assert of_a_budget == [0.9, 0.9, 0.5, 0.0, 0.0]


def test_without_mixing_rl_has_weight_1_and_sft_weight_0():
    assert MIXINGS.build({"name": "none"})(at(3)) == Weights(rl=1.0, sft=0.0)
    assert Constant(sft=0.3, rl=1)(at(3)) == Weights(rl=1.0, sft=0.3)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"name": "chord", "peak": 1.5}, r"mifo.mixing.peak=1.5 must be in \[0, 1\]"),
        ({"name": "chord", "decay": -1}, "mifo.mixing.decay=-1 must be a whole number of at least 0"),
        (
            {"name": "chord", "demonstrations": "all"},
            "mifo.mixing.demonstrations=all must be one of questions, dataset",
        ),
        ({"name": "constant", "sft": -1}, "mifo.mixing.sft=-1 must be a finite number of at least 0"),
        ({"name": "constant", "rl": float("inf")}, "mifo.mixing.rl=inf must be a finite number"),
        ({"name": "progressive", "stages": []}, r"mifo.mixing.stages=\[\] must be a list of numbers in \[0, 1\]"),
        ({"name": "progressive", "stages": [0.5, 2]}, r"mifo.mixing.stages=\[0.5, 2\] must be a list of numbers"),
        ({"name": "constant", "per": "token"}, "mifo.mixing.per=token must be one of demonstration, question"),
    ],
)
def test_weights_that_are_none_are_refused(node, message):
    with pytest.raises(ValueError, match=message):
        MIXINGS.build(node)


def problems(part, **facts):
    return [
        problem.rule for problem in part.problems(RunFacts(**{"has_sft_phases": False, "trains_now": True} | facts))
    ]


def test_a_second_loss_needs_demonstrations_in_rl_steps_and_no_sft_phase_beside_it():
    assert problems(Chord()) == [] and problems(NoMixing(), trains_now=False, has_sft_phases=True) == []
    assert "mifo.gate has none for them" in problems(Constant(), trains_now=False)[0]
    assert "mifo.schedule has SFT phases" in problems(Chord(), has_sft_phases=True)[0]
    assert "mifo.gate trains on demonstrations in RL steps" in problems(NoMixing())[0]
