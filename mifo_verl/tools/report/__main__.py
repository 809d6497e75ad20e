"""``python -m mifo_verl.tools.report <run> [<run> ...] [out=<file>]``: one self-contained HTML file about these runs."""

import sys
import time
from pathlib import Path

from mifo_verl.tools.command_line import require_writable
from mifo_verl.tools.report.write import REPORT, write

USAGE = """usage: python -m mifo_verl.tools.report <run> [<run> ...] [out=<file>]
  one self-contained HTML file; by default report.html in the folder of the run, or here for several runs"""


def main(arguments: list[str]) -> int:
    """Write the report; returns the exit code."""
    outs = [argument.removeprefix("out=") for argument in arguments if argument.startswith("out=")]
    folders = [Path(argument) for argument in arguments if not argument.startswith(("out=", "-"))]
    if not folders or len(outs) > 1 or len(folders) + len(outs) != len(arguments):
        asked = {"-h", "--help"} & set(arguments)
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    out = Path(outs[0]) if outs else (folders[0] / REPORT if len(folders) == 1 else Path(REPORT))
    started = time.perf_counter()
    try:
        require_writable("out", out, makes_folders=True)
        write(folders, out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    size = out.stat().st_size / 2**20
    print(f"{out}: {size:.1f} MB in {time.perf_counter() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
