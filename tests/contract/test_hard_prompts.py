"""From verl's finished trajectories to the buffer: what counts, what joins, what leaves, what is counted and dropped."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tensordict import NonTensorData, NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta

from mifo_verl.method.buffer import DemonstrationBuffer
from mifo_verl.method.gate import MaxAccuracy
from mifo_verl.rewards.boxed import compute_score
from mifo_verl.verl import hard_prompts
from mifo_verl.verl.hard_prompts import HardPrompts
from mifo_verl.verl.replay import OrderedReplayBuffer


class Characters:
    """A tokenizer of one token a character."""

    eos_token_id = 0

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [ord(character) for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def apply_chat_template(self, messages: list[dict[str, str]], tokenize: bool, **options: Any) -> list[int]:
        """The messages' characters, and 1 where the model is to speak."""
        assert tokenize
        text = "".join(message["content"] for message in messages)
        return self.encode(text, add_special_tokens=False) + [1] * options["add_generation_prompt"]


def row(prompt_id: str, target: str | None, answer: str = "7") -> dict[str, Any]:
    return {
        "prompt_id": prompt_id,
        "data_source": "test",
        "prompt": [{"role": "user", "content": prompt_id}],
        "target": None if target is None else [{"role": "assistant", "content": target}],
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": {},
    }


@pytest.fixture
def collector(monkeypatch):
    made = HardPrompts(
        MaxAccuracy("1/8"),
        DemonstrationBuffer(),
        Characters(),
        compute_score,
        max_response_tokens=13,
        num_rollouts=8,
        template={},
    )

    def finish(correct: dict[str, list[int]], padding: dict[str, list[int]] | None = None, step: int = 1) -> Any:
        groups = [(uid, acc, False) for uid, accs in correct.items() for acc in accs]
        groups += [(uid, acc, True) for uid, accs in (padding or {}).items() for acc in accs]
        data = TensorDict(
            {
                "prompts": torch.nested.as_nested_tensor([torch.tensor([5, 6, 7])] * len(groups), layout=torch.jagged),
                "extra_fields": NonTensorStack(
                    *[NonTensorData({"reward_extra_info": {} if acc is None else {"acc": acc}}) for _, acc, _ in groups]
                ),
            },
            batch_size=len(groups),
        )
        monkeypatch.setattr(hard_prompts.tq, "kv_batch_get", lambda **_: data)
        keys = [f"{uid}_{number}_0" for number, (uid, _, _) in enumerate(groups)]
        tags = [{"is_padding": pad} for _, _, pad in groups]
        return made.collect(KVBatchMeta(keys=keys, tags=tags, partition_id="train"), step)

    made.finish = finish
    return made


SEVEN = "so \\boxed{7}"


def test_a_hard_prompt_joins_with_the_rollouts_own_prompt_tokens_and_its_provenance(collector):
    collector.remember("t0", row("easy", SEVEN))
    collector.remember("t1", row("hard", SEVEN))
    collector.finish({"t0": [1, 1, 0, 0, 0, 0, 0, 0], "t1": [0, 0, 0, 0, 0, 0, 0, 1]}, step=4)
    (entry,) = collector.buffer
    assert (entry.group.prompt_id, entry.group.num_correct, entry.group.num_rollouts, entry.group.step) == (
        "hard",
        1,
        8,
        4,
    )
    assert entry.example.prompt_ids == (5, 6, 7)
    assert entry.example.response_ids == (*(ord(c) for c in SEVEN), 0)
    assert (collector.num_correct, collector.num_rollouts) == (3, 16)


def test_padding_rollouts_do_not_count(collector):
    collector.remember("t0", row("solved", SEVEN))
    collector.finish({"t0": [1, 1, 0, 0, 0, 0, 0, 0]}, padding={"t0": [0] * 8})  # with them 2 of 16 would be hard
    assert len(collector.buffer) == 0 and collector.num_rollouts == 8


def test_a_group_that_lost_rollouts_is_counted_and_not_judged(collector):
    collector.remember("t0", row("hard", SEVEN))
    collector.remember("t1", row("solved", SEVEN))
    collector.remember("t2", row("whole", SEVEN))
    whole = collector.finish({"t0": [0], "t1": [1], "t2": [1] * 8})
    assert len(collector.buffer) == 0 and collector.rejected == {"incomplete": 2}
    assert [group.prompt_id for group in whole] == ["whole"]  # one right rollout of one does not solve a prompt
    assert [group.num_rollouts for group in collector.groups] == [1, 1, 8]


def test_every_demonstration_is_verified_by_itself_also_under_an_id_seen_before(collector):
    collector.remember("t0", row("twice", SEVEN))
    collector.finish({"t0": [0] * 8})
    collector.remember("t1", row("twice", "so \\boxed{8}"))
    collector.finish({"t1": [0] * 8})
    assert collector.rejected == {"wrong": 1}


def test_the_newest_accuracy_replaces_the_old_entry_or_takes_it_out(collector):
    collector.remember("t0", row("again", SEVEN))
    collector.finish({"t0": [0] * 8}, step=1)
    collector.remember("t1", row("again", SEVEN))
    collector.finish({"t1": [1] + [0] * 7}, step=2)
    assert [(entry.group.num_correct, entry.group.step) for entry in collector.buffer] == [(1, 2)]
    collector.remember("t2", row("again", SEVEN))
    collector.finish({"t2": [1] * 8}, step=3)
    assert len(collector.buffer) == 0


@pytest.mark.parametrize(
    ("target", "reason"),
    [(None, "missing"), ("", "missing"), ("so \\boxed{8}", "wrong"), ("see \\boxed{7}", "too_long")],
)
def test_a_demonstration_that_is_missing_wrong_or_too_long_is_counted_and_never_joins(collector, target, reason):
    collector.remember("t0", row("hard", target))
    collector.finish({"t0": [0] * 8})
    assert len(collector.buffer) == 0 and collector.rejected == {reason: 1}


def test_correctness_comes_from_acc_and_its_absence_is_an_error(collector):
    collector.remember("t0", row("hard", SEVEN))
    with pytest.raises(ValueError, match="the reward function returned no acc"):
        collector.finish({"t0": [None]})
    with pytest.raises(ValueError, match=r"acc=0.5 of prompt t0 must be 0 or 1"):
        collector.finish({"t0": [0.5]})


def test_a_reward_that_is_a_plain_number_other_than_0_and_1_does_not_verify_a_demonstration(monkeypatch):
    made = HardPrompts(
        MaxAccuracy(0),
        DemonstrationBuffer(),
        Characters(),
        lambda **_: 0.9,
        max_response_tokens=13,
        num_rollouts=8,
        template={},
    )
    with pytest.raises(ValueError, match=r"acc=0.9 of prompt hard must be 0 or 1"):
        made.example(row("hard", SEVEN), [1])


def test_without_rollouts_every_prompt_drawn_joins_after_its_rendered_tokens(collector):
    collector.remember("t0", row("q0", SEVEN) | {"raw_prompt": [{"role": "user", "content": "ab"}]})
    collector.remember("t1", row("q1", None) | {"raw_prompt": [{"role": "user", "content": "c"}]})
    collector.take_all()
    (entry,) = collector.buffer
    assert (entry.group, entry.example.prompt_id, entry.example.prompt_ids) == (None, "q0", (97, 98, 1))
    assert collector.rejected == {"missing": 1}


def test_the_buffer_names_the_first_prompts_whose_rollouts_are_awaited():
    buffer = object.__new__(OrderedReplayBuffer)
    buffer.pending_keys, buffer.running_keys = {"train": {"t5", "t1", "t2"}}, {"train": {"t0", "t3", "t4"}}
    assert buffer.waiting_for() == "6 prompts: t0, t1, t2, t3, t4 and 1 more"
    buffer.pending_keys = buffer.running_keys = {"train": set()}
    assert buffer.waiting_for() == ""
