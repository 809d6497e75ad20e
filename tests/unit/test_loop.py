"""The loop by hand: what counts, what joins the buffer and leaves it, which phase comes next, on what it trains."""

from typing import Any

import pytest

from mifo_verl.loop.events import UpdateMade
from mifo_verl.loop.inputs import Others, Parts, Rollout, no_others
from mifo_verl.loop.loop import Loop, updates_of
from mifo_verl.loop.mixed import Given, Trained
from mifo_verl.loop.state import LoopState
from mifo_verl.method.bilevel import Bilevel
from mifo_verl.method.gate import AnyPrompt, Hpt, MaxAccuracy, Now
from mifo_verl.method.mixing import Chord, Constant
from mifo_verl.method.prefix import Whole
from mifo_verl.method.schedule import Every, Never, WhenFull
from mifo_verl.types import BufferEntry, Phase, PromptGroup, Rejection, SftExample

PARTS = {
    "gate": MaxAccuracy("1/8"),
    "schedule": WhenFull(2),
    "num_rollouts": 8,
    "seed": 0,
    "batch_size": 2,
    "cut": "even",
    "passes": 1,
    "limit": None,
    "solved": 4,
    "solved_accuracy": 1,
}


def build(row: dict[str, Any], prompt_ids: Any) -> SftExample | Rejection:
    """A demonstration for every row but those that say why there is none."""
    if "rejected" in row:
        return row["rejected"]
    return SftExample(row["id"], tuple(prompt_ids), (7, 0), "ab")


def loop_of(state: LoopState | None = None, others: Others = no_others, **parts: Any) -> Loop:
    return Loop(Parts(**(PARTS | parts)), state or LoopState(), build, others)


def rollouts(uid: str, correct: list[Any], **more: Any) -> list[Rollout]:
    return [Rollout(uid, session, 0, acc, **more) for session, acc in enumerate(correct)]


def draw(loop: Loop, *ids: str, **row: Any) -> list[str]:
    return loop.draw([(name, {"id": name} | row) for name in ids])


def count(loop: Loop, **accs: list[Any]) -> None:
    """Draw prompts by these names and count the correctness of their rollouts."""
    uids = draw(loop, *accs)
    counted = [rollout for uid, acc in zip(uids, accs.values(), strict=True) for rollout in rollouts(uid, acc)]
    loop.count(counted, dict.fromkeys(uids, (5, 6, 7)))


def held(loop: Loop) -> list[str]:
    return [entry.example.prompt_id for entry in loop.state.buffer]


def test_a_hard_prompt_joins_with_the_rollouts_own_prompt_tokens_and_its_provenance():
    loop = loop_of(LoopState(step=3))
    count(loop, easy=[1, 1, 0, 0, 0, 0, 0, 0], hard=[0, 0, 0, 0, 0, 0, 0, 1])
    (entry,) = loop.state.buffer
    assert entry == BufferEntry(PromptGroup("hard", 1, 8, step=4), SftExample("hard", (5, 6, 7), (7, 0), "ab"))
    assert (loop.accuracy, loop.num_rollouts) == (3 / 16, 16)


def test_uids_count_the_prompts_that_were_drawn_in_the_whole_run():
    loop = loop_of(LoopState(drawn=41))
    assert draw(loop, "a", "b") == ["t0000000041", "t0000000042"]
    loop.begin_step()
    assert draw(loop, "c") == ["t0000000043"] and loop.state.drawn == 44


def test_padding_rollouts_do_not_count():
    loop = loop_of()
    (uid,) = draw(loop, "q")
    padding = rollouts(uid, [0] * 8, is_padding=True)  # with them 2 of 16, or 0 of 8, would be hard
    loop.count(padding + rollouts(uid, [1, 1, 0, 0, 0, 0, 0, 0]), {uid: (5,)})
    assert held(loop) == [] and loop.num_rollouts == 8


def test_a_session_of_several_outputs_counts_once_and_its_last_output_decides():
    loop = loop_of(num_rollouts=2)
    (uid,) = draw(loop, "q")
    outputs = [
        Rollout(uid, 0, 1, 1, is_fallback=True),
        Rollout(uid, 0, 0, 0),
        Rollout(uid, 1, 0, 0),
        Rollout(uid, 1, 2, 1),
        Rollout(uid, 1, 1, 0),
    ]
    loop.count(outputs, {uid: (5,)})
    assert loop.groups[uid] == PromptGroup("q", 2, 2, step=1)
    assert loop.num_fallbacks == 1


def test_a_group_that_lost_rollouts_is_counted_and_not_judged():
    loop = loop_of()
    count(loop, hard=[0], solved=[1], whole=[1] * 8)
    assert held(loop) == [] and loop.rejected == {"incomplete": 2}
    assert loop.state.solved == ["whole"]  # one right rollout of one does not solve a prompt
    assert [group.num_rollouts for group in loop.groups.values()] == [1, 1, 8]


def test_the_newest_accuracy_replaces_the_old_entry_or_takes_it_out():
    loop = loop_of()
    count(loop, q=[0] * 8)
    loop.end_step()
    count(loop, q=[1] + [0] * 7)
    assert [(entry.group.num_correct, entry.group.step) for entry in loop.state.buffer] == [(1, 2)]
    count(loop, q=[1] * 8)
    assert held(loop) == []


def test_groups_that_a_filter_drops_count_as_those_that_are_trained_on():
    loop = loop_of()
    loop.begin_step()
    count(loop, dropped=[0] * 8)  # DAPO's: all rollouts agree
    count(loop, kept=[1, 1, 0, 0, 0, 0, 0, 0])
    assert held(loop) == ["dropped"] and loop.accuracy == 2 / 16
    assert [group.prompt_id for group in loop.groups.values()] == ["dropped", "kept"]


def test_a_prompt_without_a_usable_demonstration_is_counted_by_reason_and_never_joins():
    loop = loop_of()
    for reason in (Rejection.WRONG, Rejection.WRONG, Rejection.TOO_LONG):
        (uid,) = draw(loop, "q", rejected=reason)
        loop.count(rollouts(uid, [0] * 8), {uid: (5,)})
    assert held(loop) == [] and loop.rejected == {"wrong": 2, "too_long": 1}
    loop.begin_step()
    assert loop.rejected == {} and loop.groups == {} and loop.accuracy is None


def test_a_correctness_that_is_neither_0_nor_1_is_an_error():
    with pytest.raises(ValueError, match=r"acc=0.5 of prompt t0000000000 must be 0 or 1"):
        count(loop_of(), q=[0.5])


def test_without_rollouts_every_prompt_drawn_joins_with_its_rendered_tokens():
    loop = loop_of(gate=AnyPrompt())
    draw(loop, "a", "b")
    draw(loop, "c", rejected=Rejection.MISSING)
    loop.take_all(lambda row: [ord(row["id"])])
    assert list(loop.state.buffer) == [
        BufferEntry(None, SftExample("a", (97,), (7, 0), "ab")),
        BufferEntry(None, SftExample("b", (98,), (7, 0), "ab")),
    ]
    assert loop.rejected == {"missing": 1}


# ---------------------------------------------------------------------- phases


def filled(number: int, **parts: Any) -> Loop:
    loop = loop_of(**parts)
    count(loop, **{f"q{place}": [0] * 8 for place in range(number)})
    return loop


def test_sft_is_due_when_the_buffer_is_full_after_an_rl_step_of_this_interval():
    loop = filled(2)
    assert loop.next_phase() is Phase.RL  # what a phase has left over does not begin the next
    loop.rl_ended()
    assert loop.next_phase() is Phase.SFT


def test_an_sft_phase_ends_the_interval_and_its_count_of_rl_steps():
    loop = filled(1, schedule=Every(rl_steps=2))
    loop.rl_ended()
    loop.rl_ended()
    assert loop.next_phase() is Phase.SFT
    loop.begin_sft(None, None, None)
    assert loop.state.sft is not None and loop.ended is None
    phase = loop.end_sft()
    assert loop.ended is phase and loop.state.sft is None
    assert (loop.state.interval, loop.state.rl_steps) == (2, 0)
    count(loop, again=[0] * 8)
    loop.rl_ended()
    assert loop.next_phase() is Phase.RL  # one RL step of the new interval, not three


def test_the_gradients_of_a_phase_are_compared_with_those_of_its_own_interval():
    loop = filled(1)
    for norm in (0.5, float("nan"), None, 1.5):  # a skipped update has none that counts
        loop.rl_ended(norm)
    assert loop.state.rl_grad_norms == [0.5, 1.5] and loop.grad_norm_ratio is None
    loop.begin_sft(None, None, None)
    loop.state.sft.updates += [update(norm) for norm in (2.0, 4.0)]
    assert loop.grad_norm_ratio == 3.0  # (2 + 4) / 2 over (0.5 + 1.5) / 2
    loop.end_sft()
    assert loop.state.rl_grad_norms == [] and loop.grad_norm_ratio is None


def update(grad_norm: float) -> UpdateMade:
    counts = dict.fromkeys(("prompt_tokens", "response_tokens", "kept_tokens", "flops", "demonstrations"), 2)
    shares = {"entropy": 0.5, "kept_share": 1.0, "frozen_share": 0.5, "loss": 0.1}
    return UpdateMade(
        step=1, interval=1, update=1, buffer_size=1, grad_norm=grad_norm, ledger_sha256="c" * 64, **shares, **counts
    )


def test_a_phase_takes_the_oldest_up_to_its_limit_and_the_rest_stays():
    loop = filled(3, limit=2)
    assert [entry.example.prompt_id for entry in loop.oldest()] == ["q0", "q1"] and len(loop.state.buffer) == 3
    loop.rejected["wrong"] = 1
    loop.begin_sft({"frozen_share": 0.5}, None, None)
    phase = loop.state.sft
    assert [entry.example.prompt_id for entry in phase.entries] == ["q0", "q1"] and held(loop) == ["q2"]
    assert (phase.buffer_size, phase.mask, phase.rejected) == (3, {"frozen_share": 0.5}, {"wrong": 1})


def test_without_a_demonstration_no_phase_can_begin_and_it_is_said(caplog):
    loop = filled(0, schedule=Never())
    loop.rejected["missing"] = 3
    assert not loop.has_demonstrations()
    assert "step 1: no prompt has a usable demonstration {'missing': 3}" in caplog.text
    assert filled(1).has_demonstrations()


def order(number: int = 6, interval: int = 1, **parts: Any) -> list[list[str]]:
    loop = filled(number, **parts)
    loop.state.interval = interval
    loop.begin_sft(None, None, None)
    return [[entry.example.prompt_id for entry in batch] for batch in loop.batches()]


def test_the_order_of_a_phase_depends_on_seed_interval_and_pass_and_on_nothing_else():
    first = order()
    assert first == order() == [["q0", "q1"], ["q3", "q4"], ["q5", "q2"]]
    assert order(seed=1) != first != order(interval=2)
    passes = order(passes=2)
    assert passes[:3] == first != passes[3:]
    assert sorted(name for batch in passes[3:] for name in batch) == ["q0", "q1", "q2", "q3", "q4", "q5"]


def drawn(loop: Loop, *rows: dict[str, Any]) -> list[str]:
    loop.begin_step()
    return loop.draw((row["id"], row) for row in rows)


def test_rollouts_that_begin_with_given_tokens_are_members_of_their_group_and_count_in_no_accuracy():
    loop = loop_of(num_rollouts=4)
    a, b = drawn(loop, {"id": "a"}, {"id": "b"})
    member = [Rollout(a, 3, 0, 1, prefix_tokens=5)]
    loop.count([*rollouts(a, [0, 0, 0]), *member, *rollouts(b, [1, 0, 0])], {a: [1], b: [2]})
    assert loop.groups[a] == PromptGroup("a", 0, 3, 1) and len(loop.state.buffer) == 1
    assert loop.rejected["incomplete"] == 1  # of b a rollout is missing, and no member stands for it
    assert (loop.accuracy, loop.num_rollouts, loop.members) == (1 / 6, 6, {(a, 3): 5})
    loop.begin_step()
    assert loop.members == {}


def test_a_plan_gives_a_question_what_its_rollouts_begin_with_unless_it_has_no_usable_demonstration():
    loop = loop_of(num_rollouts=3, prefix=Whole())
    uids = drawn(loop, {"id": "a"}, {"id": "b", "rejected": Rejection.WRONG})
    given = loop.plan(uids, render=lambda row: [1, 2], step_ends=lambda ids: [len(ids)])
    assert given == [Given((1, 2), (7, 0), ((0,), (0,), (2,))), Given((), (), ((0,),) * 3)]
    assert loop.rejected == {}
    assert loop_of().plan(uids, render=lambda row: [1], step_ends=len) is None


def test_demonstrations_among_the_rollouts_are_ledger_lines_with_the_counts_of_their_question():
    loop = loop_of(num_rollouts=3, prefix=Whole(members=2), schedule=Never())
    a, b, c = drawn(loop, {"id": "a"}, {"id": "b"}, {"id": "c", "rejected": Rejection.WRONG})
    loop.plan([a, b, c], render=lambda row: [1, 2], step_ends=lambda ids: [len(ids)])
    members = [Rollout(uid, session, 0, 1, prefix_tokens=2) for uid in (b, a) for session in (2, 1)]
    loop.count([*rollouts(a, [0]), *members, *rollouts(c, [0, 0, 1])], {uid: [1, 2] for uid in (a, b, c)})
    found = [
        (line.prompt_id, line.num_correct, line.num_rollouts, line.kept_tokens, line.kind) for line in loop.rl_lines
    ]
    assert found == [("a", 0, 1, 2, "rollout")] * 2 + [("b", None, None, 2, "rollout")] * 2
    assert (loop.member_lines[0].step, loop.member_lines[0].demonstration_sha256) == (1, "ab")
    assert loop.unasked_tokens == 4 * (2 + 2)  # prompt and demonstration, of every member
    loop.count([Rollout(b, 2, 1, 1, prefix_tokens=1)], {b: [1, 2]})  # a prefix is continued: a server was asked
    assert loop.unasked_tokens == 3 * (2 + 2)
    loop.begin_step()
    assert loop.rl_lines == []


def test_no_demonstration_is_looked_up_for_a_buffer_that_no_phase_will_train_on():
    loop = loop_of(schedule=Never())
    count(loop, a=[0] * 8)
    uids = draw(loop, "b", rejected=Rejection.WRONG)
    loop.count(rollouts(uids[0], [0] * 8), {uids[0]: [1]})
    assert held(loop) == [] and loop.rejected == {}


def hpt_step(**parts: Any) -> tuple[Loop, list[str]]:
    """Four questions: solved by none, by one, without a demonstration, and one whose rollouts have failed."""
    loop = loop_of(**({"num_rollouts": 2, "gate": Hpt(0), "schedule": Never(), "mixing": Constant(1, 1)} | parts))
    uids = drawn(loop, {"id": "a"}, {"id": "b"}, {"id": "c", "rejected": Rejection.MISSING}, {"id": "d"})
    counted = [
        *rollouts(uids[0], [0, 0]),
        *rollouts(uids[1], [0, 1]),
        *rollouts(uids[2], [0, 0]),
        *rollouts(uids[3], [0]),
    ]
    loop.count(counted, {uid: [place] for place, uid in enumerate(uids)})
    return loop, uids


def test_the_gate_has_demonstrations_of_whole_groups_trained_on_now_and_the_buffer_stays_empty():
    loop, uids = hpt_step()
    mixed = loop.mix(uids)
    assert [(entry.group.prompt_id, entry.example.prompt_ids) for entry in mixed.entries] == [("a", (0,))]
    assert mixed.without_rl == {uids[0]} and loop.mixed is mixed and len(loop.state.buffer) == 0
    assert loop.rejected == {"incomplete": 1, "missing": 1}


def test_a_question_that_is_not_in_the_update_is_not_mixed_into_it():
    loop, uids = hpt_step()
    assert loop.mix(uids[1:]).is_rl


def test_demonstrations_in_an_rl_step_are_ledger_lines_of_its_interval_and_step():
    loop, uids = hpt_step()
    (entry,) = loop.mix(uids).entries
    assert loop.update_lines == []
    loop.trained = Trained(0.5, [(entry, 2)])
    (line,) = loop.update_lines
    assert (line.interval, line.step, line.prompt_id, line.num_correct, line.num_rollouts) == (1, 1, "a", 0, 2)
    assert (line.response_tokens, line.kept_tokens, line.kind) == (2, 2, "update")
    loop.state.buffer.put(entry)
    loop.begin_sft(None, None, None)
    loop.end_sft()  # the step's SFT phase ends its interval, and the line is of the one that the step began in
    assert (loop.state.interval, loop.update_lines) == (2, [line])
    loop.begin_step()
    assert loop.update_lines == [] and loop.mixed is None


def test_the_weights_of_a_step_are_those_of_the_steps_finished():
    loop, uids = hpt_step(gate=Now(), mixing=Chord(warmup=4, decay=4, peak=1, valley=0))
    assert loop.mix(uids).weights == (1, 0)
    for _ in range(2):
        loop.end_step()
    assert loop.mix(uids).weights == (0.5, 0.5)


def test_as_many_demonstrations_of_the_data_set_as_there_are_questions_and_the_rejected_are_counted():
    asked = []

    def others(step, number):
        asked.append((step, number))
        return [({"id": "x"}, [7]), ({"id": "y", "rejected": Rejection.WRONG}, [8])]

    loop, uids = hpt_step(mixing=Bilevel(demonstrations="dataset"), gate=Now(), others=others)
    (entry,) = loop.mix([*uids, "padding"]).entries
    assert (entry.group, entry.example.prompt_ids, asked) == (None, (7,), [(0, 4)]) and loop.rejected["wrong"] == 1
    loop.trained = Trained(0.5, [(entry, 2)])
    (line,) = loop.update_lines
    assert (line.prompt_id, line.num_correct, line.num_rollouts) == ("x", None, None)


def test_a_pass_is_cut_evenly_into_the_fewest_updates_or_filled_up_but_for_the_last():
    assert [len(part) for part in updates_of(list(range(65)), 64, evenly=True)] == [33, 32]
    assert [len(part) for part in updates_of(list(range(65)), 64, evenly=False)] == [64, 1]
    assert updates_of([1, 2, 3, 4, 5], 2, evenly=True) == [[1, 2], [3, 4], [5]]
    assert updates_of([1, 2, 3, 4], 2, evenly=True) == updates_of([1, 2, 3, 4], 2, evenly=False) == [[1, 2], [3, 4]]
    assert updates_of([1], 64, evenly=True) == [[1]] and updates_of([], 2, evenly=True) == []


def test_the_setting_decides_how_a_phase_is_cut():
    assert [len(batch) for batch in order(5, batch_size=4)] == [3, 2]
    assert [len(batch) for batch in order(5, batch_size=4, cut="full")] == [4, 1]
