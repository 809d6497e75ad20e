"""From finished rollouts to the SFT buffer: accuracy, hard prompts, verified demonstrations (MIFO step 2)."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import transfer_queue as tq
from transfer_queue import KVBatchMeta
from verl.utils import normalize_token_ids

from mifo_verl.data.demonstrations import demonstration_of, prompt_id_of
from mifo_verl.data.sft_batch import Rejection, build_example
from mifo_verl.method.accuracy import count_correct
from mifo_verl.method.buffer import DemonstrationBuffer
from mifo_verl.method.gate import Gate
from mifo_verl.types import BufferEntry, PromptGroup, SftExample, Use

Scorer = Callable[..., Mapping[str, Any] | float]
"""The run's reward function, with verl's signature."""


class HardPrompts:
    """Fills the buffer. Knows the rows of the prompts in flight; demonstrations never travel to the rollouts."""

    def __init__(
        self,
        gate: Gate,
        buffer: DemonstrationBuffer,
        tokenizer: Any,
        score: Scorer,
        max_response_tokens: int,
        num_rollouts: int,
        template: Mapping[str, Any],
    ) -> None:
        self.buffer = buffer
        self.rejected: Counter[str] = Counter()
        self.num_correct = self.num_rollouts = 0
        self.groups: list[PromptGroup] = []
        self._gate = gate
        self._tokenizer = tokenizer
        self._score = score
        self._max_response_tokens = max_response_tokens
        self._num_rollouts = num_rollouts
        self._template = {**template, "add_generation_prompt": True, "tokenize": True}
        self._rows: dict[str, dict[str, Any]] = {}
        self._verified: dict[tuple[str, str], bool] = {}

    def begin_step(self) -> None:
        """Forget the prompts of the step before and start its counts anew."""
        self._rows.clear()
        self.rejected.clear()
        self.groups.clear()
        self.num_correct = self.num_rollouts = 0

    def remember(self, uid: str, row: dict[str, Any]) -> None:
        """Keep a prompt's row while its rollouts are made."""
        self._rows[uid] = row

    def collect(self, batch: KVBatchMeta, step: int) -> list[PromptGroup]:
        """Put the hard prompts of finished trajectories into the buffer; the newest accuracy decides.

        Returns the groups that are whole: accuracies over all N rollouts.
        """
        if not batch.keys:
            return []
        first = len(self.groups)
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["prompts", "extra_fields"]
        )
        uids = [key.split("_")[0] for key in batch.keys]
        prompts = dict(zip(uids, data["prompts"].unbind(), strict=True))
        correct = [correctness(fields) for fields in data["extra_fields"]]
        padding = [bool(tag.get("is_padding", False)) for tag in batch.tags]
        counts = count_correct(zip(uids, correct, padding, strict=True))
        for uid, (num_correct, num_rollouts) in counts.items():
            self.num_correct += num_correct
            self.num_rollouts += num_rollouts
            self._consider(uid, num_correct, num_rollouts, prompts[uid].tolist(), step)
        return [group for group in self.groups[first:] if self._is_whole(group)]

    def _consider(self, uid: str, num_correct: int, num_rollouts: int, prompt_ids: list[int], step: int) -> None:
        row = self._rows[uid]
        group = PromptGroup(prompt_id_of(row), num_correct, num_rollouts, step)
        self.groups.append(group)
        if not self._is_whole(group):
            self.rejected["incomplete"] += 1
            return
        if Use.SFT_LATER not in self._gate(group):
            self.buffer.discard(group.prompt_id)
            return
        example = self.example(row, prompt_ids)
        if example is not None:
            self.buffer.put(BufferEntry(group, example))

    def _is_whole(self, group: PromptGroup) -> bool:
        """Whether no rollout has failed: what is left of others is no accuracy over N."""
        return group.num_rollouts >= self._num_rollouts

    def take_all(self) -> None:
        """Put every prompt drawn in this step into the buffer, without rollouts: SFT on the data set's own."""
        for row in self._rows.values():
            example = self.example(row, self.render(row))
            if example is not None:
                self.buffer.put(BufferEntry(None, example))

    def render(self, row: Mapping[str, Any]) -> list[int]:
        """The prompt's tokens, as the rollouts would have them."""
        return normalize_token_ids(self._tokenizer.apply_chat_template(list(row["raw_prompt"]), **self._template))

    def example(self, row: dict[str, Any], prompt_ids: Sequence[int]) -> SftExample | None:
        """The row's verified demonstration after these prompt tokens; None, and counted, where there is none."""
        built = self.build(row, prompt_ids)
        if isinstance(built, Rejection):
            self.rejected[built.value] += 1
            return None
        return built

    def build(self, row: dict[str, Any], prompt_ids: Sequence[int]) -> SftExample | Rejection:
        """The same, with the reason against it."""
        return build_example(
            prompt_ids=prompt_ids,
            demonstration=demonstration_of(row),
            encode=lambda text: self._tokenizer.encode(text, add_special_tokens=False),
            decode=self._tokenizer.decode,
            end_token_id=self._tokenizer.eos_token_id,
            is_correct=lambda text, answer: self._is_correct(row, text, answer),
            max_response_tokens=self._max_response_tokens,
        )

    def _is_correct(self, row: dict[str, Any], text: str, answer: str) -> bool:
        key = (text, answer)
        if key not in self._verified:
            result = self._score(
                data_source=row["data_source"],
                solution_str=text,
                ground_truth=answer,
                extra_info=dict(row.get("extra_info") or {}),
            )
            prompt_id = prompt_id_of(row)
            counted = count_correct([(prompt_id, _acc_of(result), False)])
            self._verified[key] = counted[prompt_id] == (1, 1)
        return self._verified[key]


def correctness(extra_fields: Mapping[str, Any]) -> object:
    """What the reward said of a finished trajectory, not looked at yet."""
    return _acc_of(extra_fields.get("reward_extra_info", {}))


def _acc_of(result: Mapping[str, Any] | float) -> object:
    """The correctness that a reward function returned; a plain number stands for both, as in verl."""
    if not isinstance(result, Mapping):
        return result
    if "acc" not in result:
        raise ValueError(
            "the reward function returned no acc; it has to return {'score': float, 'acc': 0 or 1} "
            "(reward.custom_reward_function)"
        )
    return result["acc"]
