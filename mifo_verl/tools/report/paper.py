"""The paper's values of the settings (MIFO, appendix C), to say where a run differs from them."""

from typing import Any

from mifo_verl.errors import exact_share

SETTINGS: tuple[tuple[str, str, Any], ...] = (
    ("p, accuracy up to which a prompt is hard", "mifo.gate.max_accuracy", "1/8"),
    ("S, buffer that ends an RL phase", "mifo.schedule.size", 64),
    ("token selection", "mifo.token_selector.name", "top_entropy"),
    ("ρ, share of tokens kept", "mifo.token_selector.ratio", 0.2),
    ("importance", "mifo.importance.name", "abs_change"),
    ("k, share of coordinates frozen", "mifo.constraint.share", 0.5),
    ("α, weight of the history", "mifo.constraint.history", 0.5),
    ("scope of k", "mifo.constraint.scope", "global"),
    ("SFT loss", "mifo.sft_loss.name", "nll"),
    ("SFT learning rate in an interval", "mifo.sft.lr", 1e-6),
    ("RL learning rate", "actor_rollout_ref.actor.optim.lr", 1e-6),
    ("N, rollouts a prompt", "actor_rollout_ref.rollout.n", 8),
    ("temperature", "actor_rollout_ref.rollout.temperature", 1.0),
    ("prompts a rollout batch", "data.train_batch_size", 128),
    ("prompts a mini-batch", "actor_rollout_ref.actor.ppo_mini_batch_size", 64),
    ("entropy coefficient", "actor_rollout_ref.actor.entropy_coeff", 0.001),
    ("advantage", "algorithm.adv_estimator", "grpo"),
    ("std normalisation", "algorithm.norm_adv_by_std_in_grpo", False),
    ("KL in the loss", "actor_rollout_ref.actor.use_kl_loss", False),
    ("epochs", "trainer.total_epochs", 3),
)
"""(what, key of the config, the paper's value)."""


def same(value: Any, other: Any) -> bool:
    """Equal as settings: ``"1/8"`` is 0.125."""
    try:
        return exact_share("", value) == exact_share("", other)
    except ValueError:
        return bool(str(value) == str(other))
