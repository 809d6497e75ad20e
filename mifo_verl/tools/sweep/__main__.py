"""``mifo sweep``: methods x seeds x settings, run by run, then a table of what can be claimed.

Exit code 0 when every run has ended; 1 when one has failed; 2 for what a user can fix, found before the first run
starts; 75 when it was asked to stop: the same command goes on.
"""

import sys
from collections.abc import Sequence

USAGE = """usage: mifo sweep [setting=value,value ...] [sweep=<name>] [sweep_dir=<folder>]
       mifo sweep table <folder> [out=<file>]

  experiment=quickstart method=mifo,rl_only seed=0,1,2    every combination is a run; seed=range(0,5) is 0 to 4
  sweep=<name>         the arms of trainer_configs/sweep/<name>.yaml, with these settings over theirs
  sweep_dir=<folder>   where the runs are kept (default runs/sweep); the same command goes on there
  baseline=<arm>       what the other arms are compared with (default: the first)
  jobs=<n>             runs at a time (default 1)
  --plan               check and list the runs, and stop
  table                make the table again, of the runs that are finished"""


def main(arguments: list[str], train: Sequence[str] = ()) -> int:
    """Run a sweep, or make its table again; returns the exit code. ``train``: the command that runs a training."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0 if arguments else 2
    from mifo_verl.tools.sweep import sweep

    if arguments[0] == "table":
        return sweep.exit_code(lambda: sweep.table(arguments[1:]))
    return sweep.exit_code(lambda: sweep.sweep(sweep.request(arguments), train or sweep.TRAIN))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
