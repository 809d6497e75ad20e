"""What verl 0.9.1 and Ray 2.60 say at every start of a run that is in order. Nothing else is left out, and no error."""

import logging
import warnings
from functools import partial

_WARNINGS = (
    r"\w+ engine is not available: ModuleNotFoundError",  # one for each engine of verl that is not ours
    r"Disabled critic as algorithm\.adv_estimator != gae\.",  # as the run's algorithm has it
)
_LINES = {
    "verl.plugin.platform.platform_manager": "Platform override from VERL_PLATFORM",  # which hardware=cpu sets
    "ray._private.authentication.authentication_token_setup": "Token authentication is enabled",  # Ray's default
}


def leave_out() -> None:
    """Leave them out of this process's output, if called before verl and Ray are imported."""
    for said in _WARNINGS:
        warnings.filterwarnings("ignore", said, UserWarning)
    for name, said in _LINES.items():
        logging.getLogger(name).addFilter(partial(_is_other, said))


def _is_other(said: str, record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(said)
