"""A training on a Ray cluster of two raylets, submitted, stopped and resumed: ``python -m tests.cluster [out=<folder>]``.

Both raylets are this machine's, each with one logical GPU; ``trainer.nnodes=2``. About three minutes. Prints what was done and
how it ended; exit code 1 where the run that was stopped does not end with the bits of the one that was not.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.faults.__main__ import REPOSITORY, RUN, difference, trace

PORT, DASHBOARD, AGENT = 46379, 48265, 48266
ADDRESS = f"http://127.0.0.1:{DASHBOARD}"
RAY = str(Path(sys.executable).parent / "ray")
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
SHORT = ["trainer.total_training_steps=4", "data.val_max_samples=8", "mifo.probe.around_sft=false"]
FILES = {"train": "train", "val": "validation"}
SIZE = ["trainer.nnodes=2", "trainer.n_gpus_per_node=1", "actor_rollout_ref.rollout.tensor_model_parallel_size=2"]


def say(command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env=ENVIRONMENT | more, timeout=900)
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    print(f"{time.strftime('%H:%M:%S')} exit code {done.returncode}: {lines[-1] if lines else ''}", flush=True)
    return done


def submit(folder: Path, *options: str, size: list[str] = SIZE, **more: str) -> subprocess.CompletedProcess[str]:
    print(f"launch/submit.sh {' '.join(options)} ... {' '.join(size)} run_dir={folder}", flush=True)
    data = [f"data.{split}_files={folder.parent}/data/{name}.parquet" for split, name in FILES.items()]
    overrides = ["trainer.resume_mode=auto", *size, *data, f"run_dir={folder}"]
    return say(["launch/submit.sh", *options, ADDRESS, *RUN, *SHORT, *overrides], **more)


def start(temporary: Path) -> None:
    own = ["--num-cpus=10", "--num-gpus=1", "--disable-usage-stats"]
    head = ["--head", f"--port={PORT}", f"--dashboard-port={DASHBOARD}", f"--dashboard-agent-listen-port={AGENT}"]
    for options in ([*head, f"--temp-dir={temporary}"], [f"--address=127.0.0.1:{PORT}"]):
        done = say([RAY, "start", *options, *own], RAY_AUTH_MODE="token", RAY_enable_worker_prestart="0")
        assert done.returncode == 0, done.stdout + done.stderr


def end(temporary: Path) -> None:
    """End what belongs to this cluster alone."""
    words = (str(temporary), f"127.0.0.1:{PORT}")
    left = [p for p in psutil.process_iter() if p.pid != os.getpid() and any(w in " ".join(_words(p)) for w in words)]
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=30)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def main(arguments: list[str]) -> int:
    out = Path(dict(argument.split("=", 1) for argument in arguments).get("out", "runs/cluster")).absolute()
    shutil.rmtree(out, ignore_errors=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the cluster is ended
    temporary = Path(f"/tmp/ray-two-{os.getpid()}")  # Ray's sockets need a short path
    try:
        assert say([sys.executable, "-m", "mifo_verl.tools.prepare", "addition", f"out={out / 'data'}"]).returncode == 0
        start(temporary)
        assert submit(out / "whole", size=["trainer.nnodes=3", "trainer.n_gpus_per_node=1"]).returncode == 2
        assert submit(out / "whole", RAY_AUTH_MODE="disabled").returncode == 2
        assert submit(out / "whole").returncode == 0
        job = re.findall(r"raysubmit_\w+", submit(out / "stopped", "--no-wait").stdout)[0]
        metrics = out / "stopped" / "metrics.jsonl"
        while not metrics.exists() or metrics.read_text().count('"rl"') < 2:
            time.sleep(0.2)
        print(f"ray job stop {job}", flush=True)
        say([RAY, "job", "stop", "--address", ADDRESS, job], RAY_AUTH_MODE="token")
        print((out / "stopped" / "events.jsonl").read_text(), flush=True)
        assert submit(out / "stopped").returncode == 0
        differs = difference(trace(out / "stopped"), trace(out / "whole"))
    finally:
        end(temporary)
    print(f"the run that was stopped differs in {differs}" if differs else "bit-identical")
    return 1 if differs else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
