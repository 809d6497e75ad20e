"""A nested config as flat settings: ``mifo.constraint.share`` to its value. Standard library only."""

from collections.abc import Mapping
from typing import Any


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """The settings by their full name, in the config's order; an empty group is a setting of its own."""
    if not isinstance(node, Mapping) or not node:
        return {prefix: node}
    found: dict[str, Any] = {}
    for name, child in node.items():
        found |= flat(child, f"{prefix}.{name}" if prefix else str(name))
    return found
