"""Which rollouts begin with how much of the demonstration."""

from collections import Counter, UserList
from fractions import Fraction

import pytest

from mifo_verl.method.hint import Annealed, Stepwise, Uniform
from mifo_verl.method.prefix import PREFIXES, NoPrefix, Random, Session, Staged, Whole
from mifo_verl.types import Progress, RunFacts


def session(number, n=8, length=10, step_ends=None, step=0, seed=0):
    return Session(number, n, length, step_ends or (length,), Progress(step, interval=1, rl_steps=step), seed)


def tokens(plan, num_correct=0, **of):
    """What each session begins with, if so many of those before it are correct."""
    n = of.pop("n", 8)
    return [plan(session(number, n, **of), num_correct) for number in range(n)]


def test_luffy_gives_the_whole_demonstration_to_the_last_rollout_of_eight():
    assert tokens(Whole()) == [0] * 7 + [10]
    assert tokens(Whole(members=2), n=4) == [0, 0, 10, 10]
    assert tokens(NoPrefix()) == [0] * 8
    assert (Whole(members=2).num_members(8), NoPrefix().num_members(8), Annealed().num_members(8)) == (2, 0, 8)
    assert Whole().needs == {"demonstrations"} and NoPrefix().needs == frozenset()


def test_a_share_is_rounded_down_to_tokens_or_up_to_the_end_of_its_step_if_that_is_near():
    at = session(0, length=20, step_ends=(5, 12, 20))
    assert [at.cut(share) for share in (Fraction(0), Fraction("0.29"), Fraction(1))] == [0, 5, 20]
    shares = ("0", "0.2", "0.25", "0.35", "0.5", "0.7", "1")
    assert [at.cut(Fraction(share), "step") for share in shares] == [0, 5, 5, 12, 12, 20, 20]
    # further on than 0.3 of the demonstration: 12 behind 5.2 tokens, 20 behind 13
    assert [at.cut(Fraction(share), "step") for share in ("0.26", "0.65")] == [5, 13]


def test_prefix_rft_draws_a_share_by_the_questions_seed_and_the_session():
    plan = Random(members=2, low=0.05, high=0.95)
    drawn = [tokens(plan, length=1000, seed=seed) for seed in range(100)]
    assert all(row[:6] == [0] * 6 for row in drawn) and tokens(plan, length=1000, seed=3) == drawn[3]
    shares = [share for row in drawn for share in row[6:]]
    assert all(50 <= share <= 950 for share in shares) and len(set(shares)) > 150
    assert 400 < sum(shares) / 200 < 600


def test_the_lower_end_of_prefix_rft_falls_by_a_cosine():
    plan = Random(low=0.05, high=0.95, decay=100)
    assert [plan.low_at(step) for step in (0, 50, 100, 101)] == pytest.approx([0.95, 0.5, 0.05, 0.05], abs=1e-12)


def test_ufts_chance_of_a_segment_falls_by_a_cosine_and_is_0_behind_its_steps():
    at = [Annealed().p_at(step) for step in (0, 75, 150, 300, 301)]
    assert at == pytest.approx([0.95, 0.81819805, 0.5, 0.05, 0], abs=1e-8)


def test_uft_gives_all_rollouts_the_same_whole_segments_of_the_steps():
    ends = tuple(range(2, 26, 2))  # 12 steps of 2 tokens: segments end behind 2, 5, 7, 10 and 12 of them
    drawn = [tokens(Annealed(high=0.5, low=0.5), length=24, step_ends=ends, seed=seed) for seed in range(2000)]
    assert all(len(set(row)) == 1 for row in drawn)
    counted = Counter(row[0] for row in drawn)
    assert sorted(counted) == [0, 4, 10, 14, 20, 24]
    expected = dict(zip(sorted(counted), (1, 5, 10, 10, 5, 1), strict=True))  # of 32: Binomial(5, 1/2)
    assert all(abs(counted[cut] - 2000 * of / 32) < 70 for cut, of in expected.items())
    few = {tokens(Annealed(high=0.5, low=0.5), step_ends=(3, 6, 10), seed=seed)[0] for seed in range(100)}
    assert few == {0, 3, 6, 10}  # three steps are three segments


def test_ufts_stages_give_a_segment_less_after_every_sixth_of_its_steps():
    steps, ends = (0, 49, 50, 100, 149, 250, 299, 300, 400), tuple(range(2, 26, 2))
    given = [tokens(Stepwise(), length=24, step_ends=ends, step=step, seed=step) for step in steps]
    assert all(len(set(row)) == 1 for row in given)
    # 12 steps of 2 tokens, whose five segments end behind 2, 5, 7, 10 and 12 steps
    assert [row[0] for row in given] == [24, 24, 20, 14, 14, 0, 0, 0, 0]
    two = [tokens(Stepwise(steps=9), step_ends=(4, 10), step=step)[0] for step in range(10)]
    assert two == [10] * 3 + [4] * 3 + [0] * 4  # two steps are two segments: a third of the steps each


def test_r3_gives_any_number_of_segments_alike_over_the_whole_run():
    ends = tuple(range(2, 26, 2))
    drawn = [tokens(Uniform(), length=24, step_ends=ends, step=900, seed=seed) for seed in range(1200)]
    assert all(len(set(row)) == 1 for row in drawn)
    counted = Counter(row[0] for row in drawn)
    assert sorted(counted) == [0, 4, 10, 14, 20, 24] and all(abs(number - 200) < 60 for number in counted.values())


def test_uft_draws_by_the_question_alone_so_that_a_run_that_goes_on_draws_the_same():
    def drawn():
        return [tokens(Annealed(), length=9, step_ends=(3, 6, 9), step=step, seed=step) for step in range(50)]

    assert drawn() == drawn()


def test_uft_at_chance_0_and_1_gives_nothing_and_everything():
    assert tokens(Annealed(high=0, low=0)) == [0] * 8 and tokens(Annealed(high=1, low=1)) == [10] * 8
    assert tokens(Annealed(high=1, low=1, steps=4), step=5) == [0] * 8


def test_trapo_gives_a_micro_group_its_share_if_the_mean_so_far_is_below_its_threshold():
    plan = Staged(cut="token")
    assert [plan.waits_for(number, 8) for number in range(8)] == [0, 0, 0, 0, 4, 4, 6, 7]
    # rewards (1, 0, 0, 0 | 1, 1 | 1): 0.25 < 0.5, 0.5 < 0.7, 0.571 < 0.9
    assert [plan(session(number), right) for number, right in ((4, 1), (5, 1), (6, 3), (7, 4))] == [2, 2, 5, 10]
    # and not at 0.5, 5/6 and 1
    assert [plan(session(number), right) for number, right in ((4, 2), (6, 5), (7, 7))] == [0, 0, 0]
    assert [plan(session(number), 0) for number in range(4)] == [0] * 4 and plan.num_members(8) == 4


def test_a_mean_is_compared_with_its_threshold_as_fractions():
    plan = Staged(groups=(10, 1), ratios=(0, 1), thresholds=(-1, 0.3), cut="token")
    assert [plan(session(10, 11), right) for right in (2, 3)] == [10, 0]  # 3 / 10 < 0.3 is false


def test_bread_gives_a_short_prefix_where_no_rollout_has_succeeded_and_thresholds_of_0_are_rl():
    bread = Staged(groups=(4, 4), ratios=(0, 0.25), thresholds=(-1, 0.125), cut="token")
    assert tokens(bread) == [0] * 4 + [2] * 4 and tokens(bread, num_correct=1) == [0] * 8
    never = Staged(thresholds=UserList([-1, -1, -1, -1]))  # a list of a config is no list of Python's either
    assert tokens(never) == [0] * 8 and never.num_members(8) == 0


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"name": "whole", "members": 0}, "mifo.prefix.members=0 must be a whole number of at least 1"),
        ({"name": "random", "low": 0.9, "high": 0.5}, "mifo.prefix.low=0.9 must be at most high=0.5"),
        ({"name": "random", "decay": 0.5}, "mifo.prefix.decay=0.5 must be a whole number of at least 0"),
        ({"name": "annealed", "low": 0.9, "high": 0.5}, "mifo.prefix.low=0.9 must be at most high=0.5"),
        ({"name": "annealed", "steps": 0}, "mifo.prefix.steps=0 must be a whole number of at least 1"),
        ({"name": "annealed", "segments": 0}, "mifo.prefix.segments=0 must be a whole number of at least 1"),
        ({"name": "stepwise", "steps": 0}, "mifo.prefix.steps=0 must be a whole number of at least 1"),
        ({"name": "uniform", "segments": 0}, "mifo.prefix.segments=0 must be a whole number of at least 1"),
        ({"name": "staged", "groups": 8}, "mifo.prefix.groups=8 must be a list"),
        ({"name": "staged", "ratios": [0, 1]}, r"mifo.prefix.ratios=\[0, 1\] must be as long as groups, which has 4"),
        ({"name": "staged", "groups": [4, 2, 0, 2]}, "mifo.prefix.groups=0 must be a whole number of at least 1"),
        ({"name": "staged", "ratios": [0, 1, 1, 2]}, "mifo.prefix.ratios=2 must be"),
        ({"name": "staged", "thresholds": [-1, "a", 1, 1]}, "mifo.prefix.thresholds=a must be a number"),
        ({"name": "staged", "cut": "word"}, "mifo.prefix.cut=word must be one of token, step"),
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
    assert problems(Annealed()) == problems(Staged()) == []
    assert "add up to the 4 rollouts" in problems(Staged(), num_rollouts=4)[0]
    assert problems(Whole(), loss_aggregation="seq-mean-token-mean") == []
    assert "two parts have two lengths" in problems(Random(), loss_aggregation="seq-mean-token-mean")[0]
