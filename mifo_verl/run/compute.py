"""The compute of a training, estimated: formulas, nothing else.

A token costs 2N floating-point operations in a forward pass and 6N in one with gradient (Kaplan et al. 2020, section
2.1). N counts the weights that multiply: all but the embedding, which is looked up, unless the same matrix is the
output head too. Not counted: attention, 4 * layers * c * width to a token with c before it (of its 2N 5 % at the end of
a sequence of the quick start; 4 * 28 * 8192 * 1536 / 3.08e9 = 46 % at 8,192 tokens of Qwen2.5-1.5B, N = 1.54e9); what
gradient checkpointing computes twice; and what only measures (validation, probes, the KL to the interval's start).
Generation is counted as one forward pass over prompt and response of every rollout that a server was asked for; a
prefix that it goes on from is read as a prompt is.
"""

from collections.abc import Iterable
from dataclasses import dataclass

FORWARD, TRAIN = 2, 6
"""Operations a weight and token."""


@dataclass(frozen=True)
class RlCost:
    """How often an RL step of this config passes over the tokens that it trains on."""

    num_weights: int
    """N."""
    forwards: int
    """Passes without gradient beside the rollout: old log-probs, reference, values. A critic counts as the actor."""
    trainings: int
    """Passes with gradient of the policy: its epochs over the batch."""
    critic_trainings: int = 0
    extra_trainings: int = 0
    """Those of the mixing, such as a second policy's."""

    def flops(self, trained_tokens: int, generated_tokens: int, trains: bool = True) -> int:
        """Of one step; both counts are of prompts and responses, the second one of all rollouts made.

        Unless it ``trains``, the RL loss has weight 0: its passes have no gradient, and a mixing makes none of its own.
        """
        training = TRAIN * (self.trainings + self.extra_trainings) if trains else FORWARD * self.trainings
        passes = FORWARD * self.forwards + TRAIN * self.critic_trainings + training
        return self.num_weights * (FORWARD * generated_tokens + passes * trained_tokens)

    def of_step(
        self,
        tokens: int,
        response_tokens: int,
        num_trained: int,
        num_discarded: int,
        unasked_tokens: int = 0,
        trains: bool = True,
    ) -> tuple[int, int]:
        """(response tokens generated, FLOPs) of a step whose ``num_trained`` rollouts have so many tokens.

        Rollouts that were made and not trained on (DAPO's) count with the batch's mean length. ``unasked_tokens`` are
        prompts and responses of rollouts that no server was asked for: demonstrations in their place.
        """
        made = (num_trained + num_discarded) / num_trained if num_trained else 0.0
        generated = round(tokens * made) - unasked_tokens
        return round(response_tokens * made), self.flops(tokens, generated, trains)


def sft_flops(num_weights: int, tokens: int, forwards: int = 0) -> int:
    """Of one SFT update over so many tokens of prompts and demonstrations, in the loss or not.

    ``forwards`` are its passes without gradient, to the policy that a constraint holds it to.
    """
    return (TRAIN + FORWARD * forwards) * num_weights * tokens


def multiplying_weights(sizes: Iterable[tuple[str, int]]) -> int:
    """N from (kind of matrix, coordinates) of every parameter, a tied one given once."""
    held = list(sizes)
    has_head = any(kind == "head" for kind, _ in held)
    return sum(size for kind, size in held if not (has_head and kind == "embedding"))
