"""Run a command and print the most memory that its processes took together: the sum of their Pss, sampled twice a second.

python -m tests.integration.measure_memory python -m mifo_verl.train experiment=quickstart
"""

import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path


def parents() -> dict[int, list[int]]:
    """The children of every process, and the members of every session under the number of its leader."""
    found: dict[int, list[int]] = defaultdict(list)
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent, _, session = file.read_text().rpartition(")")[2].split()[1:4]
        except OSError:
            continue
        for leader in {int(parent), int(session)}:
            found[leader].append(int(file.parent.name))
    return found


def family(leader: int) -> set[int]:
    """A process, all that came from it, and all of their sessions."""
    tree, found, left = parents(), set(), [leader]
    while left:
        process = left.pop()
        if process not in found:
            found.add(process)
            left += tree[process]
    return found


def shares(processes: set[int]) -> Iterator[int]:
    """Bytes of each process, memory that several share divided among them."""
    for process in processes:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        yield from (int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def main(command: list[str]) -> int:
    """Run the command; returns its exit code."""
    child, most = subprocess.Popen(command, start_new_session=True), 0
    while child.poll() is None:
        most = max(most, sum(shares(family(child.pid))))
        time.sleep(0.5)
    print(f"at most {most / 1e9:.2f} GB together")
    return child.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
