"""Which rollouts begin with how much of the demonstration."""

from fractions import Fraction

import pytest

from mifo_verl.method.prefix import PREFIXES, NoPrefix, Random, Whole, num_tokens
from mifo_verl.types import Progress, RunFacts

START = Progress(step=0, interval=1, rl_steps=0)


def test_luffy_gives_the_whole_demonstration_to_the_last_rollout_of_eight():
    assert [Whole()(session, 8, START, seed=0) for session in range(8)] == [0] * 7 + [1]
    assert [Whole(members=2)(session, 4, START, seed=0) for session in range(4)] == [0, 0, 1, 1]
    assert (Whole(members=2).members, NoPrefix().members) == (2, 0)
    assert NoPrefix()(7, 8, START, seed=0) == 0


def test_prefix_rft_draws_a_share_by_the_sessions_own_seed():
    plan = Random(low=0.05, high=0.95)
    assert plan(6, 8, START, seed=3) == 0
    shares = [plan(7, 8, START, seed=seed) for seed in range(200)]
    assert all(Fraction("0.05") <= share <= Fraction("0.95") for share in shares)
    assert plan(7, 8, START, seed=3) == shares[3] and len(set(shares)) == 200
    assert 0.4 < sum(shares) / 200 < 0.6


def test_the_lower_end_of_prefix_rft_falls_by_a_cosine():
    plan = Random(low=0.05, high=0.95, decay=100)
    assert [plan.low_at(step) for step in (0, 50, 100, 101)] == pytest.approx([0.95, 0.5, 0.05, 0.05], abs=1e-12)


def test_a_share_is_rounded_down_to_tokens():
    assert [num_tokens(share, 10) for share in (Fraction(0), Fraction("0.29"), Fraction(1))] == [0, 2, 10]


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"name": "whole", "members": 0}, "mifo.prefix.members=0 must be a whole number of at least 1"),
        ({"name": "random", "low": 0.9, "high": 0.5}, "mifo.prefix.low=0.9 must be at most high=0.5"),
        ({"name": "random", "decay": 0.5}, "mifo.prefix.decay=0.5 must be a whole number of at least 0"),
    ],
)
def test_plans_that_are_none_are_refused(node, message):
    with pytest.raises(ValueError, match=message):
        PREFIXES.build(node)


def problems(part, **facts):
    return [problem.rule for problem in part.problems(RunFacts(**facts))]


def test_given_tokens_are_refused_where_verl_computes_something_of_tokens_that_nobody_sampled():
    assert problems(Whole()) == [] and problems(NoPrefix(), has_critic=True, corrects_rollouts=True) == []
    assert "no server has log-probabilities of given tokens" in problems(Whole(), corrects_rollouts=True)[0]
    assert "none beside a critic" in problems(Whole(), has_critic=True)[0]
    assert "whitens advantages over the given tokens" in problems(Whole(), algorithm="reinforce_plus_plus")[0]
    assert "below the 8 rollouts" in problems(Whole(members=8))[0]
    assert problems(Whole(), loss_aggregation="seq-mean-token-mean") == []
    assert "two parts have two lengths" in problems(Random(), loss_aggregation="seq-mean-token-mean")[0]
