"""Stages of length and the temperature that follows the entropy, by hand."""

import math

import pytest

from mifo_verl.method.sampling import SAMPLINGS, ByEntropy, Fixed
from mifo_verl.types import Progress, RunFacts


def at(step: int, steps: int = 9) -> Progress:
    return Progress(step, 1, step, steps)


def test_each_length_holds_in_an_equal_part_of_the_run_and_one_given_twice_in_two():
    assert [Fixed([8, 16, 32]).max_tokens(at(step)) for step in range(10)] == [8] * 3 + [16] * 3 + [32] * 4
    assert [Fixed([8, 8, 32]).max_tokens(at(step)) for step in (0, 5, 6)] == [8, 8, 32]


def test_without_lengths_and_at_a_fixed_temperature_nothing_is_the_steps_own():
    assert Fixed().max_tokens(at(3)) is None
    assert Fixed().next_temperature(0.6, 5.0) == 0.6


@pytest.mark.parametrize(
    ("entropy", "factor"),
    [
        (0.3, 1.0),
        (0.15, math.exp(0.1 * 0.5)),  # (0.3 - 0.15) / 0.3
        (0.45, math.exp(-0.1 * 0.5)),
        (0.0, math.exp(0.1)),
        (9.0, math.exp(-0.1)),  # no more than the gain
    ],
)
def test_the_temperature_rises_where_the_entropy_is_too_low(entropy, factor):
    assert ByEntropy(gain=0.1).next_temperature(0.9, entropy) == pytest.approx(0.9 * factor, rel=1e-12)


def test_it_stays_within_its_ends_and_does_not_follow_what_is_no_number():
    part = ByEntropy(gain=1.0, low=0.8, high=1.1)
    assert part.next_temperature(1.0, 0.0) == 1.1 and part.next_temperature(1.0, 9.0) == 0.8
    assert part.next_temperature(0.9, math.nan) == 0.9


def test_the_entropy_of_a_softmax_is_led_to_the_target():
    logits, temperature = [2.0, 1.0, 0.0, -1.0], 1.0
    for _ in range(400):
        weights = [math.exp(one / temperature) for one in logits]
        entropy = -sum(w / sum(weights) * math.log(w / sum(weights)) for w in weights)
        temperature = ByEntropy(low=0.1).next_temperature(temperature, entropy)
    assert entropy == pytest.approx(0.3, abs=1e-3) and 0.1 < temperature < 1


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"name": "fixed", "lengths": [8, 0]}, r"mifo.sampling.lengths=\[8, 0\] must be a list of whole numbers"),
        ({"name": "by_entropy", "target": 0}, "mifo.sampling.target=0 must be a number above 0"),
        ({"name": "by_entropy", "high": 0.1}, "mifo.sampling.high=0.1 must be a number of at least low=0.5"),
        ({"name": "fixed", "target": 0.3}, "mifo.sampling.target=0.3 must be a setting of fixed"),
    ],
)
def test_values_that_mean_nothing_are_refused(node, message):
    with pytest.raises(ValueError, match=message):
        SAMPLINGS.build(node)


def test_a_stage_fits_the_run_and_given_tokens_count_at_temperature_1():
    facts = RunFacts(response_tokens=32)
    assert [str(one.rule) for one in Fixed([16, 64]).problems(facts)] == ["at most data.max_response_length=32 each"]
    assert not list(Fixed([16, 32]).problems(facts)) and not list(ByEntropy().problems(facts))
    given = RunFacts(response_tokens=32, has_prefixes=True)
    assert [len(list(part.problems(given))) for part in (Fixed(), Fixed([16]), ByEntropy())] == [0, 1, 1]
