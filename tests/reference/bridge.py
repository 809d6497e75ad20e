"""BRIDGE in plain torch, written from the paper alone: what the engine is compared with. arXiv 2509.06948.

One process, whole copies of theta, theta-hat and w, one sequence at a time. Imports nothing of mifo_verl and nothing of
verl. The adapter is in the weights of every forward pass: W + (alpha / r) B A. J_RL is Dr.GRPO's: the clipped ratio with
the dual clip, an entropy bonus, sums over tokens over a constant. Equation numbers are those of the paper.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]
Rollout = tuple[Sequence[int], Sequence[int], float]
"""Prompt, response and advantage."""
Demonstration = tuple[Sequence[int], Sequence[int]]


@dataclass(frozen=True)
class Settings:
    """The numbers of a run."""

    share: float
    """lambda."""
    a: float
    b: float
    scaling: float
    """alpha / r."""
    constant: float
    """What Dr.GRPO divides the sum over tokens by."""
    entropy: float
    max_norm: float
    weight_decay: float
    eps: float
    clip: float = 0.2
    dual_clip: float = 3.0
    auxiliary: str = "tracked"
    anchor: str = "behaviour"


class Adam:
    """AdamW with a clip norm of its own, over named weights."""

    def __init__(self, lr: float, settings: Settings) -> None:
        self.lr, self.s, self.norm, self.steps = lr, settings, 0.0, 0
        self.first: Weights = {}
        self.second: Weights = {}

    def moved(self, weights: Weights, gradient: Weights, keep: bool = True) -> Weights:
        """The weights after a step; the state is left as it was unless it is kept."""
        self.norm = float(sum(g.double().square().sum() for g in gradient.values()).sqrt())  # type: ignore[union-attr]
        factor, steps = min(1.0, self.s.max_norm / (self.norm + 1e-6)), self.steps + 1
        new, first, second = {}, {}, {}
        for name, weight in weights.items():
            g = gradient[name] * factor
            first[name] = 0.9 * self.first.get(name, torch.zeros_like(g)) + 0.1 * g
            second[name] = 0.999 * self.second.get(name, torch.zeros_like(g)) + 0.001 * g * g
            step = first[name] / (1 - 0.9**steps) / ((second[name] / (1 - 0.999**steps)).sqrt() + self.s.eps)
            new[name] = weight * (1 - self.lr * self.s.weight_decay) - self.lr * step
        if keep:
            self.first, self.second, self.steps = first, second, steps
        return new


@dataclass
class Bridge:
    """theta, theta-hat and w. ``w`` has ``<name>.A`` (r, in) and ``<name>.B`` (out, r) for a weight ``<name>``."""

    model: nn.Module
    theta: Weights
    w: Weights
    s: Settings
    hat: Weights = field(init=False)
    gain: float = 0.0
    """J_RL(theta, w) - J_RL(theta-hat, w) of the last update."""

    def __post_init__(self) -> None:
        self.hat = dict(self.theta)
        self.of_theta, self.of_hat = Adam(self.s.a, self.s), Adam(self.s.a, self.s)
        self.of_w = Adam(self.s.b, self.s)

    def update(self, rollouts: Sequence[Rollout], demonstrations: Sequence[Demonstration]) -> None:
        """Algorithm 2, one step: all gradients at theta, theta-hat and w of now, then all three move."""
        old = [self.log_probs(self.theta, self.w, prompt, response)[0].detach() for prompt, response, _ in rollouts]
        rl_theta, rl_w, rl = self.gradients(self.theta, lambda *at: self.rl_loss(*at, rollouts, old))
        sft_theta, sft_w, _ = self.gradients(self.theta, lambda *at: self.sft_loss(*at, demonstrations))
        hat = self.hat
        if self.s.auxiliary == "one_step":  # (10)
            hat = self.of_theta.moved(self.theta, rl_theta, keep=False)
        anchor = None if self.s.anchor == "own" else old
        hat_hat, hat_w, at_hat = self.gradients(hat, lambda *at: self.rl_loss(*at, rollouts, anchor))
        share = self.s.share
        eight = {n: (1 - share) * sft_theta[n] + share * rl_theta[n] for n in self.theta}  # (8)
        eleven = {n: (1 - share) * sft_w[n] + share * (rl_w[n] - hat_w[n]) for n in self.w}  # (11)
        self.gain = at_hat - rl
        if self.s.auxiliary == "tracked":
            self.hat = self.of_hat.moved(hat, hat_hat)  # Algorithm 2, line 13
        self.theta = self.of_theta.moved(self.theta, eight)
        self.w = self.of_w.moved(self.w, eleven)

    def gradients(self, theta: Weights, loss_of) -> tuple[Weights, Weights, float]:  # type: ignore[no-untyped-def]
        """Those of a loss for the base weights and for the adapter, and the loss."""
        theta, w = ({n: x.detach().clone().requires_grad_() for n, x in held.items()} for held in (theta, self.w))
        loss = loss_of(theta, w)
        found = torch.autograd.grad(loss, [*theta.values(), *w.values()])
        return (
            dict(zip(theta, found, strict=False)),
            dict(zip(w, found[len(theta) :], strict=True)),
            float(loss.detach()),
        )

    def log_probs(
        self, theta: Weights, w: Weights, prompt: Sequence[int], response: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """(log p of the response's tokens, entropy at their places), at the policy of base weights and adapter."""
        adapted = {n.removesuffix(".A") for n in w if n.endswith(".A")}
        policy = {n: x + self.s.scaling * w[f"{n}.B"] @ w[f"{n}.A"] if n in adapted else x for n, x in theta.items()}
        ids = torch.tensor([[*prompt, *response]])
        logits = torch.func.functional_call(self.model, policy, (ids,)).logits[0, len(prompt) - 1 : -1]
        log_p_TV = logits.log_softmax(-1)
        log_p_T = log_p_TV[range(len(response)), list(response)]
        return log_p_T, -(log_p_TV.exp() * log_p_TV).sum(-1)

    def sft_loss(self, theta: Weights, w: Weights, demonstrations: Sequence[Demonstration]) -> Tensor:
        """-J_SFT: the mean over the demonstrations of -(1/|s|) sum log p."""
        losses = [-self.log_probs(theta, w, prompt, response)[0].mean() for prompt, response in demonstrations]
        return torch.stack(losses).mean()

    def rl_loss(self, theta: Weights, w: Weights, rollouts: Sequence[Rollout], old: Sequence[Tensor] | None) -> Tensor:
        """-J_RL; ``old`` are the log-probs of the ratio's denominator, those of this pass itself if None."""
        total = torch.tensor(0.0)
        for number, (prompt, response, advantage) in enumerate(rollouts):
            log_p_T, entropy_T = self.log_probs(theta, w, prompt, response)
            ratio_T = (log_p_T - (log_p_T.detach() if old is None else old[number])).exp()
            clipped_T = ratio_T.clamp(1 - self.s.clip, 1 + self.s.clip)
            loss_T = torch.maximum(-advantage * ratio_T, -advantage * clipped_T)
            if advantage < 0:
                loss_T = loss_T.clamp(max=-advantage * self.s.dual_clip)
            total = total + (loss_T - self.s.entropy * entropy_T).sum()
        return total / len(rollouts) / self.s.constant
