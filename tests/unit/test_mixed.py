"""What an RL step trains on beside its rollouts or instead of them, by literal groups."""

from mifo_verl.loop.mixed import Given, Start, cut, give, mix, places
from mifo_verl.method.bilevel import Bilevel
from mifo_verl.method.gate import Hpt, MaxAccuracy, Now
from mifo_verl.method.hint import Annealed
from mifo_verl.method.mixing import Chord, Constant, NoMixing
from mifo_verl.method.prefix import NoPrefix, Random, Staged, Whole
from mifo_verl.types import BufferEntry, Progress, PromptGroup, SftExample

START = Progress(step=0, interval=1, rl_steps=0)
GROUPS = {uid: PromptGroup(f"p{uid}", correct, 8, step=1) for uid, correct in (("b", 0), ("a", 0), ("c", 4))}


def example(uid: str) -> SftExample:
    return SftExample(f"p{uid}", (1, 2), (5, 6, 7, 8), "0" * 64)


def test_hpt_trains_by_demonstration_on_the_questions_that_nobody_solves_and_takes_them_out_of_rl():
    mixed = mix(Hpt(0), Constant(sft=1, rl=1, per="question"), START, GROUPS, example)
    assert [entry.example.prompt_id for entry in mixed.entries] == ["pa", "pb"]
    assert [entry.group for entry in mixed.entries] == [GROUPS["a"], GROUPS["b"]]
    assert mixed.without_rl == {"a", "b"} and mixed.weights == (1, 1) and not mixed.is_rl and mixed.per_question


def test_a_question_without_a_usable_demonstration_stays_in_rl():
    mixed = mix(Hpt(0), Constant(), START, GROUPS, lambda uid: None if uid == "a" else example(uid))
    assert mixed.without_rl == {"b"} and len(mixed.entries) == 1


def test_chord_trains_on_every_question_beside_its_rollouts():
    mixed = mix(Now(), Chord(peak=0.1, valley=0.1), START, GROUPS, example)
    assert len(mixed.entries) == 3 and mixed.without_rl == frozenset() and mixed.weights == (0.9, 0.1)
    assert not mixed.per_question


def test_the_neutral_settings_are_rl_and_look_up_no_demonstration():
    asked = []
    lookup = lambda uid: asked.append(uid)  # noqa: E731
    for gate, mixing in (
        (Now(), Chord(peak=0, valley=0)),
        (Hpt(-1), Constant()),
        (Hpt(1), Constant(sft=0)),
        (MaxAccuracy(), NoMixing()),
        (MaxAccuracy(1), Constant()),
    ):
        assert mix(gate, mixing, START, GROUPS, lookup).is_rl
    assert asked == []


def test_a_weight_of_rl_below_1_holds_without_a_demonstration_too():
    assert not mix(Now(), Chord(peak=0.1, valley=0.1), START, {}, example).is_rl


def entries(number: int) -> list[BufferEntry]:
    return [BufferEntry(None, example(str(place))) for place in range(number)]


def ids(part: list[BufferEntry]) -> list[str]:
    return [entry.example.prompt_id for entry in part]


def test_demonstrations_are_cut_evenly_over_the_updates_of_a_step_in_an_order_of_seed_and_step():
    parts = cut(entries(7), num_updates=3, epochs=1, seed=0, step=5)
    assert [len(part) for part in parts] == [3, 2, 2]
    assert sorted(uid for part in parts for uid in ids(part)) == [f"p{place}" for place in range(7)]
    assert cut(entries(7), 3, 1, seed=0, step=5) == parts
    others = [cut(entries(7), 3, 1, seed=1, step=5), cut(entries(7), 3, 1, seed=0, step=6)]
    assert all(other != parts for other in others)


def test_every_epoch_trains_on_every_demonstration_once():
    parts = cut(entries(3), num_updates=2, epochs=2, seed=0, step=1)
    assert [len(part) for part in parts] == [2, 1, 2, 1]
    assert sorted(ids(parts[0] + parts[1])) == sorted(ids(parts[2] + parts[3])) == ["p0", "p1", "p2"]


def test_fewer_demonstrations_than_updates_are_one_each_and_none_is_no_part():
    assert [len(part) for part in cut(entries(2), num_updates=4, epochs=1, seed=0, step=1)] == [1, 1]
    assert cut([], num_updates=4, epochs=2, seed=0, step=1) == []


def given_by(prefix, found, n, seed=0, uid="a"):
    return give(prefix, found, lambda ids: [len(ids)], n, START, seed, uid)


def test_luffy_gives_a_question_its_demonstration_once_and_one_without_gets_none():
    given = given_by(Whole(), example("a"), 4)
    assert given == Given((1, 2), (5, 6, 7, 8), ((0,), (0,), (0,), (4,))) and given.num_asking(0, {}) == 3
    assert given.start(3, {}) == Start((1, 2), (5, 6, 7, 8), is_whole=True, is_first=True)
    assert given.start(0, {}) == Start((1, 2), (), is_whole=False, is_first=True)
    without = given_by(Whole(), None, 4)
    assert without == Given((), (), ((0,),) * 4) and without.num_asking(0, {}) == 4
    assert not without.start(3, {}).is_whole
    assert given_by(NoPrefix(), example("a"), 2).num_tokens == ((0,), (0,))


def test_a_random_share_is_drawn_by_seed_question_and_session():
    long = SftExample("p", (1,), tuple(range(1000)), "0" * 64)
    drawn = [given_by(Random(members=2), long, 4, seed, uid).num_tokens for seed in (0, 1) for uid in ("a", "b")]
    assert len({tokens for rows in drawn for tokens in rows[2:]}) == 8 and all(
        rows[:2] == ((0,), (0,)) for rows in drawn
    )
    assert given_by(Random(members=2), long, 4).num_tokens == drawn[0]


STAGED = Staged(groups=(2, 1, 1), ratios=(0, 0.5, 1), thresholds=(-1, 0.5, 0.9), cut="token")


def test_a_session_waits_for_the_results_that_decide_what_it_begins_with():
    given = given_by(STAGED, example("a"), 4)
    assert given.num_tokens == ((0,), (0,), (2, 0, 0), (4, 4, 4, 0)) and given.stages == (0, 0, 1, 2)
    assert given.start(2, {0: False, 1: False}).tokens == (5, 6) and given.start(2, {0: True, 1: False}).tokens == ()
    assert given.start(3, dict.fromkeys(range(3), True)).tokens == ()
    assert [given.start(number, dict.fromkeys(range(4), False)).is_first for number in range(4)] == [
        True,
        False,
        True,
        True,
    ]


def test_what_would_wait_for_nothing_starts_at_once():
    never = Staged(groups=(2, 2), ratios=(0, 1), thresholds=(-1, -1))
    assert given_by(never, example("a"), 4) == Given((1, 2), (5, 6, 7, 8), ((0,),) * 4)
    assert given_by(STAGED, None, 4).stages == (0, 0, 0, 0)


def test_the_requests_of_a_stage_are_known_once_those_before_it_have_ended():
    given = given_by(STAGED, example("a"), 4)
    assert given.num_asking(0, {}) == 2 and given.num_asking(1, {0: False, 1: False}) == 1
    assert given.num_asking(2, dict.fromkeys(range(3), False)) == 0  # the demonstration itself asks no server
    assert given.num_asking(2, dict.fromkeys(range(3), True)) == 1
    assert given.num_asking(2, dict.fromkeys(range(4), True)) == 0  # it has failed already


def test_rollouts_that_follow_one_rule_have_one_first():
    assert [given_by(Annealed(high=1, low=1), example("a"), 3).start(n, {}).is_first for n in range(3)] == [
        True,
        False,
        False,
    ]


def test_a_mixing_may_take_demonstrations_of_the_data_set_in_place_of_its_questions():
    others = [example("x"), example("y")]
    mixed = mix(Now(), Bilevel(demonstrations="dataset"), START, GROUPS, lambda uid: 1 / 0, lambda: others)
    assert [(entry.group, entry.example) for entry in mixed.entries] == [(None, one) for one in others]
    assert mixed.without_rl == frozenset()
    at_rl = Bilevel(lambda_end=1, demonstrations="dataset")
    assert mix(Now(), at_rl, START, GROUPS, lambda uid: 1 / 0, lambda: 1 / 0).is_rl


def test_the_stream_over_the_data_set_takes_every_row_once_a_pass_and_depends_on_seed_and_step_alone():
    steps = [places(10, 4, seed=3, step=step) for step in range(5)]
    taken = [place for step in steps for place in step]
    assert sorted(taken[:10]) == sorted(taken[10:]) == list(range(10)) and taken[:10] != taken[10:]
    assert places(10, 4, seed=3, step=2) == steps[2] and places(10, 4, seed=4, step=2) != steps[2]
