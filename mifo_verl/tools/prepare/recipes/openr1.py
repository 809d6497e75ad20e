"""Files in verl's own schema: OpenR1-Math-46k-8192, the paper's data, with DeepSeek-R1's solutions as ``target``."""

import json
from dataclasses import dataclass
from typing import Any

from mifo_verl.data.demonstrations import demonstration_of, prompt_id_of
from mifo_verl.tools.prepare.recipe import FileRecipe, Row, Split, answer_of
from mifo_verl.tools.prepare.sources import Dropped


@dataclass(frozen=True)
class Verl(FileRecipe):
    """files in verl's schema (DAPO-Math-17k, Skywork-OR1, GSM8K): data_source, prompt (messages), reward_model, target."""

    name = "verl"

    def row(self, record: dict[str, Any], split: Split, index: int) -> Row:
        """The row; a target that is no single assistant message is null."""
        prompt, info = record.get("prompt"), record.get("extra_info")
        answer = (record.get("reward_model") or {}).get("ground_truth")
        if not isinstance(prompt, list) or not all(_is_message(message) for message in prompt) or not prompt:
            raise Dropped("no question")
        if isinstance(answer, bool) or not isinstance(answer, str | int):
            raise Dropped("no answer")
        level = info.get("level") if isinstance(info, dict) else None
        row: Row = {
            "data_source": str(record.get("data_source") or self.name),
            "prompt": [{"role": message["role"], "content": message["content"]} for message in prompt],
            "target": None,
            "ability": str(record.get("ability") or "math"),
            "reward_model": {"style": "rule", "ground_truth": answer_of(_only(str(answer)))},
            "extra_info": {"split": split, "index": index, "level": _integer(level), "entry": None},
        }
        demonstration = demonstration_of(row | {"target": record.get("target")})
        if demonstration is not None:
            row["target"] = [{"role": "assistant", "content": demonstration.text}]
        return row | {"prompt_id": str(record.get("prompt_id") or prompt_id_of(row))}


@dataclass(frozen=True)
class OpenR1(Verl):
    """OpenR1-Math-46k-8192 and files of its schema: the columns as they are, checked, with an id of the prompt."""

    name = "openr1"
    require_think = True
    hub_train = "Elliott/Openr1-Math-46k-8192::train"


def _only(answer: str) -> str:
    """The answer of a JSON list of one text, as Skywork-OR1 writes it; any other text as it is."""
    try:
        found = json.loads(answer) if answer.startswith('["') else None
    except ValueError:
        return answer
    return found[0] if isinstance(found, list) and len(found) == 1 and isinstance(found[0], str) else answer


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def _integer(level: Any) -> int | None:
    return level if isinstance(level, int) and not isinstance(level, bool) else None
