"""``python -m mifo_verl.tools.schemas <page>``: the schemas of a run's JSON-lines files, from the record types.

Rewrites what lies between the two marks of the page; ``make schemas`` does it for docs/results.md.
"""

import inspect
import sys
from pathlib import Path
from typing import Any

import msgspec

from mifo_verl.loop.events import FILES

BEGIN, END = "<!-- schemas: made by `make schemas` -->", "<!-- end of schemas -->"
USAGE = "usage: python -m mifo_verl.tools.schemas <page.md>   the schemas of a run's files, into that page"


def schemas() -> str:
    """Markdown: a table for every kind of line, by file."""
    parts = []
    for file, records in FILES.items():
        for record in records:
            described = msgspec.json.schema(record)["$defs"][record.__name__]
            required = described.get("required", [])
            about = inspect.cleandoc(record.__doc__ or "").replace("\n", " ")
            rows = [
                f"| `{name}` | {_type(field)}{'' if name in required or 'default' in field else ', optional'} | {_about(field)} |"
                for name, field in described["properties"].items()
            ]
            parts.append(
                "\n".join([f"**{file}**: {about}", "", "| field | type | meaning |", "| --- | --- | --- |", *rows])
            )
    return "\n\n".join(parts)


def _type(field: dict[str, Any]) -> str:
    """The JSON types that a field may have, such as ``number or null``."""
    return " or ".join(dict.fromkeys(str(one.get("type", "object")) for one in field.get("anyOf", [field])))


def _about(field: dict[str, Any]) -> str:
    constant = field.get("default") if field.get("default") not in (None, {}, []) else None
    said = field.get("description") or next(
        (one["description"] for one in field.get("anyOf", []) if "description" in one), ""
    )
    return said or (f"default `{constant}`" if constant is not None else "")


def rewritten(page: str) -> str:
    """The page with the schemas of now. Raises ValueError if it has no place for them."""
    return put(page, schemas(), BEGIN, END)


def put(page: str, text: str, begin: str, end: str) -> str:
    """The page with a text between two marks. Raises ValueError if it has none."""
    before, found, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"the page must have the lines {begin} and {end}; add them")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def main(arguments: list[str]) -> int:
    """Rewrite a page; returns the exit code."""
    if len(arguments) != 1:
        print(USAGE)
        return 2
    page = Path(arguments[0])
    page.write_text(rewritten(page.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
