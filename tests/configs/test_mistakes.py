"""What users get wrong is caught before anything starts: the corpus of tests/mistakes/, one test a file."""

import os
import subprocess
import sys

import pytest

from mifo_verl.checks.__main__ import main
from tests.configs.mistakes import FOLDER, Mistake, messages_of, named, overrides_of, read_all

CORPUS = read_all()


@pytest.mark.parametrize("mistake", CORPUS, ids=[mistake.name for mistake in CORPUS])
def test_a_mistake_is_named_with_its_cure(mistake, tmp_path):
    messages = messages_of(mistake, tmp_path / "run")
    found = named(mistake, messages)
    if mistake.caught:
        assert found, "\n".join(messages)
        assert "; " in found[0], "a message ends with its cure"
    else:
        assert not found, "caught now: say so in its file"


def test_what_is_right_has_no_error_and_no_warning(tmp_path):
    messages = messages_of(Mistake("right", "nothing", [], level="warning"), tmp_path / "run")
    assert [message for message in messages if "memory are there" not in message] == []


def test_at_least_95_of_100_mistakes_are_caught():
    assert len(CORPUS) >= 80
    assert sum(mistake.caught for mistake in CORPUS) >= 0.95 * len(CORPUS)


def test_no_file_of_the_corpus_says_the_same_as_another():
    wrong = [(m.overrides, m.train, m.model, m.reward, m.env) for m in CORPUS]
    assert all(wrong.count(one) == 1 for one in wrong)
    assert all(mistake.expect and mistake.kind for mistake in CORPUS)
    assert {file.suffix for file in FOLDER.iterdir()} == {".yaml"}


def said(text: str) -> list[str]:
    """The paragraphs that a check printed: a line that goes on is indented."""
    return [" ".join(line.split()) for line in text.replace("\n  ", " ").splitlines()]


@pytest.mark.parametrize("name", ["key_batchsize", "window", "reward_signature_of_trl"])
def test_the_check_says_it_and_ends_with_2(name, tmp_path, capsys, monkeypatch):
    mistake = next(mistake for mistake in CORPUS if mistake.name == name)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    assert main(overrides_of(mistake, tmp_path / "run")) == 2
    assert named(mistake, said("".join(capsys.readouterr())))


def test_the_command_line_says_it_and_exits_with_2(tmp_path):
    mistake = next(mistake for mistake in CORPUS if mistake.name == "special_token")
    command = [sys.executable, "-m", "mifo_verl.checks", *overrides_of(mistake, tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert named(mistake, said(done.stdout + done.stderr))
