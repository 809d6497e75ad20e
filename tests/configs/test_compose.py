"""Composing reads a choice of files once in a process, and makes what Hydra makes in one go."""

from pathlib import Path

import pytest
import verl
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from mifo_verl.compose import compose_config, composed_defaults, config_folder

MODEL = "actor_rollout_ref.model.path=m"
CASES = {
    "choices": ["experiment=quickstart", "method=luffy", "rl=dapo", "mifo/sft_loss=dft"],
    "values": ["experiment=quickstart", "seed=3", "mifo.sft.lr=0.5", "data.train_files=[a,b]", "+env.A=1", "++env.B=2"],
    "between choices": ["seed=3", "experiment=quickstart", "buffer_size=4", "method=hpt", "buffer_size=5"],
    "a reference": ["experiment=quickstart", "trainer.save_freq=${trainer.test_freq}"],
    "a dict for a group": [MODEL, "data.train_batch_size=3", "data={train_batch_size:5,seed:7}", "data.seed=9"],
    "groups of verl's": [MODEL, "critic=veomni_critic", "+optim@mifo.more=fsdp"],
    "added and deleted": ["experiment=quickstart", "+ray_kwargs.ray_init.a.b=1", "~ray_kwargs.ray_init.num_cpus"],
}


@pytest.mark.parametrize("overrides", CASES.values(), ids=CASES)
def test_a_config_is_what_hydra_composes_in_one_go(overrides):
    overrides = [*overrides, "run_dir=/runs/x"]
    ours = compose_config(overrides)
    with initialize_config_dir(str(config_folder()), version_base=None):
        path = f"hydra.searchpath=['file://{Path(verl.__file__).parent}/trainer/config']"
        theirs = compose("mifo", overrides=[path, *overrides])
    OmegaConf.update(theirs, "ray_kwargs.ray_init.runtime_env.env_vars", ours.environment(), force_add=True)
    OmegaConf.resolve(theirs)
    assert ours.to_yaml() == OmegaConf.to_yaml(theirs)
    assert OmegaConf.is_struct(ours.node) and OmegaConf.is_struct(theirs)


def test_the_values_of_one_config_are_in_no_other():
    base = compose_config(["experiment=quickstart"]).to_yaml()
    changed = compose_config(["experiment=quickstart", "seed=3", "trainer.total_epochs=77", "+env.A=1"])
    assert changed.to_yaml() != base == compose_config(["experiment=quickstart"]).to_yaml()
    assert composed_defaults(["experiment=quickstart", "seed=3"]).seed == 0


OF_METHODS = {
    (file.stem, group, name): settings
    for file in sorted((config_folder() / "method").glob("*.yaml"))
    for group, settings in (OmegaConf.load(file).get("mifo") or {}).items()
    if (config_folder() / "mifo" / group).is_dir()
    for name in [member.stem for member in sorted((config_folder() / "mifo" / group).glob("*.yaml"))][:2]
}


@pytest.mark.parametrize(("method", "group", "name"), OF_METHODS)
def test_a_part_chosen_beside_a_method_has_its_own_settings_alone(method, group, name):
    """A method's file may set what another member of the group does not have."""
    node = composed_defaults(["experiment=quickstart", f"method={method}", f"mifo/{group}={name}"]).mifo
    own = OmegaConf.load(config_folder() / "mifo" / group / f"{name}.yaml")
    assert set(node[group]) == set(own)
    kept = [key for key in OF_METHODS[method, group, name] if key in own]
    assert all(node[group][key] == OF_METHODS[method, group, name][key] for key in kept)
    assert "history" in composed_defaults(["method=mifo_dagger"]).mifo.constraint
