"""RL for some steps, then every method's own objective from the same weights: who keeps what RL has learned?

Each seed has one RL run, and every method goes on from its weights with a new optimizer, the same for all.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace

from mifo_verl.compose import ConfigError
from mifo_verl.tools.sweep.__main__ import Request, request, show_plan, sweep
from mifo_verl.tools.sweep.check import check_arms
from mifo_verl.tools.sweep.definition import Definition
from mifo_verl.tools.sweep.plan import plan
from mifo_verl.tools.sweep.run import TRAIN
from mifo_verl.verl.merge import merged_folder

RL = "rl"


def forgetting(arguments: list[str], train: Sequence[str] = TRAIN) -> int:
    """Both stages under one sweep_dir; returns the exit code. Raises ConfigError, before the first run, on mistakes."""
    steps = {"rl_steps": "50", "steps": "10"}
    rest = []
    for given in arguments:
        name, equals, value = given.partition("=")
        if equals and name in steps:
            steps[name] = value
        else:
            rest.append(given)
    for name, value in steps.items():
        if not value.isdigit() or value == "0":
            raise ConfigError(f"{name}={value} must be a whole number of at least 1; the paper has 50 and 10")
    asked = request([*rest, "sweep=forgetting"])
    command = shlex.join(["python", "-m", "mifo_verl.tools.analyze", "forgetting", *arguments])
    first = _first_stage(asked, steps["rl_steps"])
    after = replace(
        asked,
        overrides=[*asked.overrides, f"trainer.total_training_steps={steps['steps']}"],
        sweep_dir=asked.sweep_dir / "after",
        command=command,
    )
    check_arms(plan(after.definition, after.overrides, after.sweep_dir))  # on the start's weights: there are no others
    model = f"{first.sweep_dir.absolute()}/{RL}-seed${{seed}}/model"
    after = replace(after, overrides=[*after.overrides, f"actor_rollout_ref.model.path={model}"])
    code = sweep(first, train)
    if asked.only_plan:
        show_plan(plan(after.definition, after.overrides, after.sweep_dir))
    if code or asked.only_plan:
        return code
    _merge(first, steps["rl_steps"])
    return sweep(after, train)


def _first_stage(asked: Request, rl_steps: str) -> Request:
    definition = Definition("RL before", asked.definition.overrides, {RL: ["method=rl_only"]})
    lengths = [f"trainer.total_training_steps={rl_steps}", f"trainer.save_freq={rl_steps}"]
    return replace(
        asked,
        definition=definition,
        overrides=[*asked.overrides, *lengths],
        sweep_dir=asked.sweep_dir / "before",
    )


def _merge(first: Request, rl_steps: str) -> None:
    """``model`` in every run's folder: the weights after RL, in float32."""
    for run in plan(first.definition, first.overrides, first.sweep_dir):
        model = run.folder / "model"
        if model.exists():
            continue
        try:
            merged = merged_folder(run.folder / "checkpoints" / f"global_step_{rl_steps}", "float32")
        except ValueError as error:
            raise ConfigError(str(error)) from None
        model.symlink_to(merged.absolute(), target_is_directory=True)


def main(arguments: list[str]) -> int:
    """``analyze forgetting``; returns the exit code."""
    try:
        return forgetting(arguments)
    except ConfigError as error:
        for line in error.errors:
            print(f"error: {line}", file=sys.stderr)
        return 2
