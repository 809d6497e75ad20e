"""A name for every plug-in, and errors that list the choices. Standard library only."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from difflib import get_close_matches
from typing import Generic, TypeVar

Plugin = TypeVar("Plugin")


def nearest(word: str, choices: list[str], cutoff: float = 0.6) -> str:
    """' (did you mean X?)' for the choice that looks most like ``word``, or '' where none does."""
    match = get_close_matches(word, choices, n=1, cutoff=cutoff)
    return f" (did you mean {match[0]}?)" if match else ""


class Registry(Generic[Plugin]):
    """The members of one choice: frozen dataclasses, by name.

    ``group`` is the Hydra group that chooses among them, such as ``mifo/token_selector``.
    """

    def __init__(self, group: str) -> None:
        self.group = group
        self._members: dict[str, type[Plugin]] = {}

    def register(self, name: str):  # type: ignore[no-untyped-def]  # a decorator that returns the class it is given
        """Class decorator: the dataclass below is the member ``name``. Raises ValueError on a name taken."""

        def decorate(member: type[Plugin]) -> type[Plugin]:
            if name in self._members:
                raise ValueError(f"{self.group}: {name} is registered already, by {self._members[name].__name__}")
            self._members[name] = member
            return member

        return decorate

    def names(self) -> list[str]:
        """The names registered, sorted."""
        return sorted(self._members)

    def build(self, node: Mapping[str, object]) -> Plugin:
        """The plug-in that a config node asks for: its ``name`` is the member, its other keys are the fields.

        Raises ValueError, naming the full setting, on an unknown name, an unknown or missing key, or a value that
        the member refuses.
        """
        setting = self.group.replace("/", ".")
        if not isinstance(node, Mapping):
            raise ValueError(f"{setting}={node} must be a group of settings with a name; choose {self.group}=<name>")
        settings = dict(node)
        name = str(settings.pop("name", None))
        if name not in self._members:
            choices = ", ".join(self.names())
            raise ValueError(
                f"{setting}.name={name} must be one of {choices}{nearest(name, self.names())}; "
                f"choose it with {self.group}=<name>"
            )
        member = self._members[name]
        known = {field.name: field for field in fields(member)}  # type: ignore[arg-type]  # members are dataclasses
        for key in settings:
            if key not in known:
                allowed = ", ".join(known) or "no setting"
                raise ValueError(
                    f"{setting}.{key}={settings[key]} must be a setting of {name}{nearest(key, list(known))}; "
                    f"{name} takes {allowed}, and {self.group}=<name> chooses another member"
                )
        for key, field in known.items():
            if key not in settings and field.default is MISSING and field.default_factory is MISSING:
                raise ValueError(f"{setting}.{key} must be set for {name}; write {setting}.{key}=<value>")
        try:
            return member(**settings)
        except ValueError as error:
            raise ValueError(f"{setting}.{error}") from None
