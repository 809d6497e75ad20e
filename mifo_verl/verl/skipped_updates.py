"""How many updates in a row an engine has skipped: verl skips one whose gradient is not finite, and prints it only."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from tensordict import TensorDict

from mifo_verl.run.watchdog import CannotGoOn

MAX_SKIPPED = "max_skipped_updates"
"""Metric of an update: updates skipped in a row up to it, itself included. By its name verl takes the maximum over the
mini-batches of a step."""


class SkippedUpdatesMixin:
    """An engine that counts them, over steps and phases."""

    _skipped = 0

    def train_batch(self, data: TensorDict, loss_function: Callable) -> Any:
        """verl's update, with the count among its metrics."""
        outputs = super().train_batch(data, loss_function)  # type: ignore[misc]
        metrics = outputs["metrics"]
        if "grad_norm" in metrics:
            self._skipped = 0 if math.isfinite(metrics["grad_norm"]) else self._skipped + 1
            metrics[MAX_SKIPPED] = [self._skipped]  # a list, as verl expects of what every micro-batch may add to
        return outputs


def require_updates(metrics: Mapping[str, Any], limit: int) -> None:
    """Raise CannotGoOn if more updates in a row than ``limit`` were skipped, of the actor or of the critic."""
    skipped = max(metrics.get(f"{part}/{MAX_SKIPPED}", 0) for part in ("actor", "critic", "mifo/sft"))
    if skipped > limit:
        raise CannotGoOn(
            f"the gradients of {skipped:g} updates in a row were not finite, and all were skipped "
            f"(mifo.watchdog.max_skipped_updates={limit}); "
            "resume from a checkpoint before, with a lower learning rate"
        )
