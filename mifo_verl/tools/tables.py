"""Tables of all tools, from data frames: on a terminal, and as Markdown."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:  # pandas takes a second to import, which no --help should wait for
    import pandas as pd

MISSING = "–"
_FILE_WIDTH = 240


def console() -> Console:
    """The terminal, or 240 columns if the output goes to a file: tables would fold there."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=max(found.width, _FILE_WIDTH))


def say(line: str) -> None:
    """Print a line as it is, however long."""
    console().print(line, soft_wrap=True, markup=False)


def print_frame(frame: "pd.DataFrame", title: str = "") -> None:
    """A frame of cells as a table."""
    table = Table(title=escape(title) or None, title_justify="left")
    for name in frame.columns:
        table.add_column(escape(str(name)), overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*(MISSING if cell is None else escape(str(cell)) for cell in row))
    console().print(table)


def markdown(frame: "pd.DataFrame") -> str:
    """A frame of cells as a Markdown table."""
    rows = [list(map(str, frame.columns)), ["---"] * len(frame.columns), *(map(str, row) for row in frame.to_numpy())]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)
