"""Entries of reasoning-gym as text: JSON has no tuples, which some scorers compare with."""

import json
from typing import Any


def read_entry(text: str) -> dict[str, Any]:
    """The entry; marked with ``tuples``, its lists are tuples. Raises ValueError where it is no entry."""
    entry = json.loads(text)
    if not isinstance(entry, dict) or not isinstance(entry.get("metadata"), dict):
        raise ValueError("an entry must be an object with metadata")
    return {key: _tuples(value) for key, value in entry.items()} if entry.get("tuples") else entry


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return {key: _tuples(item) for key, item in value.items()} if isinstance(value, dict) else value
