"""Compare ``kind=math`` with plain math-verify and with labels: ``python -m tests.benchmarks.check_agreement data=<folder>``.

Every ``*.jsonl.gz`` of the folder has ``answer`` and perhaps a human ``solution``. Right by construction: the answer in a
box, in dollars, and after the solution. Wrong by construction: the answer with its first number raised by 1 (or with a
number added, where it has none), and the next row's answer, where it is written differently. ``out=<file>`` keeps every
case in which the two checkers or a checker and the label differ; ``rows=<number>`` takes the first rows of each file.
"""

import gzip
import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from math_verify import parse, verify
from tqdm import tqdm

from mifo_verl.rewards.extract import last_boxed
from mifo_verl.rewards.kinds import scorer

Case = tuple[str, str, str, bool]
"""Form, response, gold answer, label."""


def cases(rows: list[dict[str, Any]]) -> Iterator[Case]:
    """The cases of one file."""
    golds = [plain(row["answer"]) for row in rows]
    for index, (row, gold) in enumerate(zip(rows, golds, strict=True)):
        solution = re.sub(r"<<[^<>]*>>", "", row.get("solution") or "")
        yield "box", f"Therefore the answer is \\boxed{{{gold}}}.", row["answer"], True
        yield "dollars", f"So the final answer is ${gold}$.", row["answer"], True
        if solution:
            yield "solution, ####", f"{solution}\n#### {gold}", row["answer"], True
            yield "solution, sentence", f"{solution}\nThe answer is {gold}.", row["answer"], True
            yield "solution, raised", f"{solution}\nThe answer is {raised(gold)}.", row["answer"], False
        yield "box, raised", f"Therefore the answer is \\boxed{{{raised(gold)}}}.", row["answer"], False
        other = golds[(index + 1) % len(golds)]
        if "".join(other.split()) != "".join(gold.split()):
            yield "box, next row's", f"Therefore the answer is \\boxed{{{other}}}.", row["answer"], False


def plain(answer: str) -> str:
    """The answer without a box or dollars around it."""
    answer = (last_boxed(answer) or answer).strip()
    return answer[1:-1] if re.fullmatch(r"\$[^$]*\$", answer) else answer


def raised(answer: str) -> str:
    """A different answer that looks alike."""
    number = re.search(r"\d+", answer)
    if number is None:
        return f"{answer}+7"
    return f"{answer[: number.start()]}{int(number[0]) + 1}{answer[number.end() :]}"


def plain_math_verify(gold: str, text: str) -> bool:
    """math-verify as its documentation calls it, in this process, with its own 5 s limits."""
    return bool(verify(parse(f"\\boxed{{{gold}}}"), parse(text)))


def main(data: Path, most_rows: int | None, out: str | None) -> int:
    """Print the table; the exit code is 1 where the isolated checker misses a verdict that plain math-verify has right."""
    logging.disable(logging.CRITICAL)
    ours = scorer("math", workers=2, start=True)
    differing: list[dict[str, Any]] = []
    head = ("checks", "= plain", "= label", "plain = label", "a second", "plain")
    print(f"{'file':<16} " + " ".join(f"{name:>13}" for name in head))
    for path in sorted(data.glob("*.jsonl.gz")):
        with gzip.open(path, "rt") as file:
            rows = [json.loads(line) for line in file][:most_rows]
        every = list(cases(rows))
        start = time.monotonic()
        with ThreadPoolExecutor(4) as executor:
            verdicts = list(executor.map(lambda case: ours(case[1], case[2], {}), every))
        seconds = time.monotonic() - start
        start = time.monotonic()
        bar = tqdm(every, desc=path.name, unit="check", leave=False)
        theirs = [plain_math_verify(plain(gold), text) for _, text, gold, _ in bar]
        plain_seconds = time.monotonic() - start
        table = list(zip(every, verdicts, theirs, strict=True))
        counts = [
            len(every),
            sum(v.correct == t for _, v, t in table),
            sum(v.correct == c[3] for c, v, _ in table),
            sum(t == c[3] for c, _, t in table),
            round(len(every) / seconds),
            round(len(every) / plain_seconds),
        ]
        print(f"{path.name.removesuffix('.jsonl.gz'):<16} " + " ".join(f"{count:>13,}" for count in counts), flush=True)
        differing += [
            {"file": path.name, "form": c[0], "text": c[1], "gold": c[2], "label": c[3], "ours": v.correct, "plain": t}
            | {"error": v.error, "extracted": v.extracted}
            for c, v, t in table
            if not v.correct == t == c[3]
        ]
    if out:
        Path(out).write_text("".join(json.dumps(case) + "\n" for case in differing))
    lost = [case for case in differing if case["plain"] == case["label"] != case["ours"]]
    print(f"{len(differing)} cases differ; plain math-verify is right and we are not in {len(lost)}")
    return int(bool(lost))


if __name__ == "__main__":
    settings = dict(pair.split("=", 1) for pair in sys.argv[1:])
    sys.exit(main(Path(settings["data"]), int(settings["rows"]) if "rows" in settings else None, settings.get("out")))
