"""What verl and Ray say at every start is left out of a run's output, and nothing beside it."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

START = """
from mifo_verl.run import noise
noise.leave_out()
from omegaconf import OmegaConf
from verl.plugin.platform.platform_manager import get_platform, logger
import verl.workers.engine
from verl.trainer.ppo.utils import need_critic
from ray._private.authentication import authentication_token_setup as tokens
get_platform()
assert not need_critic(OmegaConf.create({"critic": {"enable": None}, "algorithm": {"adv_estimator": "grpo"}}))
tokens._warn_token_auth_enabled()
logger.warning("a warning of the platform")
tokens._warn_token_auth_disabled()
"""


SAID = {
    "verl/plugin/platform/platform_manager.py": "Platform override from VERL_PLATFORM",
    "verl/workers/engine/__init__.py": "engine is not available: {e!r}",
    "verl/trainer/ppo/utils.py": "Disabled critic as algorithm.adv_estimator != gae.",
    "ray/_private/authentication/authentication_token_setup.py": "Token authentication is enabled",
}


def test_what_nobody_can_act_on_is_left_out_and_every_other_warning_stays():
    for file, words in SAID.items():
        package, _, rest = file.partition("/")
        assert words in (Path(find_spec(package).origin).parent / rest).read_text()
    environment = os.environ | {"VERL_PLATFORM": "cpu"}
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    first, second = done.stderr.splitlines()
    assert "a warning of the platform" in first and "Token authentication is disabled" in second
