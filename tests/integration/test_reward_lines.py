"""Lines in, scores out: the same verdicts as in training, in order, as soon as their turn is done, whatever a line holds."""

import io
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mifo_verl.rewards import math
from mifo_verl.rewards.verdict import Verdict, binary
from mifo_verl.tools.score import __main__ as lines
from mifo_verl.tools.score.__main__ import main

COMMAND = [sys.executable, "-m", "mifo_verl.tools.score"]


def scores(content: bytes, kind: str = "math", *arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run([*COMMAND, f"kind={kind}", *arguments], input=content, capture_output=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_good_and_bad_lines_give_one_object_each_in_order() -> None:
    content = b"\n".join(
        [
            json.dumps({"response": r"so \boxed{2/4}", "answer": "0.5"}).encode(),
            json.dumps({"response": r"so \boxed{9^{9^{9^9}}}", "answer": "0.5"}).encode(),
            b"{not json",
            b"\xff\xfe\xfa",
            b"[" * 100_000,
            b'{"response": "1", "answer": ' + b"1" * 10_000 + b"}",
            b"",
            json.dumps({"response": 3, "answer": "3"}).encode(),
            json.dumps({"response": "3"}).encode(),
            json.dumps({"response": "3", "answer": None}).encode(),
            json.dumps({"response": "The answer is 42.", "answer": 42}).encode(),
            json.dumps({"response": "\ud800\0" * 1000 + r"$\frac{1}{2}$", "answer": "0.5"}).encode(),
            json.dumps({"response": "x" * 1_000_000, "answer": "0.5"}).encode(),
        ]
    )
    found = scores(content, "math", "cpu_seconds=0.2")
    assert [line["correct"] for line in found] == [True] + [False] * 9 + [True, True, False]
    assert [line["score"] for line in found] == [float(line["correct"]) for line in found]
    assert found[1]["error"] in ("cpu limit", "wall clock")
    assert [line["error"] for line in found[2:7]] == ["line must be a JSON object"] * 5
    assert [line["error"] for line in found[7:11]] == [
        "response must be a string",
        "answer must be a string or a number",
        "answer must be a string or a number",
        None,
    ]
    assert found[10]["extracted"] == "42"
    assert all(list(line) == ["score", "correct", "extracted", "seconds", "error", "method"] for line in found)


def test_a_line_is_answered_before_the_next_one_is_written() -> None:
    process = subprocess.Popen([*COMMAND, "kind=boxed"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    for number in range(3):
        line = json.dumps({"response": rf"\boxed{{{number}}}", "answer": "1"})
        process.stdin.write(line.encode() + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["correct"] is (number == 1)
    process.stdin.close()
    assert process.wait(timeout=20) == 0


def test_the_order_is_the_inputs_however_long_a_line_takes() -> None:
    def score(response: str, answer: str, row: Mapping[str, Any]) -> Verdict:
        time.sleep(0.05 if int(response) % 4 == 0 else 0)
        return binary(True, response)

    source = io.BytesIO(b"".join(json.dumps({"response": str(n), "answer": "1"}).encode() + b"\n" for n in range(40)))
    out = io.BytesIO()
    lines.write_scores(source, out, score, workers=4)
    assert [json.loads(line)["extracted"] for line in out.getvalue().splitlines()] == [str(n) for n in range(40)]


def test_no_more_lines_are_read_than_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    class Source(io.BytesIO):
        ahead = most = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            self.ahead += 1
            self.most = max(self.most, self.ahead)
            return super().readline(size)

    source = Source(b'{"response": "1", "answer": "1"}\n' * 300)

    def score(response: str, answer: str, row: Mapping[str, Any]) -> Verdict:
        time.sleep(0.001)
        source.ahead -= 1
        return binary(True, response)

    lines.write_scores(source, io.BytesIO(), score, workers=2)
    assert source.most <= 2 * lines.AHEAD + 2 + 2


def test_a_line_that_is_too_long_is_skipped_without_being_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100)
    good = b'{"response": "1", "answer": "1"}\n'
    out = io.BytesIO()
    source = io.BytesIO(good + b"x" * 1000 + b"\n" + good + b"y" * 150)
    lines.write_scores(source, out, lambda response, answer, row: binary(True, response), workers=1)
    found = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["correct"] for line in found] == [True, False, True, False]
    assert "line must be at most" in found[1]["error"]


def test_an_own_function_that_raises_or_returns_nonsense_is_an_error_of_its_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n"
        "    return {'a': 1 / int(solution_str), 'score': 1.0, 'acc': 1} if ground_truth else None\n"
    )
    content = b'{"response": "0", "answer": "1"}\n{"response": "1", "answer": "1"}\n{"response": "1", "answer": ""}\n'
    found = scores(content, f"{tmp_path / 'mine.py'}:compute_score")
    assert [line["correct"] for line in found] == [False, True, False]
    assert found[0]["error"] == "ZeroDivisionError: division by zero"
    assert found[2]["error"].startswith("the reward function's result=None must be")


def test_a_reader_that_has_enough_ends_it_quietly() -> None:
    process = subprocess.Popen(
        [*COMMAND, "kind=boxed"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    line = b'{"response": "1", "answer": "1"}\n'
    process.stdin.write(line)
    process.stdin.flush()
    process.stdout.readline()
    process.stdout.close()
    try:
        for _ in range(200):
            process.stdin.write(line)
            process.stdin.flush()
        process.stdin.close()
    except BrokenPipeError:
        pass
    assert process.wait(timeout=20) == 0 and process.stderr.read() == b""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kind=maths"], "kind=maths must be one of"),
        (["workers=2"], "kind= must be given"),
        (["kind=math", "workers=0"], "workers=0 must be from 1 to 256"),
        (["kind=math", "cpu_seconds=no"], "cpu_seconds=no must be a number"),
        (["kind=boxed", "require_think=yes"], "require_think=yes must be true or false"),
        (["kind=boxed", "required=1"], "required=1 must be key=value, key one of"),
        (["kind=custom"], "kind=custom must be one of auto, math"),
    ],
)
def test_arguments_that_a_user_can_fix_end_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_without_arguments_the_usage_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0 and "kind=math" in capsys.readouterr().out


def test_the_command_and_training_give_the_same_verdicts() -> None:
    rows = [(r"</think>\boxed{1,000}", "1000"), ("the answer is 3/4", "0.75"), (r"$x=5$", "5"), ("6", "7"), ("", "1")]
    content = b"\n".join(json.dumps({"response": text, "answer": answer}).encode() for text, answer in rows)
    assert (
        [line["score"] for line in scores(content)]
        == [math.compute_score("s", text, answer)["score"] for text, answer in rows]
        == [1.0, 1.0, 1.0, 0.0, 0.0]
    )
