"""The stacks of a run that hangs: ``mifo stacks <run folder>``, on any machine of its cluster.

Asks every process of the run, writes what they answer into one file of the run's folder and prints its path. It needs
nothing of the run to answer; on one machine it needs no Ray either. Exit code 2 where the folder holds no run.
"""

import json
import os
import sys
from pathlib import Path

USAGE = "usage: mifo stacks <run folder>   the stacks of every process of a run, in one file of its folder"


def main(arguments: list[str]) -> int:
    """Write the stacks of a run; returns the exit code."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(USAGE)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    folder = Path(arguments[0]).expanduser().absolute()
    cluster = folder / ".stacks" / "cluster.json"
    if not cluster.parent.is_dir():
        print(f"error: {folder} must be the run_dir of a run that goes on, and it has no .stacks/; give that folder")
        return 2
    known = json.loads(cluster.read_text()) if cluster.exists() else {}
    if known.get("auth_mode"):
        os.environ["RAY_AUTH_MODE"] = known["auth_mode"]  # which Ray reads when it is imported
    from mifo_verl.run.stacks import connect_to, write_stacks

    print(write_stacks(folder, lambda: connect_to(known)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
