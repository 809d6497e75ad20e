"""The base of every part: what it needs, how it fits, what it costs and how it is described, as data on itself.

A part is a frozen dataclass, one member of one group (``mifo/<group>``), and is called as its group's file says. The
plumbing knows no member: it gives what ``needs`` states, asks ``problems`` before a run and prints ``describe``.
"""

from collections.abc import Collection, Iterable
from dataclasses import fields
from typing import ClassVar

from mifo_verl.types import Cost, Problem, RunFacts

OWN_ROLLOUTS, OWN_LOG_PROB, OWN_KL = "own_rollouts", "own_log_prob_before", "own_kl_from_before"


class Part:
    """The base of the bases; a member derives from the base of its group."""

    group: ClassVar[str] = ""
    """The Hydra group, such as ``mifo/gate``; set by ``Registry.register``."""
    name: ClassVar[str] = ""
    """The member's name in it; set by ``Registry.register``."""

    @property
    def needs(self) -> frozenset[str]:
        """What the part is given only if it asks for it.

        ``start``: theta_start, the weights at the start of the interval. ``history``: an importance history between
        intervals. ``second_moment``: that of RL's AdamW. ``entropy``, ``top_mass:K``, ``top_entropy:K``: facts of a
        token. ``progress``: the share of the run's steps that are finished. ``teacher_log_prob``: a column of the data.
        ``kl_to_before``, ``kl_from_before``: the KL of the policy to the one before the SFT phase, live; of that one to
        the policy. ``log_prob_before``: log p of the demonstration's tokens by that one. ``trainable_base``: base
        weights that train beside a LoRA adapter. ``second_policy``: a second copy of these, with an optimizer, beside
        the same adapter. ``demonstrations``: a verified demonstration of every question. ``own_rollouts``: some of the
        interval's correct rollouts in every SFT update; ``own_log_prob_before``, ``own_kl_from_before``: facts of their
        tokens. ``given``, ``first``, ``correct``: marks of a rollout, for the rules of the RL loss.
        """
        return frozenset()

    @property
    def follows_length(self) -> bool:
        """Whether what it does depends on the share of the run that is over, and so on how long the run is."""
        return "progress" in self.needs

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        """What does not fit between this part and the run around it."""
        return ()

    def costs(self, facts: RunFacts) -> Iterable[Cost]:
        """What the part keeps on the device and in a checkpoint."""
        return ()

    def describe(self) -> str:
        """The part in a few words, for the report and the display; the name and the settings, if it has no better."""
        settings = ", ".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))  # type: ignore[arg-type]
        return f"{self.name} ({settings})" if settings else self.name

    def not_given(self, facts: Collection[str]) -> Iterable[Problem]:
        """What the part needs beside these facts, which are all that it is given."""
        for name in sorted(self.needs - set(facts)):
            rule = f"a part whose needs are {' or '.join(facts)}"
            yield Problem(self.group.replace("/", "."), f"{self.name} (needs {name})", rule, "correct its needs")

    def setting(self, field: str) -> str:
        """The full name of one of its settings: ``mifo.schedule.size``."""
        return f"{self.group.replace('/', '.')}.{field}"

    def problem(self, field: str, rule: str, cure: str, is_error: bool = True) -> Problem:
        """A problem of one of its own settings."""
        return Problem(self.setting(field), getattr(self, field), rule, cure, is_error)
