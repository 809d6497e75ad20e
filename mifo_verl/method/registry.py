"""A name for every part, parts of other packages, and errors that list the choices. Standard library only."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Generic, TypeVar

from mifo_verl import method
from mifo_verl.errors import nearest
from mifo_verl.method.part import Part

ENTRY_POINTS = "mifo_verl.parts"
"""Entry point group of packages with parts of their own: each entry is a module, or a function without arguments."""
TARGET = "_target_"
"""Key of a node that names the class itself, ``package.module.Class``, instead of a registered name."""

Member = TypeVar("Member", bound=Part)


@cache
def load_own_parts() -> None:
    """Let every file of this folder register its parts, once."""
    for module in iter_modules(method.__path__):
        import_module(f"{method.__name__}.{module.name}")


@cache
def load_outside_parts() -> None:
    """Let every installed package that has parts register them, once.

    Raises RuntimeError, naming the package, if one of them fails.
    """
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            loaded = entry.load()
            if callable(loaded):
                loaded()
        except Exception as error:
            package = entry.dist.name if entry.dist else "a package"
            raise RuntimeError(
                f"{package} offers parts as {ENTRY_POINTS}: {entry.name} = {entry.value}, and they failed to load: "
                f"{type(error).__name__}: {error}; correct or uninstall it"
            ) from error


class Registry(Generic[Member]):
    """The members of one group: frozen dataclasses that derive from ``base``, by name.

    ``group`` is the Hydra group that chooses among them, such as ``mifo/token_selector``.
    """

    def __init__(self, group: str, base: type[Member]) -> None:
        self.group = group
        self.base = base
        self._members: dict[str, type[Member]] = {}

    def register(self, name: str) -> Callable[[type[Member]], type[Member]]:
        """Class decorator: the dataclass below is the member ``name``. Raises ValueError if the name is taken."""

        def decorate(member: type[Member]) -> type[Member]:
            self._require_fit(member)
            if name in self._members:
                raise ValueError(f"{self.group}: {name} is registered already, by {self._members[name].__name__}")
            member.group, member.name = self.group, name
            self._members[name] = member
            return member

        return decorate

    def names(self) -> list[str]:
        """The names registered, sorted, those of other packages among them."""
        load_own_parts()
        load_outside_parts()
        return sorted(self._members)

    def build(self, node: Mapping[str, object]) -> Member:
        """The part that a config node asks for: its ``name`` is the member, its other keys are the fields.

        Raises ValueError, naming the full setting, on an unknown name, an unknown or missing key, or a value that
        the member refuses.
        """
        setting = self.group.replace("/", ".")
        if not isinstance(node, Mapping):
            raise ValueError(f"{setting}={node} must be a group of settings with a name; choose {self.group}=<name>")
        settings = dict(node)
        name, target = settings.pop("name", None), settings.pop(TARGET, None)
        member = self._named(str(name)) if target is None else self._targeted(str(target), name)
        self._require_settings(member, settings)
        try:
            return member(**settings)
        except ValueError as error:
            raise ValueError(f"{setting}.{error}") from None

    def _named(self, name: str) -> type[Member]:
        names = self.names()
        if name not in names:
            raise ValueError(
                f"{self.group.replace('/', '.')}.name={name} must be one of {', '.join(names)}{nearest(name, names)}; "
                f"choose it with {self.group}=<name>"
            )
        return self._members[name]

    def _targeted(self, target: str, name: object) -> type[Member]:
        """The class at ``package.module.Class``, as a member by the name given or by its own."""
        setting = f"{self.group.replace('/', '.')}.{TARGET}"
        module, _, class_name = target.rpartition(".")
        try:
            member = getattr(import_module(module), class_name)
            self._require_fit(member)
        except Exception as error:
            raise ValueError(
                f"{setting}={target} must be package.module.Class, a part of {self.group} in a package that is "
                f"installed here ({type(error).__name__}: {error}); correct it"
            ) from None
        name = str(name or member.name or class_name)
        taken = self._members.get(name)
        if taken not in (None, member):
            raise ValueError(f"{setting}={target} must have a name of its own: {name} is taken; give it another name")
        member.group, member.name = self.group, name
        return member

    def _require_fit(self, member: object) -> None:
        if not (isinstance(member, type) and issubclass(member, self.base)):
            raise TypeError(f"{self.group}: {member} does not derive from {self.base.__module__}.{self.base.__name__}")
        if not is_dataclass(member):
            raise TypeError(
                f"{self.group}: {member.__name__} is no dataclass; decorate it with @dataclass(frozen=True)"
            )

    def _require_settings(self, member: type[Member], settings: Mapping[str, object]) -> None:
        setting, name = self.group.replace("/", "."), member.name
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
