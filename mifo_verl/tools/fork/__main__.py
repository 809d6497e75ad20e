"""The command of a rank, which ``mifo analyze fork`` starts where a checkpoint has several."""

import sys

from mifo_verl.tools.command_line import run
from mifo_verl.tools.fork.fork import fork

if __name__ == "__main__":
    sys.exit(run(lambda: fork(sys.argv[1:])))
