"""MIFO's interval in plain torch, written from the paper alone: what the engine is compared with.

One process, one whole copy of the weights, loops in place of tricks. Imports nothing of mifo_verl and nothing of verl.
AdamW, the clip norm, the top share and the token selection are written out by hand. Section numbers are those of
arXiv 2510.04454.

Shapes: N coordinates of the whole model, in the order of ``named_parameters``; T response tokens; V vocabulary.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor

Sequence_ = tuple[Sequence[int], Sequence[int]]
"""A prompt and a response as token ids."""


@dataclass(frozen=True)
class Settings:
    """The numbers of a run."""

    rl_lr: float
    sft_lr: float
    rl_clip: float
    sft_clip: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    keep: Fraction = Fraction(1, 5)
    """rho: the share of a response's tokens that count."""
    share: Fraction = Fraction(1, 2)
    """k: the share of all coordinates that is frozen."""
    history: float = 0.5
    """alpha: the weight of earlier intervals."""
    optimizer: str = "shared"
    """shared, separate or fresh: whose moments an SFT phase uses."""
    strict: bool = True
    """Whether frozen coordinates and their moments are put back after every update."""


@dataclass
class Moments:
    """AdamW's state, a number a coordinate; ``step`` counts updates."""

    first: Tensor
    second: Tensor
    step: int = 0


@dataclass
class Reference:
    """One model through RL-like and SFT phases. ``logits(ids)`` is its forward pass: a list of ids to logits (T, V)."""

    parameters: list[Tensor]
    logits: Callable[[list[int]], Tensor]
    settings: Settings
    rl: Moments = field(init=False)
    sft: Moments | None = None
    start: Tensor | None = None
    importance: Tensor | None = None
    """C of the intervals before: 0 outside their masks."""
    score: Tensor | None = None
    """What the last mask was chosen by."""
    frozen: Tensor | None = None
    norm: float = 0.0
    """The gradient's norm of the last update, before it was clipped."""

    def __post_init__(self) -> None:
        self.rl = self._no_moments()

    def _no_moments(self) -> Moments:
        zeros = torch.zeros_like(self.weights())
        return Moments(zeros.clone(), zeros.clone())

    def weights(self) -> Tensor:
        """All coordinates in one vector, a copy."""
        return torch.cat([p.detach().reshape(-1) for p in self.parameters]).clone()

    def set_weights(self, values: Tensor) -> None:
        """Write all coordinates, in the order of ``weights``."""
        at = 0
        with torch.no_grad():
            for p in self.parameters:
                p.copy_(values[at : at + p.numel()].view(p.shape))
                at += p.numel()

    # ------------------------------------------------------------------ section 3, steps 1 to 7

    def begin_interval(self) -> None:
        """Step 1: theta_start = theta."""
        self.start = self.weights()

    def rl_update(self, batch: Sequence[Sequence_]) -> None:
        """An update with the RL phase's settings; its loss is the SFT loss, because the optimizer does not mind."""
        self._update(batch, self.rl, self.settings.rl_lr, self.settings.rl_clip, None)

    def begin_sft(self) -> None:
        """Steps 3 to 5: change, importance, mask, and what is remembered of it."""
        assert self.start is not None
        change = (self.weights() - self.start).abs()
        before = torch.zeros_like(change) if self.importance is None else self.importance
        alpha = self.settings.history
        self.score = before * alpha + change * (1 - alpha)
        self.frozen = top_share(self.score, self.settings.share)
        self.importance = torch.where(self.frozen, self.score, 0.0) if alpha > 0 else None
        if self.settings.optimizer == "fresh" or (self.settings.optimizer == "separate" and self.sft is None):
            self.sft = self._no_moments()

    def sft_update(self, batch: Sequence[Sequence_]) -> None:
        """Step 6: gradient <- (1 - M) * gradient, clipped after the mask."""
        moments = self.rl if self.settings.optimizer == "shared" else self.sft
        assert moments is not None
        self._update(batch, moments, self.settings.sft_lr, self.settings.sft_clip, self.frozen)

    def end_sft(self) -> None:
        """Step 7: everything is trainable again."""
        self.frozen = None

    # ------------------------------------------------------------------ one update

    def _update(
        self, batch: Sequence[Sequence_], moments: Moments, lr: float, clip: float, frozen: Tensor | None
    ) -> None:
        for p in self.parameters:
            p.grad = None
        (sum(self.loss(prompt, response) for prompt, response in batch) / len(batch)).backward()
        gradient = torch.cat([p.grad.reshape(-1) for p in self.parameters])
        if frozen is not None:
            gradient[frozen] = 0.0
        self.norm = float(gradient.double().norm())  # a float32 sum over a million squares is off by 1e-4
        gradient = gradient * min(1.0, clip / (self.norm + 1e-6))
        old = self.weights(), moments.first.clone(), moments.second.clone()
        new = self._adamw(gradient, moments, lr)
        if frozen is not None and self.settings.strict:
            new = torch.where(frozen, old[0], new)
            moments.first = torch.where(frozen, old[1], moments.first)
            moments.second = torch.where(frozen, old[2], moments.second)
        self.set_weights(new)

    def _adamw(self, gradient: Tensor, moments: Moments, lr: float) -> Tensor:
        """Decoupled weight decay, then the step by moments whose start at 0 is corrected (Loshchilov & Hutter)."""
        s = self.settings
        moments.step += 1
        moments.first = s.betas[0] * moments.first + (1 - s.betas[0]) * gradient
        moments.second = s.betas[1] * moments.second + (1 - s.betas[1]) * gradient**2
        first = moments.first / (1 - s.betas[0] ** moments.step)
        second = moments.second / (1 - s.betas[1] ** moments.step)
        return self.weights() * (1 - lr * s.weight_decay) - lr * first / (second.sqrt() + s.eps)

    # ------------------------------------------------------------------ one sequence

    def loss(self, prompt: Sequence[int], response: Sequence[int]) -> Tensor:
        """-(1/|s|) sum over the kept tokens of log p, the kept being the ceil(rho |s|) of the highest entropy."""
        log_p_TV = self.logits([*prompt, *response])[len(prompt) - 1 : -1].log_softmax(-1)
        entropy_T = -(log_p_TV.exp() * log_p_TV).sum(-1).detach()
        kept = top_places(entropy_T.tolist(), math.ceil(self.settings.keep * len(response)))
        return -sum((log_p_TV[t, response[t]] for t in kept), torch.tensor(0.0)) / len(response)


def top_places(scores: list[float], count: int) -> list[int]:
    """The places of the ``count`` largest scores; of equal ones the earlier."""
    return sorted(range(len(scores)), key=lambda place: (-scores[place], place))[:count]


def top_share(score_N: Tensor, share: Fraction) -> Tensor:
    """True at the floor(share * N) largest scores, ties to the earlier coordinate, never at a score of 0."""
    order = torch.sort(score_N, descending=True, stable=True).indices
    count = min(math.floor(share * score_N.numel()), int((score_N > 0).sum()))
    chosen = torch.zeros_like(score_N, dtype=torch.bool)
    chosen[order[:count]] = True
    return chosen


def plain(model: torch.nn.Module) -> tuple[list[Tensor], Callable[[list[int]], Tensor]]:
    """(parameters that train, forward pass of one sequence without padding) of a causal language model."""

    def logits(ids: list[int]) -> Tensor:
        return model(torch.tensor([ids])).logits[0]

    return [p for p in model.parameters() if p.requires_grad], logits


def examples(number: int, vocabulary: int, seed: int, longest: int = 24) -> Iterable[Sequence_]:
    """Made-up prompts and responses of different lengths."""
    draw = torch.Generator().manual_seed(seed)
    for _ in range(number):
        lengths = torch.randint(3, longest, (2,), generator=draw).tolist()
        yield tuple(tuple(torch.randint(3, vocabulary, (n,), generator=draw).tolist()) for n in lengths)  # type: ignore[misc]
