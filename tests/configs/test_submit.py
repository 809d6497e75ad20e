"""launch/submit.sh: the overrides reach the training as they are, and what is wrong is said before anything is sent."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "launch" / "submit.sh"
ADDRESS = "http://head:8265"


def submit(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [str(SCRIPT), "--dry-run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": path})


def test_overrides_are_passed_on_as_they_are():
    overrides = ["experiment=mifo", "run_dir=/shared/run 0", "trainer.logger=[]", "name='a $b'", 'x="y"']
    sent = shlex.split(submit(ADDRESS, *overrides).stdout)
    assert sent[sent.index("--") + 1 :] == ["python", "-m", "mifo_verl.train", *overrides]
    assert sent[sent.index("--address") + 1] == ADDRESS
    assert "RAY_JOB_STOP_WAIT_TIME_S" in sent[sent.index("--runtime-env-json") + 1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "<address> must be given"),
        (["head:8265", "experiment=mifo"], "address=head:8265 must be http://"),
        ([ADDRESS], "an override must be given"),
        ([ADDRESS, "experiment=mifo", "run_dir=runs/0"], "run_dir=runs/0 must be an absolute path"),
    ],
)
def test_what_is_missing_is_said_in_one_line(arguments, said):
    done = submit(*arguments)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
