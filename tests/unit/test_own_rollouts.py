"""SFT beside the policy's own correct rollouts: the loss by hand, which are kept, and whose turn it is."""

import math
from itertools import permutations

import pytest
import torch

from mifo_verl.loop.own_rollouts import OwnRollout, sample, turn
from mifo_verl.loop.state import LoopState
from mifo_verl.method.constraint import CONSTRAINTS, NoConstraint
from mifo_verl.method.own_rollouts import KlRollouts, Replay
from mifo_verl.method.part import OWN_KL, OWN_LOG_PROB
from mifo_verl.types import RunFacts, SftExample
from tests.unit.test_loop import count, draw, loop_of, rollouts

# The KL to the phase's start


def test_the_kl_at_a_rollouts_tokens_and_its_gradient_by_hand():
    log_prob = torch.tensor([[0.2, 0.5]]).log().requires_grad_()
    facts = {"log_prob": log_prob, OWN_LOG_PROB: torch.tensor([[0.3, 0.5]]).log()}
    loss_B = KlRollouts().own_loss(facts, torch.ones(1, 2).bool())
    loss_B.sum().backward()
    # r = p / p* = 2/3 at the first token: r - 1 - log r = -1/3 + log 3/2, and 0 at the second, where nothing has changed
    assert loss_B.tolist() == pytest.approx([(-1 / 3 + math.log(1.5)) / 2], abs=1e-7)
    assert log_prob.grad[0].tolist() == pytest.approx([-1 / 6, 0.0], abs=1e-6)  # (r - 1) / 2: p is pulled up again


def test_over_what_the_policy_before_draws_it_is_the_kl_from_that_policy():
    before = torch.tensor([0.7, 0.2, 0.1])
    logits = torch.tensor([0.5, 0.3, 0.2]).log().requires_grad_()
    facts = {"log_prob": logits.log_softmax(0)[:, None], OWN_LOG_PROB: before.log()[:, None]}
    loss = (before * KlRollouts().own_loss(facts, torch.ones(3, 1).bool())).sum()
    loss.backward()
    assert loss.item() == pytest.approx(0.08512283, abs=1e-7)  # 0.7 log 7/5 + 0.2 log 2/3 + 0.1 log 1/2
    assert logits.grad.tolist() == pytest.approx([-0.2, 0.1, 0.1], abs=1e-6)  # that of the KL: policy - policy before


def test_the_exact_kl_is_a_mean_over_the_response():
    kl, mask = torch.tensor([[0.5, 1.0, 9.0], [9.0, 9.0, 9.0]]), torch.tensor([[1, 1, 0], [0, 0, 0]]).bool()
    facts = {"log_prob": torch.zeros(2, 3), OWN_KL: kl}
    assert KlRollouts(estimator="exact").own_loss(facts, mask).tolist() == pytest.approx([0.75, 0.0])


def test_a_strength_of_0_asks_for_nothing_and_the_estimator_for_no_more_than_it_reads():
    assert KlRollouts(0).needs == NoConstraint().needs == frozenset() and KlRollouts(0).own_weight == 0
    assert KlRollouts(2.5).needs == {"own_rollouts", OWN_LOG_PROB} and KlRollouts(2.5).own_weight == 2.5
    assert KlRollouts(estimator="exact").needs == {"own_rollouts", OWN_KL}
    assert list(KlRollouts().costs(RunFacts())) == []
    (cost,) = KlRollouts(estimator="exact").costs(RunFacts())
    assert (cost.num_bytes, cost.phases) == (4, ("sft",))


@pytest.mark.parametrize("facts", [{"has_sft_phases": False}, {"starts_with_sft": True}])
def test_a_run_whose_sft_follows_no_rollouts_is_refused(facts):
    for part in (KlRollouts(), Replay()):
        (problem,) = part.problems(RunFacts(**facts))
        assert problem.is_error and problem.setting == "mifo.constraint.name"
        assert "SFT phases that follow RL steps" in problem.rule
        assert list(part.problems(RunFacts())) == []


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"strength": -1}, "strength=-1 must be a finite number of at least 0"),
        ({"estimator": "k3"}, "estimator=k3 must be one of token, exact"),
    ],
)
def test_settings_out_of_range_are_refused(node, message):
    with pytest.raises(ValueError, match=f"mifo.constraint.{message}"):
        CONSTRAINTS.build({"name": "kl_rollouts", **node})


def test_replay_is_the_mean_nll_of_a_rollout_by_hand():
    log_prob, mask = torch.tensor([[-1.0, -3.0, -9.0], [-0.5, 0.0, 0.0]]), torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()
    assert Replay().own_loss({"log_prob": log_prob}, mask).tolist() == [2.0, 0.5]
    assert Replay(0.25).needs == {"own_rollouts"} and Replay(0.25).own_weight == 0.25
    assert Replay(0).needs == frozenset()
    with pytest.raises(ValueError, match=r"mifo.constraint.weight=-1 must be a finite number of at least 0"):
        CONSTRAINTS.build({"name": "replay", "weight": -1})


# Which are kept


def example(order: int) -> SftExample:
    return SftExample(f"q{order}", (1,), (order,), "")


def orders(kept: list[OwnRollout]) -> list[int]:
    assert all(one.example == example(one.order) for one in kept)
    return [one.order for one in kept]


def read(wanted: list[int]) -> list[SftExample]:
    return [example(order) for order in wanted]


def test_the_smallest_orders_stay_whatever_comes_first():
    for first, second, third in permutations(([7, 3], [9, 1], [5])):
        kept = sample(sample(sample([], first, 3, read), second, 3, read), third, 3, read)
        assert orders(kept) == [1, 3, 5]


def test_only_those_that_stay_are_read_and_what_cannot_be_trained_on_is_left_out():
    asked = []

    def some(wanted: list[int]) -> list[SftExample | None]:
        asked.append(wanted)
        return [None if order == 2 else example(order) for order in wanted]

    kept = sample([OwnRollout(4, example(4))], [8, 2, 1], 2, some)
    assert asked == [[1, 2]] and orders(kept) == [1, 4]  # 2 cannot be, and 4 was there already
    assert sample(kept, [1, 9], 2, some) == kept and asked[1:] == [[]]  # one that comes again is there once


def test_rows_take_turns_and_none_comes_twice_in_an_update():
    assert [turn("abcde", first, 3) for first in (0, 3, 6)] == [["a", "b", "c"], ["d", "e", "a"], ["b", "c", "d"]]
    assert turn("ab", 3, 5) == ["b", "a"]


def keeping(state: LoopState | None = None, size: int = 3, **parts):
    return loop_of(state, own_rollouts=size, num_rollouts=2, **parts)


def tokens(chosen):
    return [((5, 6), (one.session, int(one.uid[1:]))) for one in chosen]


def responses(loop) -> set[tuple[int, ...]]:
    """(session, number of the prompt) of every rollout that is kept."""
    return {one.example.response_ids for one in loop.state.own_rollouts}


def test_correct_rollouts_of_the_policy_itself_are_kept_with_their_tokens():
    loop = keeping(size=9)
    first, second = draw(loop, "q1", "q2")
    given = rollouts(second, [1, 1], prefix_tokens=3)
    loop.count(rollouts(first, [0, 1]) + given, {first: (5,), second: (5,)}, tokens)
    (kept,) = loop.state.own_rollouts
    assert kept.example == SftExample("q1", (5, 6), (1, 0), "", "rollout")


def test_a_bounded_sample_of_an_interval_is_kept_whose_draw_follows_from_names_alone():
    found = []
    for batches in ([4, 2], [2, 4], [6]):  # the same six prompts, in other steps
        loop = keeping()
        for number in batches:
            uids = draw(loop, *"abcdef"[:number])
            counted = [rollout for uid in uids for rollout in rollouts(uid, [1, 1])]
            loop.count(counted, dict.fromkeys(uids, (5,)), tokens)
        found.append(loop.state.own_rollouts)
        assert len(found[-1]) == 3
    assert [one.order for one in found[0]] == [one.order for one in found[1]] == [one.order for one in found[2]]
    other = keeping(seed=1)
    uids = draw(other, *"abcdef")
    other.count([r for uid in uids for r in rollouts(uid, [1, 1])], dict.fromkeys(uids, (5,)), tokens)
    assert responses(other) != {one.example.response_ids for one in found[0]}


def test_nothing_is_read_in_a_run_that_needs_none():
    loop, asked = keeping(size=0), []
    (uid,) = draw(loop, "q")
    loop.count(rollouts(uid, [1, 1]), {uid: (5,)}, asked.append)
    assert asked == [] and loop.state.own_rollouts == []


def test_a_phase_takes_them_along_and_the_next_interval_begins_without():
    loop = keeping()
    (uid,) = draw(loop, "q")
    loop.count(rollouts(uid, [1, 0]), {uid: (5,)}, tokens)
    before = loop.state.snapshot()
    count(loop, hard=[0, 0])
    own = [one.example for one in loop.state.own_rollouts]
    loop.begin_sft(None, None, None, own)
    assert loop.state.sft.own_rollouts == own and len(own) == 1 and loop.state.own_rollouts == []
    assert len(before.own_rollouts) == 1  # what a step before was saved with
