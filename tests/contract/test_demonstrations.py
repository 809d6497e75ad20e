"""A demonstration is rendered, encoded and verified as the rollouts are, and each is verified by itself."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import NonTensorData, NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta

from mifo_verl.loop.inputs import Rollout
from mifo_verl.rewards.boxed import compute_score
from mifo_verl.types import Rejection
from mifo_verl.verl import replay
from mifo_verl.verl.demonstrations import Demonstrations, is_fallback


class Characters:
    """A tokenizer of one token a character."""

    eos_token_id = 0

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [ord(character) for character in text]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        return "".join(map(chr, ids))

    def apply_chat_template(self, messages: list[dict[str, str]], tokenize: bool, **options: Any) -> list[int]:
        """The messages' characters, and 1 where the model is to speak."""
        assert tokenize
        text = "".join(message["content"] for message in messages)
        return self.encode(text, add_special_tokens=False) + [1] * options["add_generation_prompt"]


SEVEN = "so \\boxed{7}"


def row(prompt_id: str = "q", target: str | None = SEVEN, answer: str = "7", **more: Any) -> dict[str, Any]:
    return {
        "prompt_id": prompt_id,
        "data_source": "test",
        "prompt": [{"role": "user", "content": prompt_id}],
        "raw_prompt": [{"role": "user", "content": "ab"}],
        "target": None if target is None else [{"role": "assistant", "content": target}],
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": {},
    } | more


def demonstrations(score: Any = compute_score, **settings: Any) -> Demonstrations:
    return Demonstrations(Characters(), score, max_response_tokens=13, template={}, **settings)


def test_the_prompt_is_rendered_as_the_rollouts_would_have_it():
    assert demonstrations().render(row()) == [97, 98, 1]


def test_a_verified_demonstration_follows_the_prompt_tokens_it_is_given_and_ends():
    built = demonstrations().build(row(), [5, 6])
    assert (built.prompt_ids, built.response_ids) == ((5, 6), (*map(ord, SEVEN), 0))


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (None, Rejection.MISSING),
        ("", Rejection.MISSING),
        ("so \\boxed{8}", Rejection.WRONG),
        ("see \\boxed{7}", Rejection.TOO_LONG),
    ],
)
def test_what_cannot_be_trained_on_has_a_reason(target, reason):
    assert demonstrations().build(row(target=target), [5]) is reason


class Judge:
    """Says that everything is right, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def __call__(self, **asked: Any) -> dict[str, float]:
        self.asked.append(asked)
        return {"score": 1.0, "acc": 1}


@pytest.mark.parametrize(
    "other",
    [
        row(target="so  \\boxed{7}"),
        row(answer="8"),
        row(data_source="other"),
        row(extra_info={"cases": [1, 2]}),
        row("q2"),
    ],
    ids=["text", "answer", "data_source", "extra_info", "prompt"],
)
def test_a_verdict_is_remembered_for_exactly_what_the_reward_was_told_of_this_prompt(other):
    judge = Judge()
    made = demonstrations(judge)
    for asked in (row(), row(), other, other):
        made.build(asked, [5])
    assert len(judge.asked) == 2


def test_verdicts_on_long_arrays_that_differ_in_their_middle_are_not_shared():
    judge, cases = Judge(), np.zeros((2, 2000))
    cases[1, 1000] = 1.0
    made = demonstrations(judge)
    for one in (*cases, *cases):
        made.build(row(extra_info={"cases": one}), [5])
    assert len(judge.asked) == 2


def test_no_more_verdicts_are_remembered_than_allowed():
    judge = Judge()
    made = demonstrations(judge, remembered=2)
    for name in ("a", "b", "c", "b", "c", "a"):
        made.build(row(name), [5])
    assert len(judge.asked) == 4  # a, b, c, and a again


def test_a_reward_that_returns_no_acc_or_a_number_other_than_0_and_1_is_an_error():
    with pytest.raises(ValueError, match="the reward function returned no acc"):
        demonstrations(lambda **_: {"score": 1.0}).build(row(), [1])
    with pytest.raises(ValueError, match=r"acc=0.9 of prompt q must be 0 or 1"):
        demonstrations(lambda **_: 0.9).build(row(), [1])


def test_trajectories_are_read_from_the_queue_as_rollouts_with_the_prompt_of_the_first_output(monkeypatch):
    prompts = [[5, 6], [5, 6, 9], [7]]
    data = TensorDict(
        {
            "prompts": torch.nested.as_nested_tensor([torch.tensor(ids) for ids in prompts], layout=torch.jagged),
            "extra_fields": NonTensorStack(*[NonTensorData({"reward_extra_info": {"acc": acc}}) for acc in (0, 1, 1)]),
        },
        batch_size=3,
    )
    monkeypatch.setattr(replay.tq, "kv_batch_get", lambda **_: data)
    tags = [{}, {}, {"is_padding": True}]
    batch = KVBatchMeta(keys=["t1_0_0", "t1_0_1", "pad_3_0"], tags=tags, partition_id="train")
    rollouts, prompt_ids = replay.rollouts_of(batch)
    assert rollouts == [Rollout("t1", 0, 0, 0), Rollout("t1", 0, 1, 1), Rollout("pad", 3, 0, 1, is_padding=True)]
    assert prompt_ids == {"t1": [5, 6], "pad": [7]}


@pytest.mark.parametrize(
    ("response", "ends"),
    [
        ("ab\ncd\n\nef", [3, 6, 10]),  # the end token belongs to the last one
        ("ab\n", [4]),
        ("\n\nab", [5]),
        ("ab", [3]),
        ("", [1]),
    ],
)
def test_a_step_of_a_demonstration_is_a_line_that_is_not_blank(response, ends):
    assert demonstrations().step_ends([*map(ord, response), 0]) == ends


def test_a_verdict_by_letters_alone_counts_as_a_fallback():
    given = [{"reward_extra_info": {"acc": 1, "method": method}} for method in ("text", "value", "letters", "none")]
    assert [is_fallback(extra) for extra in [*given, {"reward_extra_info": {"acc": 1}}, {}]] == [True] + [False] * 5
