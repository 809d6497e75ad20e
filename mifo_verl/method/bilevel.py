"""BRIDGE: SFT as the upper, RL as the lower level of one problem (arXiv 2509.06948): (8), (11) and Algorithm 2.

theta are the base weights and w is a LoRA adapter on them; the policy is both. theta-hat is a second copy of the base
weights, which RL alone trains beside the same w: how far it gets without SFT is what w is measured against. In every
update all gradients are taken at (theta, w, theta-hat) of step k, and then all three move, at rate a or b:

    theta     += a [(1 - lambda) dJ_SFT(theta, w)/dtheta + lambda dJ_RL(theta, w)/dtheta]                            (8)
    theta-hat += a dJ_RL(theta-hat, w)/dtheta-hat                                                 Algorithm 2, line 13
    w         += b {(1 - lambda) dJ_SFT(theta, w)/dw + lambda [dJ_RL(theta, w)/dw - dJ_RL(theta-hat, w)/dw]}        (11)

The paper leaves open, and here is: theta-hat scores the rollouts of (theta, w), it makes none; AdamW, its settings and
the clip norm are the run's for all three, each clipped by its own norm; a = actor_rollout_ref.actor.optim.lr.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from mifo_verl.errors import is_number, require, require_choice, require_whole
from mifo_verl.method.mixing import DEMONSTRATIONS, MIXINGS, Mixing, Update, Weights
from mifo_verl.types import Cost, Problem, Progress, RunFacts


@MIXINGS.register("bilevel")
@dataclass(frozen=True)
class Bilevel(Mixing):
    """lambda RL + (1 - lambda) SFT for the base weights; for the adapter, what it gains over RL alone.

    lambda goes from ``lambda_start`` to ``lambda_end`` in a straight line over ``lambda_steps`` steps. At 1 theta is
    that of plain RL and w stays inert; at 0 theta-hat is not computed.
    """

    lambda_start: float = 0.5
    lambda_end: float = 0.5
    lambda_steps: int = 0
    adapter_lr: float | None = None
    """b, constant up to the run's schedule; a if None."""
    auxiliary: str = "tracked"
    """theta-hat is ``tracked`` over the run (Algorithm 2), or ``one_step`` of RL from the theta of now (10)."""
    anchor: str = "behaviour"
    """The denominator of theta-hat's ratio: the policy that made the rollouts, or theta-hat's ``own``, ratio 1."""
    demonstrations: str = "questions"
    """The SFT batch: the demonstrations of the step's ``questions``, or as many others of the ``dataset``."""
    offload: bool = False
    """Whether theta-hat and its moments wait in host memory."""

    def __post_init__(self) -> None:
        for name in ("lambda_start", "lambda_end"):
            value = getattr(self, name)
            require(
                is_number(value) and 0 <= value <= 1, name, value, "in [0, 1]", "lambda is the share of the RL loss"
            )
        require_whole("lambda_steps", self.lambda_steps, "it counts steps, and 0 has lambda_end from the first")
        lr = self.adapter_lr
        is_rate = lr is None or (is_number(lr) and 0 <= lr < math.inf)
        require(is_rate, "adapter_lr", lr, "a number of at least 0, or null", "null takes the base weights' rate")
        require_choice("auxiliary", self.auxiliary, ("tracked", "one_step"))
        require_choice("anchor", self.anchor, ("behaviour", "own"))
        require_choice("demonstrations", self.demonstrations, DEMONSTRATIONS)
        require(isinstance(self.offload, bool), "offload", self.offload, "true or false", "false is faster")

    def __call__(self, progress: Progress) -> Weights:
        """(lambda, 1 - lambda): the two weights of (8), and of (11) without its last term."""
        done = min(1.0, progress.step / self.lambda_steps) if self.lambda_steps else 1.0
        rl = self.lambda_start + (self.lambda_end - self.lambda_start) * done
        return Weights(rl=rl, sft=1.0 - rl)

    def gradients(self, update: Update, rl_weight: float) -> None:
        """Algorithm 2 up to where the weights move: all gradients of one update, at the same theta, w and theta-hat."""
        if not rl_weight:  # nothing of (8) and (11) reads theta-hat
            update.both_losses()
            return
        is_tracked, is_own = self.auxiliary == "tracked", self.anchor == "own"
        # dJ_RL(theta-hat, w)/dw, the last term of (11); theta-hat keeps its own gradient for line 13
        at_auxiliary = update.rl_at_second_policy(is_own) if is_tracked else update.rl_one_step_ahead(is_own)
        update.both_losses()  # (8) as a whole, and of (11) all but its last term
        subtract_auxiliary_(update.adapter_gradients(), at_auxiliary, rl_weight)  # (11)

    @property
    def needs(self) -> frozenset[str]:
        needs = frozenset({"trainable_base"})
        return needs | {"second_policy"} if self.auxiliary == "tracked" else needs

    @property
    def extra_trainings(self) -> int:
        """theta-hat's pass, or theta's and the one of the step ahead."""
        return 1 if self.auxiliary == "tracked" else 2

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        yield from super().problems(facts)
        actor, name = "actor_rollout_ref.actor", self.setting("name")
        if not facts.lora_rank:
            rule = "above 0, because w of BRIDGE is a LoRA adapter"
            yield Problem("actor_rollout_ref.model.lora_rank", 0, rule, "use method=bridge, which sets 16")
        if facts.epochs > 1:
            rule = "1, because theta-hat is compared with theta at the same rollouts, on which both are new"
            yield Problem(f"{actor}.ppo_epochs", facts.epochs, rule, "leave it out")
        if facts.has_critic:
            rule = "beside an algorithm without a critic, whose values would be of theta and not of theta-hat"
            yield Problem(name, self.name, rule, "choose rl=dr_grpo, rl=grpo or rl=dapo")
        if facts.weights_dtype not in ("fp32", "float32"):
            setting = f"{actor}.fsdp_config.model_dtype"
            rule = "fp32, because steps of 5e-7 vanish in bf16 weights"
            yield Problem(setting, facts.weights_dtype, rule, f"use {setting}=fp32")
        if facts.has_prefixes and self.anchor == "own":
            yield self.problem("anchor", "behaviour where rollouts begin with given tokens", "use mifo/prefix=none")

    def costs(self, facts: RunFacts) -> Iterable[Cost]:
        """What theta-hat and its AdamW hold; the step ahead copies theta and its moments for one update."""
        everywhere = ("rollout", "rl", "sft")
        if self.auxiliary == "one_step":
            yield Cost("theta before the step ahead", 12, ("rl",), "12N/W")
            return
        on_host = 12 if self.offload else 0
        phases = ("rl",) if self.offload else everywhere
        yield Cost("second policy and its moments", 12, phases, "12N/W", saved_bytes=12, host_bytes=on_host)
        yield Cost("second policy's gradient", 4, ("rl",), "4N/W")

    def describe(self) -> str:
        share = f"{self.lambda_end:g}"
        if self.lambda_steps and self.lambda_start != self.lambda_end:
            share = f"{self.lambda_start:g} to {self.lambda_end:g} over {self.lambda_steps} steps"
        return f"BRIDGE, lambda {share}, theta-hat {self.auxiliary}"


def subtract_auxiliary_(adapter: Sequence[Tensor], at_auxiliary: Sequence[Tensor], rl_weight: float) -> None:
    """The last term of (11), into the gradients of w: minus lambda times those at theta-hat.

    At theta-hat = theta and lambda = 1 what is left is exactly 0.
    """
    for gradient, other in zip(adapter, at_auxiliary, strict=True):
        gradient.sub_(other, alpha=rl_weight)
