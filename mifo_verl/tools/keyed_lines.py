"""Records on disk by key, one JSON line each, written as soon as they exist: what is killed goes on where it was.

A process that dies may leave a last line unfinished; it is cut off when the file is opened again.
"""

import fcntl
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any


class KeyedLines(dict[str, Mapping[str, Any]]):
    """The records of a file, by key. A context manager; one process at a time may hold it.

    Every record has the ``fields``, whatever else is in it for people to read. ``put`` is the only way in.
    """

    def __init__(self, path: Path, fields: Collection[str]) -> None:
        super().__init__()
        self.path, self._fields = path, fields

    def __enter__(self) -> "KeyedLines":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read()
        except OSError:
            self._file.close()
            raise ValueError(f"{self.path} must not be in use; another process is writing to it") from None
        except ValueError:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def put(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep a record, on disk when this returns. Raises ValueError on a key that is kept already."""
        if key in self:
            raise ValueError(f"{self.path}: {key} is kept already")
        self._file.write(json.dumps({"key": key, **record}).encode() + b"\n")
        self._file.flush()
        self[key] = record

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                record = json.loads(line)
                for name in ("key", *self._fields):
                    record[name]
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"{self.path}: line {number} must be a JSON object with key, {', '.join(self._fields)}; repair the "
                    "line, or delete it to make it again"
                ) from None
            self[record.pop("key")] = record
        self._file.truncate(whole)
