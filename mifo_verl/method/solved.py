"""The training prompts that the policy has solved, most recent last: what an SFT phase may make it forget."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from mifo_verl.errors import exact_share
from mifo_verl.types import PromptGroup, Share


@dataclass
class SolvedPrompts:
    """At most ``size`` ids of prompts whose newest rollouts were solved: a share of at least ``min_accuracy``."""

    size: int
    min_accuracy: Share = 1
    ids: list[str] = field(default_factory=list)

    def see(self, groups: Iterable[PromptGroup]) -> None:
        """Take finished groups in; the newest rollouts of a prompt decide."""
        least = exact_share("solved_accuracy", self.min_accuracy)
        for group in groups:
            if group.prompt_id in self.ids:
                self.ids.remove(group.prompt_id)
            if group.num_rollouts and group.num_correct >= least * group.num_rollouts:
                self.ids.append(group.prompt_id)
        del self.ids[: max(0, len(self.ids) - self.size)]
