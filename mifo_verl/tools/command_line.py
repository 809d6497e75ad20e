"""Command lines of ``key=value``: read into a dataclass of settings, every mistake one line and exit code 2."""

import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin

from mifo_verl.errors import nearest

Settings = TypeVar("Settings")
_READERS: dict[type, tuple[Callable[[str], Any], str]] = {
    str: (str, "a text"),
    bool: (lambda text: {"true": True, "false": False}[text.lower()], "true or false"),
    int: (int, "a whole number"),
    float: (float, "a number"),
    Path: (lambda text: Path(text).expanduser(), "a path"),
}


def pairs(arguments: Sequence[str], known: Collection[str] | None = None) -> dict[str, str]:
    """The arguments by key. Raises ValueError where one is not ``key=value``, or its key not among the ``known``."""
    found = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not value or (known is not None and key not in known):
            rule = f", key one of {', '.join(known)}{nearest(key, list(known))}" if known else ""
            raise ValueError(f"{argument} must be key=value{rule}; correct it, with quotes where it has spaces")
        found[key] = value
    return found


def read(kind: type[Settings], arguments: Sequence[str], renamed: Mapping[str, str] | None = None) -> Settings:
    """The dataclass of the arguments, each field read as its type; a tuple is ``[a,b]`` or ``a,b``.

    ``renamed`` holds the keys of fields that go by another name on the command line. Raises ValueError on an unknown,
    missing or malformed argument, and what the dataclass raises.
    """
    names = renamed or {}
    known = {names.get(field.name, field.name): field for field in fields(kind)}  # type: ignore[arg-type]
    given = {known[key].name: _value(key, text, known[key].type) for key, text in pairs(arguments, known).items()}
    for key, field in known.items():
        if field.name not in given and field.default is MISSING:
            raise ValueError(f"{key}= must be given; write {key}=<...>")
    return kind(**given)


def take(kind: type[Settings], arguments: Sequence[str]) -> tuple[Settings, list[str]]:
    """The dataclass of the arguments that name its fields, by ``read``, and all other arguments in their order."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    own = [argument for argument in arguments if "=" in argument and argument.partition("=")[0] in known]
    return read(kind, own), [argument for argument in arguments if argument not in own]


def _value(key: str, text: str, kind: Any) -> Any:
    if get_origin(kind) is tuple:
        words = [word.strip() for word in text.strip("[]").split(",")]
        return tuple(_value(key, word, get_args(kind)[0]) for word in words if word)
    if get_origin(kind) is UnionType:
        kind = next(one for one in get_args(kind) if one is not NoneType)
    reader, rule = _READERS[kind]
    try:
        return reader(text)
    except (ValueError, KeyError):
        raise ValueError(f"{key}={text} must be {rule}; correct it") from None


def require_writable(setting: str, file: Path, makes_folders: bool = False) -> None:
    """Raise ValueError where a file could not be written; asked before the work, and without leaving a trace.

    ``makes_folders`` is true where the folders above it are made with it.
    """
    folders = [one for one in file.absolute().parents if one.exists()] if makes_folders else [file.parent]
    try:
        if file.exists():
            file.open("a").close()
        tempfile.TemporaryFile(dir=folders[0]).close()
    except OSError as error:
        raise ValueError(
            f"{setting}={file} must be a file that can be written: {error.strerror}; choose another place"
        ) from None


def exit_code(action: Callable[[], int], *also: type[Exception]) -> int:
    """What the action returns, or 2 after a line on stderr for each mistake that the user can fix.

    These are a ValueError, an OSError and what is named ``also``.
    """
    to_fix: tuple[type[Exception], ...] = (ValueError, OSError, *also)
    try:
        return action()
    except to_fix as error:
        several = getattr(error, "errors", None)  # of a config
        for line in several if isinstance(several, list) else [error]:
            print(f"error: {line}", file=sys.stderr)
        return 2


def run(action: Callable[[], object], *also: type[Exception]) -> int:
    """``exit_code``: 0 after the action and a line with its seconds."""
    start = time.monotonic()

    def timed() -> int:
        action()
        print(f"done in {time.monotonic() - start:.1f} s")
        return 0

    return exit_code(timed, *also)
