"""Demonstrations from a real server on this machine that fails, dawdles, limits, and answers wrongly.

The server's behaviour is chosen by the question: ``<behaviour> a+b=?``.
"""

import asyncio
import contextlib
import hashlib
import json
import threading
import time
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow.parquet as pq
import pytest

from mifo_verl.data.demonstrations import demonstration_of, prompt_id_of
from mifo_verl.data.parquet import check_columns, count_demonstrations, write_rows
from mifo_verl.rewards import boxed
from mifo_verl.tools.demonstrations.__main__ import fill, main, parse
from mifo_verl.tools.demonstrations.client import Endpoint, EndpointError, Unanswered
from mifo_verl.tools.prepare import addition

pytestmark = pytest.mark.alone


class Teacher(ThreadingHTTPServer):
    """An OpenAI-compatible chat endpoint that counts what it is asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answering)
        self.asked: Counter[str] = Counter()
        self.bodies: dict[str, list[dict]] = defaultdict(list)
        self.headers: list[str | None] = []
        self.now = self.most = 0
        self.lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Answering(BaseHTTPRequestHandler):
    server: Teacher

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        behaviour, _, question = body["messages"][-1]["content"].splitlines()[-1].partition(" ")
        server = self.server
        with server.lock:
            server.asked[question] += 1
            server.bodies[question].append(body)
            server.headers.append(self.headers.get("Authorization"))
            server.now += 1
            server.most = max(server.most, server.now)
            number = server.asked[question]
        try:
            self.behave(behaviour, question, number)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client had no patience
        finally:
            with server.lock:
                server.now -= 1

    def behave(self, behaviour, question, number):
        assert self.path == "/v1/chat/completions"
        a, b = map(int, question.removesuffix("=?").split("+"))
        right, wrong = addition.column_addition(a, b), f"<think>hm</think>\\boxed{{{a + b + 1}}}"
        if behaviour == "fails" and number <= 2:
            return self.send(500, {"error": "out of memory"})
        if behaviour == "limited" and number == 1:
            return self.send(429, {"error": "slow down"}, {"Retry-After": "0.5"})
        if behaviour == "slow" and number == 1:
            time.sleep(3.0)
        if behaviour == "drips" and number == 1:  # bytes keep coming: no single read times out
            content = json.dumps({"choices": [{"message": {"content": right}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(30 + len(content)))
            self.end_headers()
            for _ in range(30):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.1)
            return self.wfile.write(content)
        if behaviour == "drops" and number == 1:
            return self.connection.close()
        if behaviour == "garbles" and number == 1:
            return self.send(200, {"choices": []})
        if behaviour == "down":
            return self.send(503, {"error": "loading"})
        if behaviour == "refuses":
            return self.send(400, {"error": "too many tokens"})
        if behaviour == "unknown":
            return self.send(404, {"error": "no such model"})
        if behaviour == "busy":
            time.sleep(0.05)
        if behaviour == "late":
            return self.answer(wrong if number <= 2 else right)
        if behaviour == "wrong":
            return self.answer(wrong)
        if behaviour == "cut":
            return self.answer(right, "length")
        if behaviour == "mentions":
            return self.answer(f"As the reference solution says: {right}")
        if behaviour == "reasons":
            return self.answer(f"\\boxed{{{a + b}}}", reasoning_content="\nthe columns\n")
        return self.answer(right)

    def answer(self, text, finish_reason="stop", **more):
        self.send(200, {"choices": [{"message": {"content": text, **more}, "finish_reason": finish_reason}]})

    def send(self, status, body, headers=None):
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def teacher():
    server = Teacher()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def row(behaviour, a, b, target=None):
    made = addition.addition_row(a, b, 2, "train", a, addition.column_addition(a, b))
    made["prompt"] = [{"role": "user", "content": f"{behaviour} {a}+{b}=?"}]
    made["target"] = target and [{"role": "assistant", "content": target}]
    return made


def run(tmp_path, teacher, rows, **changed):
    """Fill a file; its rows and what became of each."""
    write_rows(rows, tmp_path / "in.parquet")
    given = {"in": tmp_path / "in.parquet", "out": tmp_path / "out.parquet", "endpoint": teacher.url, "model": "big"}
    given |= {"timeout": 2.0, "retries": 3, "rows": changed.pop("only", "missing")} | changed
    made = fill(parse([f"{key}={value}" for key, value in given.items()]))
    return pq.read_table(tmp_path / "out.parquet").to_pylist(), [one.reason for one in made]


@pytest.mark.parametrize(
    ("behaviour", "requests"),
    [("plain", 1), ("fails", 3), ("limited", 2), ("slow", 2), ("drips", 2), ("drops", 2), ("garbles", 2), ("late", 3)],
)
def test_a_server_that_recovers_yields_a_verified_demonstration(tmp_path, teacher, behaviour, requests):
    [filled], reasons = run(tmp_path, teacher, [row(behaviour, 27, 35)])
    assert reasons == ["made"]
    assert teacher.asked["27+35=?"] == requests
    assert filled["target"] == [{"role": "assistant", "content": addition.column_addition(27, 35)}]
    assert boxed.is_correct(filled["target"][0]["content"], "62")
    assert filled["target_source"] == f"big at {teacher.url}"
    assert prompt_id_of(filled) == "addition/27+35"


@pytest.mark.parametrize(
    ("behaviour", "reason", "requests"),
    [("wrong", "wrong", 2), ("cut", "too long", 2), ("down", "unanswered", 2), ("refuses", "unanswered", 1)],
)
def test_what_does_not_verify_or_never_comes_leaves_the_row_without_one(tmp_path, teacher, behaviour, reason, requests):
    rows = [row(behaviour, 27, 35), row("plain", 1, 2)]
    [filled, _], reasons = run(tmp_path, teacher, rows, tries=2, retries=1)
    assert reasons == [reason, "made"] and teacher.asked["27+35=?"] == requests
    assert filled["target"] is None and filled["target_source"] is None


def test_verified_demonstrations_are_rewritten_by_the_policy_and_what_does_not_verify_stays(tmp_path, teacher):
    own = [addition.column_addition(a, b) + " by a teacher" for a, b in ((1, 2), (3, 4), (5, 6))]
    rows = [row("plain", 1, 2, own[0]), row("wrong", 3, 4, own[1]), row("mentions", 5, 6, own[2]), row("plain", 7, 8)]
    template = tmp_path / "template.txt"
    template.write_text("{reference}\n{question}")
    filled, reasons = run(tmp_path, teacher, rows, template=template, tries=1)
    stays = ["kept, its rewriting wrong", "kept, its rewriting speaks of the reference", "without a reference"]
    assert reasons == ["rewritten", *stays]
    asked = [
        message["content"] for bodies in teacher.bodies.values() for body in bodies for message in body["messages"]
    ]
    questions = ("plain 1+2=?", "wrong 3+4=?", "mentions 5+6=?")  # several are asked at a time, in any order
    assert sorted(asked) == sorted(f"{mine}\n{question}" for mine, question in zip(own, questions, strict=True))
    assert filled[0]["target"][0]["content"] == addition.column_addition(1, 2)
    assert filled[0]["target_source"] == f"policy:big at {teacher.url}"
    assert filled[0]["reference_sha256"] == hashlib.sha256(own[0].encode()).hexdigest()
    assert [one["target"] and one["target"][0]["content"] for one in filled[1:]] == [own[1], own[2], None]
    assert [one["reference_sha256"] for one in filled[1:]] == [None] * 3
    with pytest.raises(ValueError, match="template='Again:' must be a text with"):
        template.write_text("Again:")
        run(tmp_path, teacher, rows, template=template)


def test_reasoning_that_the_server_took_out_is_put_back(tmp_path, teacher):
    [filled], _ = run(tmp_path, teacher, [row("reasons", 1, 2)], require_think="true", reward="math")
    assert filled["target"][0]["content"] == "<think>\nthe columns\n</think>\n\n\\boxed{3}"


@pytest.mark.parametrize(
    ("behaviour", "waits"), [("plain", []), ("limited", [0.5]), ("fails", [1, 2]), ("down", [1, 2, 4, 8, 16, 32, 60])]
)
def test_the_wait_is_what_a_rate_limit_asks_for_and_else_doubles_up_to_a_minute(teacher, behaviour, waits):
    waited = []

    async def wait(seconds):
        waited.append(seconds)

    async def ask():
        endpoint = Endpoint(teacher.url, "big", retries=7, sleep=wait)
        async with endpoint.client() as client:
            return await endpoint.ask(client, row(behaviour, 1, 2)["prompt"], {})

    with contextlib.suppress(Unanswered):
        asyncio.run(ask())
    assert waited == waits


def test_only_rows_without_a_verified_demonstration_are_asked_for(tmp_path, teacher):
    own = addition.column_addition(1, 2)
    rows = [row("plain", 1, 2, own), row("plain", 3, 4, "\\boxed{9}"), row("plain", 5, 6)]
    filled, reasons = run(tmp_path, teacher, rows)
    assert reasons == ["had one", "made", "made"]
    assert teacher.asked == {"3+4=?": 1, "5+6=?": 1}
    assert filled[0]["target"][0]["content"] == own and filled[0]["target_source"] == "dataset"
    assert filled[1]["target"][0]["content"] == addition.column_addition(3, 4)


def test_all_rows_are_asked_for_on_demand_and_keep_their_own_where_that_fails(tmp_path, teacher):
    own = addition.column_addition(1, 2)
    rows = [row("reasons", 1, 2, own), row("wrong", 3, 4, addition.column_addition(3, 4))]
    filled, reasons = run(tmp_path, teacher, rows, only="all")
    assert reasons == ["made", "had one"]
    assert filled[0]["target"][0]["content"] != own and filled[0]["target_source"].startswith("big at")
    assert filled[1]["target"][0]["content"] == addition.column_addition(3, 4)


def test_a_second_run_asks_nothing_again_and_writes_the_same_file(tmp_path, teacher):
    rows = [row("plain", 1, 2), row("late", 3, 4), row("wrong", 5, 6)]
    first, reasons = run(tmp_path, teacher, rows)
    bytes_before, asked = (tmp_path / "out.parquet").read_bytes(), dict(teacher.asked)
    assert asked == {"1+2=?": 1, "3+4=?": 3, "5+6=?": 4}
    assert run(tmp_path, teacher, rows) == (first, reasons)
    assert dict(teacher.asked) == asked and (tmp_path / "out.parquet").read_bytes() == bytes_before
    run(tmp_path, teacher, rows, temperature=0.9)
    assert teacher.asked["1+2=?"] == 2  # another temperature is another answer


def test_what_was_answered_before_an_abort_is_kept(tmp_path, teacher):
    rows = [row("plain", 1, 2), row("unknown", 3, 4)]
    with pytest.raises(EndpointError, match=r"must serve model=big .* 404"):
        run(tmp_path, teacher, rows, concurrency=1)
    assert not (tmp_path / "out.parquet").exists()
    run(tmp_path, teacher, [row("plain", 1, 2)])
    assert teacher.asked["1+2=?"] == 1


def test_every_try_has_a_seed_of_its_own_and_the_settings_arrive(tmp_path, teacher):
    run(tmp_path, teacher, [row("wrong", 1, 2)], tries=3, temperature=0.7, max_tokens=99, top_p=0.8)
    bodies = teacher.bodies["1+2=?"]
    assert len({body["seed"] for body in bodies}) == 3 and all(0 <= body["seed"] < 2**31 for body in bodies)
    for body in bodies:
        assert (body["model"], body["temperature"], body["max_tokens"], body["top_p"]) == ("big", 0.7, 99, 0.8)
        assert body["messages"] == [{"role": "user", "content": "wrong 1+2=?"}]


def test_no_more_requests_are_open_than_allowed(tmp_path, teacher):
    run(tmp_path, teacher, [row("busy", number, 1) for number in range(1, 30)], concurrency=3)
    assert sum(teacher.asked.values()) == 29
    assert teacher.most == 3


def test_an_endpoint_that_is_down_ends_the_run_after_ten_questions(tmp_path, teacher):
    rows = [row("down", number, 1) for number in range(1, 40)]
    with pytest.raises(ValueError, match=r"must answer; 10 questions in a row got none, the last because of: 503"):
        run(tmp_path, teacher, rows, retries=0, concurrency=1)
    assert sum(teacher.asked.values()) == 10


@pytest.mark.parametrize("rows", [1, 3])
def test_an_endpoint_that_answers_nothing_is_an_error_however_few_the_questions(tmp_path, teacher, rows):
    with pytest.raises(ValueError, match=rf"must answer; {rows} questions in a row got none, .* because of: 503"):
        run(tmp_path, teacher, [row("down", number, 1) for number in range(1, rows + 1)], retries=0)
    assert not (tmp_path / "out.parquet").exists()


def test_the_key_is_sent_and_never_part_of_the_source(tmp_path, teacher, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    run(tmp_path, teacher, [row("plain", 1, 2)])
    assert teacher.headers == ["Bearer secret"]
    assert Endpoint("https://me:secret@host:8/v1/?key=secret", "big").source == "big at https://host:8/v1"


def test_the_file_can_be_trained_on_and_keeps_its_other_columns(tmp_path, teacher):
    rows = [row("plain", 1, 2), row("wrong", 3, 4)]
    filled, _ = run(tmp_path, teacher, rows)
    check_columns(tmp_path / "out.parquet")
    assert count_demonstrations(tmp_path / "out.parquet") == (2, 1)
    assert demonstration_of(filled[0]).text == addition.column_addition(1, 2)
    for before, after in zip(rows, filled, strict=True):
        assert {key: after[key] for key in before if key != "target"} == {
            k: v for k, v in before.items() if k != "target"
        }


def test_the_command_reports_what_became_of_the_rows(tmp_path, teacher, capsys):
    write_rows([row("plain", 1, 2), row("wrong", 3, 4)], tmp_path / "in.parquet")
    paths = [f"in={tmp_path}/in.parquet", f"out={tmp_path}/out.parquet"]
    assert main([*paths, f"endpoint={teacher.url}", "model=big", "tries=1"]) == 0
    assert "2 rows: 0 had one, 1 made, 1 wrong, 0 too long, 0 unanswered" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in=x"], "out= must be given"),
        (["inn=x"], "did you mean in"),
        (["in=/nowhere", "out=o", "endpoint=http://x/v1", "model=m"], "in=/nowhere must be a file that exists"),
        (["in=IN", "out=o", "endpoint=localhost:8000", "model=m"], "endpoint=localhost:8000 must be an http address"),
        (["in=IN", "out=o", "endpoint=http://x/v1", "model=m", "rows=some"], "rows=some must be missing or all"),
        (["in=IN", "out=o", "endpoint=http://x/v1", "model=m", "tries=0"], "tries=0 must be at least 1"),
        (["in=IN", "out=o", "endpoint=http://x/v1", "model=m", "tries=x"], "tries=x must be a whole number"),
        (["in=IN", "out=o", "endpoint=http://x/v1", "model=m", "timeout=0"], "timeout=0.0 must be a number above 0"),
        (["in=IN", "out=o", "endpoint=http://x/v1", "model=m", "reward=maths"], "reward=maths must be one of"),
    ],
)
def test_what_a_user_can_fix_is_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_rows([row("plain", 1, 2)], tmp_path / "in.parquet")
    assert main([argument.replace("in=IN", f"in={tmp_path}/in.parquet") for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 or "demonstrations:" in error
    assert message in error
