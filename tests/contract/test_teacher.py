"""The teacher's log-probabilities: a column of the data, by a local model or an endpoint, of the policy's own tokens."""

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mifo_verl.data.parquet import write_rows
from mifo_verl.data.sft_batch import with_teacher
from mifo_verl.tools.prepare import addition
from mifo_verl.tools.prepare.__main__ import main
from mifo_verl.tools.prepare.tiny_model import START_MODEL
from mifo_verl.types import Rejection, SftExample
from mifo_verl.verl.demonstrations import Demonstrations
from mifo_verl.verl.sft_step import BatchCut, sft_batch


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(START_MODEL)


@pytest.fixture
def rows(tmp_path):
    made = addition.rows(dict.fromkeys(addition.LEVELS, 2), "train", 0)
    made[0]["target"] = None
    write_rows(made, tmp_path / "in.parquet")
    return made


def make(tmp_path: Path, **changed) -> list[dict]:
    given = {"train": tmp_path / "in.parquet", "out": tmp_path / "out.parquet"}
    given |= {"tokenizer": START_MODEL, "teacher": START_MODEL} | changed
    assert main(["teacher_log_probs", *(f"{key}={value}" for key, value in given.items())]) == 0
    return pq.read_table(tmp_path / "out.parquet").to_pylist()


def built(tokenizer, row: dict) -> SftExample | Rejection:
    """As a run builds it."""
    row = row | {"raw_prompt": row["prompt"]}
    made = Demonstrations(tokenizer, lambda **_: {"score": 1.0, "acc": 1}, 1000, {})
    return made.build_with_teacher(row, made.render(row))


def test_the_column_has_log_p_of_every_response_token_by_a_local_model(tmp_path, rows, tokenizer):
    found = make(tmp_path)
    assert [row["target_log_probs"] is None for row in found] == [True] + [False] * (len(rows) - 1)
    example = built(tokenizer, found[3])
    assert isinstance(example, SftExample) and len(example.teacher_log_probs) == len(example.response_ids)
    model, ids = (
        AutoModelForCausalLM.from_pretrained(START_MODEL, dtype=torch.float32),
        [*example.prompt_ids, *example.response_ids],
    )
    with torch.no_grad():
        log_p = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    by_hand = [float(log_p[place - 1, ids[place]]) for place in range(len(example.prompt_ids), len(ids))]
    assert example.teacher_log_probs == pytest.approx(by_hand, abs=1e-4)
    batch = sft_batch([example], [0], BatchCut(1, 2, pad_token_id=0))  # a row fills up
    assert batch["teacher_log_prob"].unbind()[0].tolist() == pytest.approx(by_hand, abs=1e-4)


def test_log_probabilities_of_other_tokens_are_refused_and_so_is_a_row_without(tmp_path, rows, tokenizer):
    found = make(tmp_path)
    assert built(tokenizer, found[0] | {"target": found[1]["target"]}) is Rejection.NO_TEACHER
    rewritten = [{"role": "assistant", "content": found[1]["target"][0]["content"] + " "}]
    assert built(tokenizer, found[1] | {"target": rewritten}) is Rejection.NO_TEACHER
    example = SftExample("q", (1,), (2, 3), "")
    assert with_teacher(example, None) is Rejection.NO_TEACHER


def test_a_teacher_with_another_tokenizer_is_refused(tmp_path, rows, capsys):
    other = Path(shutil.copytree(START_MODEL, tmp_path / "other"))
    text = json.loads((other / "tokenizer.json").read_text())
    vocab = text["model"]["vocab"]
    vocab["1"], vocab["2"] = vocab["2"], vocab["1"]
    (other / "tokenizer.json").write_text(json.dumps(text))
    arguments = [f"train={tmp_path / 'in.parquet'}", f"out={tmp_path / 'out.parquet'}", f"tokenizer={START_MODEL}"]
    assert main(["teacher_log_probs", *arguments, f"teacher={other}"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"teacher={other} must be a model with the policy's own tokenizer; take a teacher" in error
    assert not (tmp_path / "out.parquet").exists()


class Scoring(BaseHTTPRequestHandler):
    """A server with vLLM's ``prompt_logprobs``: log p of a token is minus its id over 1000."""

    tokenizer = None

    def log_message(self, *_):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/detokenize":
            reply = {"prompt": self.tokenizer.decode(asked["tokens"]) + ("" if asked["model"] == "big" else "?")}
        else:
            assert (self.path, asked["prompt_logprobs"]) == ("/v1/completions", 0)
            each = [{str(token): {"logprob": -token / 1000, "rank": 1}} for token in asked["prompt"]]
            reply = {"choices": [{"text": "", "prompt_logprobs": [None, *each[1:]]}]}
        content = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def url(tokenizer):
    Scoring.tokenizer = tokenizer
    server = ThreadingHTTPServer(("127.0.0.1", 0), Scoring)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_an_endpoint_scores_them_and_one_that_reads_the_tokens_otherwise_is_refused(
    tmp_path, rows, tokenizer, url, capsys
):
    found = make(tmp_path, teacher="big", endpoint=url)
    assert found[1]["target_log_probs"]["teacher"] == f"big at {url}"
    example = built(tokenizer, found[1])
    assert example.teacher_log_probs == pytest.approx([-token / 1000 for token in example.response_ids])
    arguments = [f"train={tmp_path / 'in.parquet'}", f"out={tmp_path / 'o'}", f"tokenizer={START_MODEL}"]
    assert main(["teacher_log_probs", *arguments, "teacher=other", f"endpoint={url}"]) == 2
    assert "must serve a teacher with the policy's own tokenizer" in capsys.readouterr().err
