"""Hard prompts: acc(q) <= p (MIFO section 3, step 2; the text's <=, not the pseudocode's <)."""

from dataclasses import dataclass
from typing import Protocol

from mifo_verl.registry import Registry
from mifo_verl.types import PromptGroup, Share, exact_share


class PromptSelector(Protocol):
    """Whether a prompt joins the SFT buffer."""

    def __call__(self, group: PromptGroup) -> bool: ...


PROMPT_SELECTORS: Registry[PromptSelector] = Registry("mifo/prompt_selector")


@PROMPT_SELECTORS.register("max_accuracy")
@dataclass(frozen=True)
class MaxAccuracy:
    """num_correct / num_rollouts <= p, compared as integers. p = 0 is ReLIFT's rule: no rollout is correct."""

    max_accuracy: Share = "1/8"

    def __post_init__(self) -> None:
        exact_share("max_accuracy", self.max_accuracy)

    def __call__(self, group: PromptGroup) -> bool:
        p = exact_share("max_accuracy", self.max_accuracy)
        return group.num_correct * p.denominator <= p.numerator * group.num_rollouts


@PROMPT_SELECTORS.register("any")
@dataclass(frozen=True)
class AnyPrompt:
    """Every prompt, whatever its accuracy."""

    def __call__(self, group: PromptGroup) -> bool:
        return True
