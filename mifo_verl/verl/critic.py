"""Whether a run has a critic."""

from omegaconf import DictConfig, OmegaConf


def has_critic(config: DictConfig) -> bool:
    """``need_critic`` of verl.trainer.ppo.utils, without its warning and without loading verl: ``critic.enable``, and
    where that is null, whether the advantages are GAE's.
    """
    enabled = OmegaConf.select(config, "critic.enable")
    return bool(OmegaConf.select(config, "algorithm.adv_estimator") == "gae" if enabled is None else enabled)
