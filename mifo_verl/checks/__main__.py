"""Check a run before anything starts: ``mifo check experiment=quickstart [any override] [--json]``.

One table: ok, warning, error with its cure; the data's bad rows; the memory and disk that the run will take. No Ray, no
GPU, no network, no weights. Exit code 2 where there is an error, 0 otherwise.
"""

import os
import sys

from mifo_verl.checks.findings import Findings
from mifo_verl.checks.preflight import check_run, prepare_data, print_table, to_json
from mifo_verl.compose import ConfigError, compose_config

USAGE = """usage: mifo check experiment=<name> [setting=value ...] [--json]

  the same settings as mifo train; nothing is started and nothing is trained
  --json                         findings, data report and memory as JSON
"""


def main(arguments: list[str]) -> int:
    """Check a run; returns the exit code."""
    if not arguments or "--help" in arguments or "-h" in arguments:
        print(USAGE)
        return 0 if arguments else 2
    overrides = [argument for argument in arguments if argument != "--json"]
    try:
        config = compose_config(overrides)
        os.environ.update(config.environment())
        prepare_data(config.node)
        checked = check_run(config.node, overrides)
    except ConfigError as error:
        found = Findings()
        with found.of("overrides"):
            for line in error.errors:
                found.error(line)
                print(f"error: {line}", file=sys.stderr)
        if "--json" in arguments:
            print(to_json(found))
        return 2
    if "--json" in arguments:
        print(to_json(checked.found, checked))
    else:
        print_table(checked)
    return 2 if checked.found.errors() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
