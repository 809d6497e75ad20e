"""Kills of six kinds, each at another point of the run: it ends as if it had never been killed. All: make kill-test."""

import json

from tests.faults.__main__ import main

KILLS = [
    "reward:5",  # a reward worker
    "reward:40::STOP",  # it is there and never answers again
    "hard_prompts:2",  # the controller
    "sft_forward:2:ray_head",
    "checkpoint_file:2",  # a rank, half a file written
    "sft_forward:1:driver:TERM",  # asked to stop in the first update of an SFT phase
]


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(whole_run):
    out = whole_run.parent
    code = main([f"kills={len(KILLS)}", f"out={out}", f"points={','.join(KILLS)}"])
    table = {row["point"]: (row["outcome"], row["count"]) for row in json.loads((out / "table.json").read_text())}
    assert table == {point: ("bit-identical", 1) for point in KILLS}
    assert code == 0
    events = [json.loads(line) for file in out.glob("*/events.jsonl") for line in file.read_text().splitlines()]
    said = [
        event["text"] for event in events if event["kind"] in ("stopped", "failed") and "is stopped" in event["text"]
    ]
    assert len(said) == 2 and all("reward worker 0 has not answered for" in text for text in said)
    resumed = [event["text"] for event in events if event["kind"] == "resumed"]
    assert any("inside the SFT phase of step" in text and "after 1 updates" in text for text in resumed)
