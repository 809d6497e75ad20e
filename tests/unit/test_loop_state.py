"""The loop's state is one object: what a checkpoint holds of it is what a resume goes on with."""

import math
from dataclasses import fields, replace

import pytest

from mifo_verl.loop.events import LedgerLine, OwnUsed, StepEnded, UpdateMade
from mifo_verl.loop.own_rollouts import OwnRollout
from mifo_verl.loop.state import Accuracies, Answer, Before, LoopState, SftProgress
from mifo_verl.loop.tokens import TokenSummary
from mifo_verl.method.buffer import DemonstrationBuffer
from mifo_verl.types import BufferEntry, PromptGroup, SftExample

HARD = BufferEntry(PromptGroup("q2", 1, 8, 5), SftExample("q2", (1, 2), (3,), "a" * 64))
UNROLLED = BufferEntry(None, SftExample("q1", (4,), (5, 6), "b" * 64))


def rl_line() -> StepEnded:
    numbers = dict.fromkeys(("reward", "accuracy", "entropy", "loss", "grad_norm", "response_length"), 0.5)
    counts = dict.fromkeys(("rollouts", "prompt_tokens", "response_tokens", "discarded_rollouts", "flops"), 8)
    return StepEnded(
        step=4, interval=3, kl_to_start=None, kl_tokens=None, rejected_demonstrations={"wrong": 2}, memory_gb={},
        prompts=[["q2", 1, 8]], seconds={"rollout": 1.5}, generated_tokens=8, buffer_size=3, cross_entropy_before=None,
        **numbers, **counts,
    )  # fmt: skip


def update(loss: float = 0.1) -> UpdateMade:
    counts = dict.fromkeys(("prompt_tokens", "response_tokens", "kept_tokens", "flops", "demonstrations"), 2)
    return UpdateMade(
        step=4, interval=3, update=1, entropy=0.25, buffer_size=3, kept_share=1.0, frozen_share=0.5, loss=loss,
        grad_norm=1.0, ledger_sha256="c" * 64, own=OwnUsed(rollouts=2, tokens=9, loss=0.03), own_kl=0.02, updates_left=3, **counts,
    )  # fmt: skip


def phase() -> SftProgress:
    tokens = TokenSummary(num_examples=1, max_tokens=8)
    tokens.add(UNROLLED.example, [0.25, 1.5], [False, True])
    accuracies = Accuracies({"mean": 0.5}, 1.0, None)
    before = Before(0.25, None, ["q3"], ["q2"], accuracies, [Answer([1], [2, 3], True)], {"forward_tokens": 7})
    ledger = [LedgerLine.of(HARD, interval=3, step=4, kept_tokens=1), LedgerLine.of(UNROLLED, 3, 4, 2)]
    mask = {"threshold": 1e-9}
    own = [replace(UNROLLED.example, teacher_log_probs=(-0.1, -1.0000001))]
    more = {"rl_line": rl_line(), "rl_ledger": ledger[:1], "tokens": tokens, "own_rollouts": own}
    return SftProgress([UNROLLED, HARD], 3, mask, {"wrong": 2}, before, [update()], ledger, **more)


def full_state() -> LoopState:
    """A state of which no field has its default."""
    buffer = DemonstrationBuffer({"q2": HARD, "q1": UNROLLED})
    state = LoopState(
        3, 3, 2, [0.5, 0.25], 48, buffer, phase(), ["q3", "q4"], {"mean": 0.25}, 0.75, 6, "digest", 0.0123, 12.5, 0.9,
        [OwnRollout(2**63 - 1, HARD.example)],
    )  # fmt: skip
    assert all(getattr(state, field.name) != getattr(LoopState(), field.name) for field in fields(LoopState))
    return state


@pytest.mark.parametrize("state", [LoopState(), full_state()], ids=["new", "inside an SFT phase"])
def test_every_field_comes_back_as_it_was(tmp_path, state):
    state.save(tmp_path)
    assert LoopState.load(tmp_path) == state


def test_the_order_of_the_buffer_comes_back(tmp_path):
    full_state().save(tmp_path)
    assert [entry.example.prompt_id for entry in LoopState.load(tmp_path).buffer] == ["q2", "q1"]


def test_a_loss_that_is_not_finite_comes_back(tmp_path):
    state = LoopState(sft=SftProgress([HARD], 1, None, {}, updates=[update(math.nan)]))
    state.save(tmp_path)
    assert math.isnan(LoopState.load(tmp_path).sft.updates[0].loss)


def test_the_state_of_another_version_is_refused_with_its_file(tmp_path):
    (tmp_path / "loop.json").write_text('{"step": "three"}')
    with pytest.raises(ValueError, match=r"loop\.json is not the state of this version .*start a new run"):
        LoopState.load(tmp_path)


def test_a_snapshot_is_not_changed_by_what_a_step_does_before_its_update():
    state = LoopState(step=3, buffer=DemonstrationBuffer({"q2": HARD}), solved=["q3"])
    kept = state.snapshot()
    state.drawn, state.cross_entropy_start = 8, 0.5
    state.buffer.put(UNROLLED)
    state.solved.append("q4")
    assert kept == LoopState(step=3, buffer=DemonstrationBuffer({"q2": HARD}), solved=["q3"])


def test_the_origin_of_another_run_s_records_has_the_hard_prompts_of_the_buffer_and_of_the_phase(tmp_path):
    def entry(name: str, *counts: int) -> BufferEntry:
        group = PromptGroup(name, *counts, 3) if counts else None
        return BufferEntry(group, SftExample(name, (1,), (2,), "ab"))

    sft = SftProgress([entry("b", 0, 8), entry("c")], 3, None, {})
    state = LoopState(step=7, interval=2, buffer=DemonstrationBuffer({"a": entry("a", 1, 8)}), sft=sft)
    origin = {"checkpoint": str(tmp_path), "step": 7, "interval": 2, "prompts": [["a", 1, 8], ["b", 0, 8]]}
    assert state.origin(tmp_path) == origin


def test_the_seconds_of_a_phase_are_shared_by_its_updates_and_what_was_measured_of_it_is_on_the_last():
    sft = SftProgress([HARD], 1, None, {}, updates=[update(), update()])
    sft.note(frozen_drift=0.0, accuracy_before=None)
    first, last = (one.line() for one in sft.timed_updates(3.0, {"probe": 0.5}))
    assert first["seconds"] == {"sft": 1.5} and last["seconds"] == {"sft": 1.5, "probe": 0.5}
    assert "frozen_drift" not in first and "accuracy_before" not in first
    assert (last["frozen_drift"], last["accuracy_before"]) == (0.0, None)


def test_the_line_of_a_use_has_no_counts_if_the_prompt_came_without_rollouts():
    assert LedgerLine.of(UNROLLED, interval=1, step=2, kept_tokens=1).line() == {
        "interval": 1,
        "step": 2,
        "prompt_id": "q1",
        "num_correct": None,
        "num_rollouts": None,
        "demonstration_sha256": "b" * 64,
        "source": "dataset",
        "response_tokens": 2,
        "kept_tokens": 1,
        "kind": "phase",
    }
