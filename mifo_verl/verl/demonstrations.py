"""Verified demonstrations as tokens: rendered, encoded and scored as this run's rollouts are."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from verl.utils import normalize_token_ids

from mifo_verl.data.demonstrations import TEACHER, demonstration_of, prompt_id_of
from mifo_verl.data.sft_batch import build_example, with_teacher
from mifo_verl.method.accuracy import count_correct
from mifo_verl.types import Rejection, SftExample

Scorer = Callable[..., Mapping[str, Any] | float]
"""The run's reward function, with verl's signature."""

REMEMBERED = 100_000
"""Verdicts that are kept, about 100 bytes each; the oldest are forgotten."""


class Demonstrations:
    """Builds what SFT trains on from a row. A demonstration is scored once as long as its verdict is remembered."""

    def __init__(
        self,
        tokenizer: Any,
        score: Scorer,
        max_response_tokens: int,
        template: Mapping[str, Any],
        remembered: int = REMEMBERED,
    ) -> None:
        self._tokenizer = tokenizer
        self._score = score
        self._max_response_tokens = max_response_tokens
        self._template = {**template, "add_generation_prompt": True, "tokenize": True}
        self._remembered = remembered
        self._verdicts: dict[bytes, bool] = {}
        self._texts: dict[int, str] = {}

    def render(self, row: Mapping[str, Any]) -> list[int]:
        """The prompt's tokens, as the rollouts would have them."""
        return normalize_token_ids(self._tokenizer.apply_chat_template(list(row["raw_prompt"]), **self._template))

    def build(self, row: dict[str, Any], prompt_ids: Sequence[int]) -> SftExample | Rejection:
        """The row's verified demonstration after these prompt tokens, or the reason against it."""
        return build_example(
            prompt_ids=prompt_ids,
            demonstration=demonstration_of(row),
            encode=lambda text: self._tokenizer.encode(text, add_special_tokens=False),
            decode=self._tokenizer.decode,
            end_token_id=self._tokenizer.eos_token_id,
            is_correct=lambda text, answer: self.is_correct(row, text, answer),
            max_response_tokens=self._max_response_tokens,
        )

    def build_with_teacher(self, row: dict[str, Any], prompt_ids: Sequence[int]) -> SftExample | Rejection:
        """The same, with the teacher's log-probabilities of its tokens."""
        built = self.build(row, prompt_ids)
        return built if isinstance(built, Rejection) else with_teacher(built, row.get(TEACHER))

    def step_ends(self, response_ids: Sequence[int]) -> list[int]:
        """Tokens up to the end of each step: of each line that is not blank. The end token belongs to the last one."""
        for token in set(response_ids) - self._texts.keys():  # a vocabulary of them at most
            self._texts[token] = self._tokenizer.decode([token])
        ends, is_blank = [], True
        for place, token in enumerate(response_ids[:-1], start=1):
            text = self._texts[token]
            is_blank = is_blank and not text.strip()
            if not is_blank and "\n" in text:
                ends.append(place)
                is_blank = True
        return [*(ends[:-1] if is_blank else ends), len(response_ids)]

    def is_correct(self, row: dict[str, Any], text: str, answer: str) -> bool:
        """The reward's verdict, by everything that it is told, and the prompt."""
        prompt_id, extra_info = prompt_id_of(row), dict(row.get("extra_info") or {})
        asked = json.dumps([text, answer, row["data_source"], extra_info, prompt_id], sort_keys=True, default=_whole)
        key = hashlib.sha256(asked.encode(errors="surrogatepass")).digest()
        if key not in self._verdicts:
            result = self._score(
                data_source=row["data_source"], solution_str=text, ground_truth=answer, extra_info=extra_info
            )
            counted = count_correct([(prompt_id, acc_of(result), False)])
            if len(self._verdicts) >= self._remembered:
                del self._verdicts[next(iter(self._verdicts))]
            self._verdicts[key] = counted[prompt_id] == (1, 1)
        return self._verdicts[key]


def _whole(value: Any) -> Any:
    """An array as a list: the words for a long one leave its middle out."""
    return value.tolist() if hasattr(value, "tolist") else repr(value)


def correctness(extra_fields: Mapping[str, Any]) -> object:
    """What the reward said of a finished trajectory, not looked at yet."""
    return acc_of(extra_fields.get("reward_extra_info", {}))


def is_fallback(extra_fields: Mapping[str, Any]) -> bool:
    """Whether the reward said that its verdict rests on letters alone, because an answer could not be read."""
    return bool(extra_fields.get("reward_extra_info", {}).get("method") == "text")


def acc_of(result: Mapping[str, Any] | float) -> object:
    """The correctness that a reward function returned; a plain number stands for both, as in verl."""
    if not isinstance(result, Mapping):
        return result
    if "acc" not in result:
        raise ValueError(
            "the reward function returned no acc; it has to return {'score': float, 'acc': 0 or 1} "
            "(reward.custom_reward_function)"
        )
    return result["acc"]
