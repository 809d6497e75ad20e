"""The command ``mifo``: its help answers at once and imports nothing heavy; the old names say the new line."""

import os
import resource
import runpy
import subprocess
import sys
from functools import cache

import pytest

from mifo_verl.cli import COMMANDS

HEAVY = ("torch", "ray", "verl", "transformers", "pandas", "plotly", "scipy", "openai")
WITHOUT_HEAVY = f"""
import sys
for name in {HEAVY}:
    sys.modules[name] = None  # an import of it raises ImportError
sys.argv[0] = "mifo"
from mifo_verl.cli import main
main()
"""
OLD = {
    "check": "check",
    "report": "report",
    "ledger": "ledger",
    "inspect": "inspect",
    "analyze": "analyze",
    "evaluate": "evaluate",
    "sweep": "sweep",
    "data": "data",
    "demonstrations": "demonstrations",
    "rewards": "score",
    "stacks": "stacks",
}


def run(*command: str) -> tuple[subprocess.CompletedProcess, float]:
    """The process that has ended, and its seconds of CPU."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=os.environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_the_commands_are_these():
    assert list(COMMANDS) == [
        "train", "check", "methods", "report", "ledger", "inspect", "analyze", "evaluate", "compare", "sweep", "data", "demonstrations",
        "score", "stacks", "export",
    ]  # fmt: skip


def test_the_help_says_how_a_stopped_run_goes_on_in_the_width_of_a_terminal():
    lines = run("-m", "mifo_verl.cli", "--help")[0].stdout.splitlines()
    assert "  train           train a model, or go on (trainer.resume_mode=auto)" in lines


@cache
def help_of(name: str) -> tuple[subprocess.CompletedProcess, float]:
    return run("-c", WITHOUT_HEAVY, name, "--help")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_answers_within_a_second_and_imports_nothing_heavy(name):
    done, seconds = help_of(name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    assert seconds < 1


@pytest.mark.parametrize("name", ["train", "check", "sweep"])
def test_a_command_that_takes_a_runs_settings_lists_what_can_be_chosen(name):
    lines = help_of(name)[0].stdout.splitlines()
    listed = lines[lines.index("choices, as <group>=<name>:") + 1 :]
    chosen = {group.strip(): names.strip().split(", ") for group, _, names in (line.partition("=") for line in listed)}
    assert {"mifo", "rl_only"} <= set(chosen["method"]) and "quickstart" in chosen["experiment"]
    assert {"when_full", "every", "never"} <= set(chosen["mifo/schedule"])


def test_without_a_command_it_lists_them_and_an_unknown_one_is_refused():
    listed = run("-m", "mifo_verl.cli")[0]
    assert all(f"\n  {name} " in listed.stdout + listed.stderr for name in COMMANDS)
    unknown = run("-m", "mifo_verl.cli", "trian")[0]
    assert unknown.returncode == 2 and "trian" in unknown.stderr


def test_arguments_and_exit_codes_go_through():
    refused = run("-m", "mifo_verl.cli", "ledger", "nowhere")[0]
    assert refused.returncode == 2 and "nowhere" in refused.stderr


@pytest.mark.parametrize("old", OLD)
def test_an_old_name_works_and_says_the_new_line(old, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [old, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"mifo_verl.{old}", run_name="__main__", alter_sys=True)  # python -m
    said = capsys.readouterr()
    assert not ended.value.code and said.out.startswith("usage: ")
    assert said.err == f"python -m mifo_verl.{old} is now: mifo {OLD[old]}\n"
