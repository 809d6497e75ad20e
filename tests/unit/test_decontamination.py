"""An evaluation question is found whole or by 13 words in a row, whatever its punctuation, and nothing else is."""

import json
from pathlib import Path

import pytest

from mifo_verl.tools.prepare.decontamination import EvaluationSets, read_sets, words_of

LONG = "A train leaves the station at noon and travels north at sixty miles an hour for three hours."
SHORT = "What is $2^{10}$?"


def sets(*questions: str) -> EvaluationSets:
    made = EvaluationSets()
    made.add("test", questions)
    return made


def test_words_are_without_case_punctuation_and_latex_signs() -> None:
    assert words_of("The \\frac{1}{2} of\u00a0\uff21\uff22, “isn't”") == [
        "the",
        "frac",
        "1",
        "2",
        "of",
        "ab",
        "isn",
        "t",
    ]


@pytest.mark.parametrize(
    ("question", "found"),
    [
        (LONG, ("exact", "test")),
        (LONG.upper().replace(" ", "  ").replace(",", ";"), ("exact", "test")),
        ("Once more: " + LONG + " How far is it?", ("13-gram", "test")),
        ("Then A train leaves the station at noon and travels north at sixty miles. Or not", ("13-gram", "test")),
        ("Then A train leaves the station at noon and travels north at sixty. Or not", None),
        ("A train leaves the station at noon or travels north at sixty miles an hour for three hours.", None),
        (SHORT, ("exact", "test")),
        ("What is 2^10 (what?)", None),
        ("what is 2 10", ("exact", "test")),
        ("Tell me: " + SHORT, None),
        ("", None),
        ("???", None),
    ],
)
def test_what_is_found(question: str, found: tuple[str, str] | None) -> None:
    assert sets(LONG, SHORT, "", "?").find(question) == found


def test_thirteen_words_are_the_limit() -> None:
    words = list("abcdefghijklmn")
    assert sets(" ".join(words[:13])).find("x " + " ".join(words[:13]) + " y") == ("13-gram", "test")
    assert sets(" ".join(words[:12])).find("x " + " ".join(words[:12]) + " y") is None


def test_sets_are_read_from_every_schema_and_counted(tmp_path: Path) -> None:
    records = [
        {"question": "first one"},
        {"problem": "second one"},
        {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "third one"}]},
        {"prompt": "fourth one"},
        {"prompt": []},
    ]
    path = tmp_path / "aime24.test.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + "no json\n")
    found = read_sets([str(path)])
    assert found.num_questions == {"aime24": 4}
    assert [found.find(f"{name} ONE!") for name in ("first", "second", "third", "fourth", "fifth")] == [
        *[("exact", "aime24")] * 4,
        None,
    ]
    (tmp_path / "none.jsonl").write_text('{"text": "q"}\n')
    with pytest.raises(ValueError, match=r"decontaminate=.*none.jsonl must be a file with questions"):
        read_sets([str(tmp_path / "none.jsonl")])
