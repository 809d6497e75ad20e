"""How rollouts are sampled as a run goes on: their longest length stage by stage, and their temperature.

AceReason-Nemotron 1.1 (arXiv 2506.13284): RL in stages of growing response length, at a temperature whose entropy, that
of the distribution at this temperature, stays near 0.3 nats. The paper chooses the temperature by hand; following the
entropy step by step is ours. Validation is not touched.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, isfinite

from mifo_verl.errors import is_number, require
from mifo_verl.method.part import Part
from mifo_verl.method.registry import Registry
from mifo_verl.types import Problem, Progress, RunFacts


class Sampling(Part):
    """What of an RL step's sampling is not ``actor_rollout_ref.rollout``'s own."""

    lengths: Sequence[int] = ()
    is_fixed: bool = False
    """Whether the temperature is the run's own throughout."""

    @property
    def follows_length(self) -> bool:
        return len(set(self.lengths)) > 1

    def max_tokens(self, progress: Progress) -> int | None:
        """The longest response of this step; None if it is ``data.max_response_length``."""
        return self.lengths[progress.stage(len(self.lengths))] if self.lengths else None

    def next_temperature(self, temperature: float, entropy: float) -> float:
        """The temperature of the next step, from that of this one and the entropy (nats a token) of its rollouts."""
        return temperature

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if max(self.lengths, default=0) > facts.response_tokens:
            rule = f"at most data.max_response_length={facts.response_tokens} each"
            yield self.problem("lengths", rule, "lower them, or raise that one")
        if facts.has_prefixes and (self.lengths or not self.is_fixed):
            rule = "fixed and without lengths where rollouts begin with given tokens, which count at temperature 1"
            yield Problem(self.setting("name"), self.name, rule, "use mifo/prefix=none, or mifo/sampling=fixed")


SAMPLINGS: Registry[Sampling] = Registry("mifo/sampling", Sampling)


@SAMPLINGS.register("fixed")
@dataclass(frozen=True)
class Fixed(Sampling):
    """The run's own temperature; each length holds in one of as many equal parts of the run."""

    lengths: Sequence[int] = ()
    is_fixed = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", tuple(self.lengths))
        whole = all(isinstance(one, int) and not isinstance(one, bool) and one >= 1 for one in self.lengths)
        rule = "a list of whole numbers of at least 1"
        require(whole, "lengths", list(self.lengths), rule, "each is a stage; one given twice is a stage twice as long")

    def describe(self) -> str:
        stages = f", at most {', '.join(map(str, self.lengths))} tokens by stage" if self.lengths else ""
        return f"the run's temperature{stages}"


@SAMPLINGS.register("by_entropy")
@dataclass(frozen=True)
class ByEntropy(Fixed):
    """T <- T exp(gain * (target - H) / target), the exponent at most the gain, T within [low, high].

    H is the mean over the sampled tokens of the entropy at T, in nats; it grows with T.
    """

    target: float = 0.3
    gain: float = 0.05
    low: float = 0.5
    high: float = 1.5
    is_fixed = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("target", "gain", "low"):
            value = getattr(self, name)
            require(is_number(value) and isfinite(value) and value > 0, name, value, "a number above 0", "correct it")
        in_order = is_number(self.high) and self.low <= self.high < float("inf")
        require(in_order, "high", self.high, f"a number of at least low={self.low:g}", "swap them")

    def next_temperature(self, temperature: float, entropy: float) -> float:
        if not isfinite(entropy):
            return temperature
        error = min(1.0, max(-1.0, (self.target - entropy) / self.target))
        return min(float(self.high), max(float(self.low), temperature * exp(self.gain * error)))

    def describe(self) -> str:
        stages = f", at most {', '.join(map(str, self.lengths))} tokens by stage" if self.lengths else ""
        return f"the temperature that keeps the entropy near {self.target:g} nats{stages}"
