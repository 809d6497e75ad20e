"""The first update of every method on the engine, with the columns that its parts ask for: none is missing."""

from functools import cache
from typing import Any

import pytest
from omegaconf import OmegaConf

from mifo_verl.compose import compose_config, config_folder
from tests.integration.engine_ranks import examples, make_engine, run_on_ranks, update
from tests.integration.test_extremes import rl_update, sha256_of

ALIKE = {"interleave_entropy", "interleave_freezing", "mifo_dagger", "random_mask", "random_tokens"}
"""Methods whose parts are those of ``mifo`` and ``interleave``, or draw what these choose."""
METHODS = sorted({file.stem for file in (config_folder() / "method").glob("*.yaml")} - ALIKE)


def _settings(method: str) -> dict[str, Any]:
    """The quick start's settings that the method changes, parts as a whole."""
    node = compose_config(["experiment=quickstart", f"method={method}"]).node
    groups = {f"actor_rollout_ref.{name}": node.actor_rollout_ref[name] for name in ("actor", "model")}
    return groups | {f"mifo.{name}": part for name, part in OmegaConf.to_container(node.mifo, resolve=True).items()}


def _first_updates(method: str) -> dict[str, Any]:
    """An RL update, then, if the method has such phases, the first SFT update."""
    settings = _settings(method)
    engine = make_engine(settings)
    engine.interval.begin()
    weights = [sha256_of(engine)]
    norms = [rl_update(engine, settings, step=0)["grad_norm"]]
    weights.append(sha256_of(engine))
    if engine.mifo.schedule.has_sft_phases:
        engine.begin_sft(interval=1)
        norms.append(update(engine, examples(4))["metrics"]["grad_norm"])
        weights.append(sha256_of(engine))
        engine.end_sft()
    return {"norms": norms, "weights": weights}


@cache
def _found() -> dict[str, dict[str, Any]]:
    return dict(zip(METHODS, run_on_ranks(_first_updates, 1, [(method,) for method in METHODS]), strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_the_first_updates_of_a_method_move_the_weights(method):
    found = _found()[method]
    assert all(0 < norm < 1e4 for norm in found["norms"])
    assert len(set(found["weights"])) == len(found["weights"]) == 1 + len(found["norms"])
