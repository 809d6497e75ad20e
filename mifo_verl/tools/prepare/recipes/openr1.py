"""OpenR1-Math-46k-8192, the paper's data: prompts in verl's schema with DeepSeek-R1's solutions as ``target``."""

from dataclasses import dataclass
from typing import Any

from mifo_verl.data.demonstrations import demonstration_of, prompt_id_of
from mifo_verl.tools.prepare.recipe import FileRecipe
from mifo_verl.tools.prepare.rows import Dropped, Row, Split


@dataclass(frozen=True)
class OpenR1(FileRecipe):
    """OpenR1-Math-46k-8192 and files of its schema: the columns as they are, checked, with an id of the prompt."""

    name = "openr1"
    require_think = True
    hub_train = "Elliott/Openr1-Math-46k-8192::train"

    def row(self, record: dict[str, Any], split: Split, index: int) -> Row:
        """The row; a target that is no single assistant message is null."""
        prompt, info = record.get("prompt"), record.get("extra_info")
        answer = (record.get("reward_model") or {}).get("ground_truth")
        if not isinstance(prompt, list) or not all(_is_message(message) for message in prompt) or not prompt:
            raise Dropped("no question")
        if isinstance(answer, bool) or not isinstance(answer, str | int) or not str(answer).strip():
            raise Dropped("no answer")
        level = info.get("level") if isinstance(info, dict) else None
        row: Row = {
            "data_source": str(record.get("data_source") or "openr1"),
            "prompt": [{"role": message["role"], "content": message["content"]} for message in prompt],
            "target": None,
            "ability": str(record.get("ability") or "math"),
            "reward_model": {"style": "rule", "ground_truth": str(answer).strip()},
            "extra_info": {"split": split, "index": index, "level": _integer(level), "entry": None},
        }
        demonstration = demonstration_of(row | {"target": record.get("target")})
        if demonstration is not None:
            row["target"] = [{"role": "assistant", "content": demonstration.text}]
        return row | {"prompt_id": str(record.get("prompt_id") or prompt_id_of(row))}


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def _integer(level: Any) -> int | None:
    return level if isinstance(level, int) and not isinstance(level, bool) else None
