"""One self-contained HTML file about runs: ``mifo report <run> [<run> ...] [out=<file>]``."""

import sys
import time
from pathlib import Path

from mifo_verl.tools.command_line import pairs, require_writable

USAGE = """usage: mifo report <run> [<run> ...] [out=<file>]
  one self-contained HTML file; by default report.html in the folder of the run, or here for several runs"""
REPORT = "report.html"


def main(arguments: list[str]) -> int:
    """Write the report; returns the exit code."""
    folders = [Path(argument) for argument in arguments if "=" not in argument]
    asked = bool({"-h", "--help"} & set(arguments))
    if asked or not folders:
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    started = time.perf_counter()
    try:
        given = pairs([argument for argument in arguments if "=" in argument], ("out",)).get("out")
        out = Path(given) if given else (folders[0] / REPORT if len(folders) == 1 else Path(REPORT))
        require_writable("out", out, makes_folders=True)
        write(folders, out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    size = out.stat().st_size / 2**20
    print(f"{out}: {size:.1f} MB in {time.perf_counter() - started:.1f} s")
    return 0


def write(folders: list[Path], out: Path) -> None:
    """One file about these runs. Raises ValueError if a folder holds no run."""
    from mifo_verl.tools.report.page import render
    from mifo_verl.tools.report.run import load_all

    html = render(load_all(folders))
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    part.write_text(html)
    part.replace(out)  # a browser never sees half of it


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
