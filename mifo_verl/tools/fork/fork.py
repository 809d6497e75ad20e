"""``mifo analyze fork``: every arm of every checkpoint once, in one process a rank; then the table and the figure."""

import gc
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path

import msgspec

from mifo_verl.compose import composed_on
from mifo_verl.config import build_config
from mifo_verl.errors import require
from mifo_verl.tools.fork.page import write_page
from mifo_verl.tools.fork.plan import ALWAYS, Plan, plain, read_plan
from mifo_verl.tools.fork.records import Began, Line


def fork(arguments: Sequence[str]) -> None:
    """Run what is left of the arms, and write the table. Raises ValueError, before the first arm, on mistakes.

    A checkpoint of several ranks takes as many processes, which torchrun starts if this is none of them.
    """
    plan = read_plan(arguments)
    facts = next(iter(plan.checkpoints.values())).facts
    os.environ.update({name: str(value) for name, value in facts["config"]["env"].items()})
    if any(plan.left.values()) and facts["world_size"] > 1 and "WORLD_SIZE" not in os.environ:
        ranks = f"--nproc-per-node={facts['world_size']}"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", ranks, "-m", "mifo_verl.tools.fork"]
        if subprocess.run([*command, *arguments]).returncode:
            raise ValueError("a rank of the fork has failed; its error stands above")
        return
    for label, arms in plan.left.items():
        if arms:
            _run(plan, label)
    if os.environ.get("RANK", "0") == "0":
        write_page(plan.settings.out, plan.definition, plan.bed, f"mifo analyze fork {shlex.join(arguments)}")


def _run(plan: Plan, label: str) -> None:
    """The arms of one checkpoint that are left. Collective."""
    from mifo_verl.tools.fork.arm import begin, run_arm
    from mifo_verl.verl.local import LocalActor, be_a_rank

    be_a_rank()
    checkpoint = plan.checkpoints[label]
    (plan.settings.out / label).mkdir(parents=True, exist_ok=True)
    base = composed_on(checkpoint.facts["config"], [*ALWAYS, *plan.definition.overrides])
    with tempfile.TemporaryDirectory(dir=plan.settings.out, prefix=".model.") as scratch:
        prompts = next((arm.prompts for arm in plan.left[label] if arm.prompts), [])
        phase, asker = begin(plan, checkpoint, base, prompts, Path(scratch))
        gc.collect()
        for arm in plan.left[label]:
            model = arm.config.actor_rollout_ref.model
            is_adapter = bool(model.lora_rank) and not base.actor_rollout_ref.model.lora_rank
            if is_adapter:  # beside the checkpoint's weights, whose files have none
                model.path = str(asker.written(phase.start.weights))
            actor = LocalActor(arm.config, None if is_adapter else checkpoint.folder)
            if build_config(plain(arm.config.mifo)).keeps_start and not actor.has_start():
                rule = f"one with the start of its interval, which {arm.name} needs"
                require(False, "checkpoint", checkpoint.folder, rule, "make the run with mifo.probe.kl_to_start=true")
            began = Began(
                arm=arm.name,
                checkpoint=label,
                overrides=arm.overrides,
                key=arm.key,
                weights_sha256=actor.weights_sha256(),
                mask=actor.begin_sft(phase.interval),
            )
            _write(arm.file, chain([began], run_arm(actor, plain(arm.config.mifo), phase, asker)), actor.is_first)
            del actor
            gc.collect()  # what an engine holds ends with it: the next one needs the memory


def _write(file: Path, lines: Iterable[Line], is_first: bool) -> None:
    """The records of an arm, under their name once they are whole."""
    unfinished = file.with_name(f".{file.name}")
    with unfinished.open("wb") if is_first else nullcontext() as opened:
        for line in lines:
            if opened is not None:
                opened.write(msgspec.json.encode(line) + b"\n")
                opened.flush()
    if is_first:
        unfinished.rename(file)
        print(f"{file}: {getattr(line, 'seconds', 0.0):.1f} s", flush=True)
