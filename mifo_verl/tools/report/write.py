"""Writing the report of a run: at its end, without ever harming it, and by command."""

import logging
from pathlib import Path

logger = logging.getLogger(__name__)

REPORT = "report.html"


def write_report(folder: str | Path) -> Path | None:
    """``report.html`` in the run's folder. Never raises: where it fails, a warning says why, and None is returned."""
    try:
        return write([Path(folder)], Path(folder) / REPORT)
    except Exception as error:
        logger.warning(f"no report of {folder}: {type(error).__name__}: {error}")
        return None


def write(folders: list[Path], out: Path) -> Path:
    """One file about these runs. Raises ValueError where a folder holds no run."""
    from mifo_verl.tools.report.page import render
    from mifo_verl.tools.report.run import load_all

    html = render(load_all(folders))
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    part.write_text(html)
    part.replace(out)  # a browser never sees half of it
    return out
