"""Sets with several generations a question, or with the answer inside JSON."""

import json
from dataclasses import dataclass
from typing import Any

from mifo_verl.tools.prepare.recipe import FileRecipe, Row, Split, make_row, text_of
from mifo_verl.tools.prepare.recipes.competition import bare
from mifo_verl.tools.prepare.recipes.traces import with_tags
from mifo_verl.tools.prepare.sources import Dropped


@dataclass(frozen=True)
class OpenR1Raw(FileRecipe):
    """OpenR1-Math-220k: problem, answer, generations and which of them its own checks call right; the first right one."""

    name = "openr1_220k"
    require_think = True
    hub_train = "open-r1/OpenR1-Math-220k:default:train"

    def row(self, record: dict[str, Any], split: Split, index: int) -> Row:
        """The row; without a generation that is right and complete it has no demonstration."""
        texts = record.get("generations") or []
        checks = (record.get("correctness_math_verify"), record.get("correctness_llama"))
        right = [any(check and place < len(check) and check[place] for check in checks) for place in range(len(texts))]
        complete = record.get("is_reasoning_complete") or [True] * len(texts)
        good = [text for text, ok, whole in zip(texts, right, complete, strict=False) if ok and whole]
        return make_row(
            text_of(record, "source") or "openr1",
            text_of(record, "problem"),
            bare(text_of(record, "answer")),
            with_tags(str(good[0])) if good else None,
            split,
            index,
            prompt_id=text_of(record, "uuid") or None,
        )


@dataclass(frozen=True)
class Prime(FileRecipe):
    """PRIME's SYNTHETIC-1 and sets like it: prompt, problem_id, and verification_info, JSON with ground_truth."""

    name = "prime"
    hub_train = "PrimeIntellect/verifiable-math-problems::train"

    def row(self, record: dict[str, Any], split: Split, index: int) -> Row:
        """The row; its demonstration is ``gold_standard_solution`` if the record has one."""
        info = record.get("verification_info")
        try:
            info = json.loads(info) if isinstance(info, str) else info
        except ValueError:
            info = None
        if not isinstance(info, dict):
            raise Dropped("no answer")
        return make_row(
            text_of(record, "source") or "prime",
            text_of(record, "prompt"),
            bare(text_of(info, "ground_truth")),
            text_of(record, "gold_standard_solution") or None,
            split,
            index,
            prompt_id=text_of(record, "problem_id") or None,
        )
