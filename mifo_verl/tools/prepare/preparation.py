"""From a recipe to a parquet file: rows counted, repeats and evaluation questions dropped, demonstrations verified."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import quantiles
from typing import Any

from tqdm import tqdm

from mifo_verl.data.demonstrations import demonstration_of
from mifo_verl.data.parquet import write_rows
from mifo_verl.rewards.kinds import Scorer
from mifo_verl.rewards.verdict import Verdict
from mifo_verl.tools.prepare.decontamination import EvaluationSets
from mifo_verl.tools.prepare.recipe import Row, question_of, with_system
from mifo_verl.tools.prepare.sources import Dropped

_THREADS = 4
_MOST_NAMED = 20
_MOST_CHARS = 60
Lengths = dict[str, int]


@dataclass
class Report:
    """What became of one split. Everything in it follows from the input: the same input, the same report."""

    recipe: str
    settings: dict[str, str]
    records: int = 0
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    """The first answers that the reward cannot read."""
    contaminated_by: Counter[str] = field(default_factory=Counter)
    """Of the rows dropped as contaminated, how many by which evaluation set."""
    evaluation_questions: dict[str, int] = field(default_factory=dict)
    by_source: Counter[str] = field(default_factory=Counter)
    """Rows by data source, with the level where rows have one."""
    demonstrations: int = 0
    """Rows with a demonstration, before ``unverified`` is applied."""
    verified: int = 0
    """Demonstrations that the reward calls correct."""
    wrong: list[str] = field(default_factory=list)
    """The first rows whose demonstration does not verify, by number and id."""
    wrong_kinds: dict[str, str] = field(default_factory=dict)
    """Of each kind of these, the first: what the reward read as its answer, and what it wanted."""
    lengths: dict[str, Lengths] = field(default_factory=dict)
    sha256: str = ""
    """Of the parquet file."""

    def as_json(self) -> dict[str, Any]:
        """The report as plain values, counts in falling order."""
        share = self.verified / self.demonstrations if self.demonstrations else None
        counts = {key: dict(value.most_common()) for key, value in vars(self).items() if isinstance(value, Counter)}
        return vars(self) | counts | {"verified_share": share}


@dataclass(frozen=True)
class Preparation:
    """What is done to the rows of any recipe."""

    score: Scorer
    is_readable: Callable[[str], bool] = bool
    """Whether the reward can read an answer; a row whose answer it cannot is dropped."""
    unverified: str = "keep"
    """``keep`` a demonstration that does not verify (training skips and counts it), ``null`` it, ``drop`` the row."""
    max_rows: int | None = None
    system: str | None = None
    sets: EvaluationSets | None = None
    count_tokens: Callable[[str], int] | None = None
    needs_demonstrations: bool = False

    def run(self, made: Iterable[Row | Dropped], path: Path, report: Report, source: str, reads: str) -> Report:
        """Write the rows to ``path`` and what became of them to ``<path without suffix>.report.json``.

        Raises ValueError, and writes nothing, if there is no row, or no demonstration that verifies where one is
        needed. ``source`` is the setting that it names, ``reads`` what the recipe reads.
        """
        bar = tqdm(made, desc=f"{report.recipe} {path.stem}", unit="record", delay=1, leave=False)
        kept = list(islice(self._kept(bar, report), self.max_rows))
        became = ", ".join(f"{reason} ({count})" for reason, count in report.dropped.most_common(5)) or "nothing"
        if not kept:
            raise ValueError(
                f"{source} must have a row for the recipe {report.recipe}: of {report.records} records it dropped: "
                f"{became}; it reads {reads}"
            )
        rows = self._verified(kept, report)
        if self.needs_demonstrations and not report.demonstrations:
            raise ValueError(
                f"{source} must have a demonstration: none of {len(kept)} rows has one; {report.recipe} reads {reads} "
                "For RL alone write demonstrations=optional"
            )
        if self.needs_demonstrations and not report.verified:
            raise ValueError(
                f"{source} must have a demonstration that verifies: of {report.demonstrations} none does, such as "
                f"{report.wrong[0]}; see that its answer stands in the box that the reward reads. For RL alone, or a "
                "reward of your own, write demonstrations=optional"
            )
        report.rows = len(rows)
        report.by_source.update(map(_source_of, rows))
        report.lengths = self._lengths(rows)
        write_rows(rows, path)
        report.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        text = json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n"
        path.with_suffix(".report.json").write_text(text, encoding="utf-8")
        return report

    def _kept(self, made: Iterable[Row | Dropped], report: Report) -> Iterator[Row]:
        """The rows that are new and in no evaluation set; everything else is counted by reason."""
        if self.sets is not None:
            report.evaluation_questions = dict(self.sets.num_questions)
        prompts: dict[str, str] = {}
        ids: set[str] = set()
        for row in made:
            report.records += 1
            reason = row.reason if isinstance(row, Dropped) else self._against(row, prompts, ids, report)
            if reason is None:
                assert not isinstance(row, Dropped)
                prompts[json.dumps(row["prompt"])] = row["reward_model"]["ground_truth"]
                ids.add(row["prompt_id"])
                yield with_system(row, self.system)
            else:
                report.dropped[reason] += 1

    def _against(self, row: Row, prompts: dict[str, str], ids: set[str], report: Report) -> str | None:
        """Why a row is not taken, or None."""
        if (before := prompts.get(json.dumps(row["prompt"]))) is not None:
            is_same = before == row["reward_model"]["ground_truth"]
            return "the same prompt again" if is_same else "the same prompt with another answer"
        if row["prompt_id"] in ids:
            return "the same id again"
        if not self.is_readable(row["reward_model"]["ground_truth"]):
            if len(report.unreadable) < _MOST_NAMED:
                report.unreadable.append(row["reward_model"]["ground_truth"][:100])
            return "the reward cannot read the answer"
        found = self.sets.find(question_of(row)) if self.sets is not None else None
        if found is None:
            return None
        report.contaminated_by[found[1]] += 1
        return f"contaminated ({found[0]})"

    def _verified(self, rows: list[Row], report: Report) -> list[Row]:
        """The rows after ``unverified``; counts demonstrations and those that verify."""
        with ThreadPoolExecutor(_THREADS) as executor:
            verdicts = executor.map(self._verdict, rows)
            bar = tqdm(zip(rows, verdicts, strict=True), total=len(rows), desc="verifying", delay=1, leave=False)
            judged = [(row, verdict) for row, verdict in bar]
        report.demonstrations = sum(verdict is not None for _, verdict in judged)
        wrong = {n: verdict for n, (_, verdict) in enumerate(judged) if verdict is not None and not verdict.correct}
        report.verified = report.demonstrations - len(wrong)
        report.wrong = [f"row {n} ({rows[n]['prompt_id']})" for n in islice(wrong, _MOST_NAMED)]
        for n, verdict in wrong.items():
            kind = verdict.error or ("no answer" if verdict.extracted is None else "another answer")
            read, wanted = verdict.extracted, rows[n]["reward_model"]["ground_truth"]
            says = f"row {n} ({rows[n]['prompt_id']}): read {_excerpt(read)}, wanted {_excerpt(wanted)}"
            report.wrong_kinds.setdefault(kind, says)
        if self.unverified == "keep":
            return rows
        if self.unverified == "null":
            return [row | {"target": None} if n in wrong else row for n, row in enumerate(rows)]
        if wrong:
            report.dropped["the demonstration does not verify"] = len(wrong)
        return [row for n, row in enumerate(rows) if n not in wrong]

    def _verdict(self, row: Row) -> Verdict | None:
        """What the run's reward says of the row's demonstration; None where it has none."""
        demonstration = demonstration_of(row)
        return None if demonstration is None else self.score(demonstration.text, demonstration.answer, row)

    def _lengths(self, rows: list[Row]) -> dict[str, Lengths]:
        texts = {
            "prompt": ["\n".join(message["content"] for message in row["prompt"]) for row in rows],
            "demonstration": [row["target"][0]["content"] for row in rows if row["target"]],
        }
        lengths = {f"{name}_chars": summary([len(text) for text in part]) for name, part in texts.items()}
        if self.count_tokens is not None:
            count = self.count_tokens
            lengths |= {f"{name}_tokens": summary([count(text) for text in part]) for name, part in texts.items()}
        return lengths


def _excerpt(answer: str | None) -> str:
    return "none" if answer is None else " ".join(answer.split())[:_MOST_CHARS]


def summary(numbers: list[int]) -> Lengths:
    """Least, median, 95th percentile and most, whole numbers; empty for none."""
    if not numbers:
        return {}
    cuts = quantiles(numbers, n=20, method="inclusive") if len(numbers) > 1 else numbers * 19
    return {"min": min(numbers), "median": round(cuts[9]), "p95": round(cuts[18]), "max": max(numbers)}


def _source_of(row: Row) -> str:
    source, level = str(row["data_source"]), row["extra_info"]["level"]
    return source if level is None or source.endswith(f"level_{level}") else f"{source}, level {level}"
