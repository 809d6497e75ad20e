"""RL for some steps, then every method's own objective from the same weights: who keeps what RL has learned?

Each seed has one RL run, and every method goes on from its weights with a new optimizer, the same for all.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mifo_verl.errors import require_count
from mifo_verl.tools.command_line import take
from mifo_verl.tools.sweep.definition import Definition
from mifo_verl.tools.sweep.plan import plan
from mifo_verl.tools.sweep.run import TRAIN, check_arms
from mifo_verl.tools.sweep.sweep import request, show_plan, sweep

RL = "rl"


@dataclass(frozen=True)
class Settings:
    """The lengths of both stages, in training steps."""

    rl_steps: int = 50
    steps: int = 10

    def __post_init__(self) -> None:
        require_count("rl_steps", self.rl_steps, "the paper has 50")
        require_count("steps", self.steps, "the paper has 10")


def forgetting(
    arguments: Sequence[str], train: Sequence[str] = TRAIN, merge: Callable[[Path, str], Path] | None = None
) -> int:
    """Both stages under one sweep_dir; returns the exit code. Raises ValueError, before the first run, on mistakes.

    ``merge``: from a checkpoint and a dtype to the Hugging Face folder of its weights.
    """
    own, rest = take(Settings, arguments)
    command = f"mifo analyze forgetting {shlex.join(arguments)}"
    asked = replace(request([*rest, "sweep=forgetting"]), command=command)
    first = replace(
        asked,
        definition=Definition("RL before", asked.definition.overrides, {RL: ["method=rl_only"]}),
        overrides=[
            *asked.overrides,
            f"trainer.total_training_steps={own.rl_steps}",
            f"trainer.save_freq={own.rl_steps}",
        ],
        sweep_dir=asked.sweep_dir / "before",
    )
    lengths = [*asked.overrides, f"trainer.total_training_steps={own.steps}"]
    after = replace(asked, overrides=lengths, sweep_dir=asked.sweep_dir / "after")
    check_arms(plan(after.definition, after.overrides, after.sweep_dir))  # on the start's weights: there are no others
    model = f"{first.sweep_dir.absolute()}/{RL}-seed${{seed}}/model"
    after = replace(after, overrides=[*lengths, f"actor_rollout_ref.model.path={model}"])
    code = sweep(first, train)
    if asked.only_plan:
        show_plan(plan(after.definition, after.overrides, after.sweep_dir))
    if code or asked.only_plan:
        return code
    for run in plan(first.definition, first.overrides, first.sweep_dir):
        link = run.folder / "model"  # the weights after RL, in float32
        if not link.exists():
            merged = (merge or _merged_folder)(run.folder / "checkpoints" / f"global_step_{own.rl_steps}", "float32")
            link.symlink_to(merged.absolute(), target_is_directory=True)
    return sweep(after, train)


def _merged_folder(checkpoint: Path, dtype: str) -> Path:
    from mifo_verl.verl.merge import merged_folder

    return merged_folder(checkpoint, dtype)
