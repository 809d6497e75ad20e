"""Train: ``mifo train experiment=quickstart [any Hydra override]``, or ``python -m mifo_verl.train``.

Composes the config, checks all of it before Ray starts, and hands it to verl. Exit code 2 and one line for what a
user can fix; 0 when the run has ended; 75 when it was asked to stop and can be resumed; 74 when it was asked to stop
and the disk refused what it had.
"""

import os
import sys

USAGE = """usage: mifo train experiment=<name> [setting=value ...]

  experiment=quickstart          two CPU cores, a tiny model, under three minutes
  experiment=<file>              any file of trainer_configs/experiment/
  run_dir=<folder> seed=<n>      where the run is kept, what it draws
  method=<name> rl=<algorithm>   another method, another RL algorithm
  mifo/<group>=<part>            another part, e.g. mifo/token_selector=all
  <setting>=<value>              any setting of verl or mifo
  trainer.resume_mode=auto       go on after a stop; the default, but for hardware=cpu
  --cfg                          print the config and stop
"""


def main(arguments: list[str]) -> int:
    """Run a training; returns the exit code."""
    if not arguments or "--help" in arguments or "-h" in arguments:
        print(USAGE)
        return 0 if arguments else 2
    from mifo_verl.checks.preflight import check_run, compose_checked, prepare_data, write_data  # imports torch
    from mifo_verl.compose import ConfigError
    from mifo_verl.cpu import forkserver
    from mifo_verl.run import noise

    noise.leave_out()
    overrides = [argument for argument in arguments if argument != "--cfg"]
    try:
        config = compose_checked(overrides)
        if "--cfg" in arguments:
            print(config.to_yaml())
            return 0
        os.environ.update(config.environment())
        prepare_data(config.node)
        checked = check_run(config.node, overrides)
        for warning in checked.found.warnings():
            print(f"warning: {warning}")
        checked.raise_errors()
        with forkserver.running():
            from mifo_verl.run.launch import launch  # imports verl, which reads the environment

            return launch(config.node, lambda folder: write_data(checked, folder))
    except ConfigError as error:
        for line in error.errors:
            print(f"error: {line}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
