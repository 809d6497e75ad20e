"""The ``verl.plugins`` entry point: every process that imports verl loads mifo_verl.

verl reports a plug-in that fails to load at DEBUG level only and goes on without it; ``require_loaded`` turns that
silence into an error. The parts of other packages are loaded here too, in the driver and in every Ray process.
"""

import importlib
from importlib.metadata import entry_points
from os import environ

ENTRY_POINT = "mifo_verl"


def _register() -> None:
    from mifo_verl.cpu.platform import register_cpu_platform
    from mifo_verl.method.registry import load_outside_parts
    from mifo_verl.run.stacks import listen

    register_cpu_platform()
    load_outside_parts()
    listen()


def require_loaded() -> None:
    """Check that verl has loaded this plug-in, and load it again with its real error where it has not.

    Raises RuntimeError that says why: plug-ins switched off, the package not installed, or the error of its import.
    """
    policy = environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto").strip().lower()
    if policy != "auto" and ENTRY_POINT not in {name.strip() for name in policy.split(",")}:
        raise RuntimeError(
            f"VERL_USE_EXTERNAL_PLUGINS={policy} keeps verl from loading mifo_verl; set it to auto or to {ENTRY_POINT}"
        )
    if ENTRY_POINT not in {entry.name for entry in entry_points(group="verl.plugins")}:
        raise RuntimeError("mifo_verl is not installed as a plug-in of verl; run pip install -e '.[cpu]' or '.[gpu]'")
    try:
        _register()
        trainers = importlib.import_module("verl.trainer.ppo.v1.trainer_base").TRAINER_REGISTRY
        importlib.import_module("mifo_verl.verl.trainer")
    except Exception as error:
        raise RuntimeError(f"the verl plug-in mifo_verl failed to load: {type(error).__name__}: {error}") from error
    if "mifo" not in trainers:
        raise RuntimeError("mifo_verl loaded, but verl does not know trainer_mode=mifo; is another verl on the path?")


_register()
