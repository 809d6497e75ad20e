"""Tables of all tools, from data frames: on a terminal, and as Markdown."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:  # pandas takes a second to import, which no --help should wait for
    import pandas as pd

MISSING = "–"
_FILE_WIDTH = 240
_Column = tuple[str, list[str]]
"""A heading and its cells."""


def console() -> Console:
    """The terminal, or 240 columns if the output goes to a file: tables would fold there."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=max(found.width, _FILE_WIDTH))


def say(line: str) -> None:
    """Print a line as it is, however long."""
    console().print(line, soft_wrap=True, markup=False)


def print_frame(frame: "pd.DataFrame", title: str = "", keys: int = 1) -> None:
    """A frame of cells as a table; if it is too wide, as several below each other, each with the first ``keys``."""
    shown = console()
    columns = [(str(name), [MISSING if cell is None else str(cell) for cell in cells]) for name, cells in frame.items()]
    for part in _parts(columns, keys, shown.width):
        table = Table(title=escape(title) or None, title_justify="left")
        for name, _ in part:
            table.add_column(escape(name), overflow="fold")
        for row in zip(*(cells for _, cells in part), strict=True):
            table.add_row(*map(escape, row))
        shown.print(table)
        title = ""


def _parts(columns: list[_Column], keys: int, width: int) -> list[list[_Column]]:
    """The columns in parts that fit the width; a part holds the keys and at least one column."""
    fit = next((num for num in range(len(columns), keys, -1) if _width(columns[:num]) <= width), keys + 1)
    rest = columns[:keys] + columns[fit:]
    return [columns[:fit], *(_parts(rest, keys, width) if len(rest) > keys else [])]


def _width(columns: list[_Column]) -> int:
    """Of a table: its cells, a space on both sides of each, and the lines between."""
    return 1 + sum(3 + max(map(len, (name, *cells))) for name, cells in columns)


def markdown(frame: "pd.DataFrame") -> str:
    """A frame of cells as a Markdown table."""
    rows = [list(map(str, frame.columns)), ["---"] * len(frame.columns), *(map(str, row) for row in frame.to_numpy())]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)
