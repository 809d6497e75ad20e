"""Generations on disk, one JSON line each, written as soon as it is made: an evaluation that is killed goes on."""

import fcntl
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal


@dataclass(frozen=True)
class Generation:
    """One response as text. ``truncated`` where it was cut at the most tokens allowed."""

    text: str
    num_tokens: int
    stop_reason: Literal["completed", "length"]

    @property
    def truncated(self) -> bool:
        """Whether the response ended because it had to."""
        return self.stop_reason == "length"


def generation_key(
    model_digest: str,
    benchmark: str,
    question_id: str,
    sample: int,
    prompt_ids: tuple[int, ...],
    settings: Mapping[str, Any],
) -> str:
    """The name of a generation, 32 hex digits: what it depends on and nothing else.

    ``settings`` are those that change the text: engine, dtype, temperature, top_p, max_tokens, seed. The template and
    the question's text are in ``prompt_ids``.
    """
    parts = [model_digest, benchmark, question_id, sample, list(prompt_ids), dict(sorted(settings.items()))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


class GenerationStore:
    """The generations of one file, by key. A context manager; one process at a time may hold it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._generations: dict[str, Generation] = {}

    def __enter__(self) -> "GenerationStore":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise ValueError(f"out={self.path} must not be in use; another evaluation is writing to it") from None
        self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._generations

    def __getitem__(self, key: str) -> Generation:
        return self._generations[key]

    def put(self, key: str, generation: Generation, about: Mapping[str, Any]) -> None:
        """Keep a generation, on disk when this returns; ``about`` is for people. Raises ValueError on a key twice."""
        if key in self._generations:
            raise ValueError(f"{self.path}: generation {key} is kept already")
        line = {"key": key, **about, **vars(generation)}
        self._file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
        self._file.flush()
        self._generations[key] = generation

    def _read(self) -> None:
        """Take in the whole lines, and cut off a last one that a killed process left unfinished."""
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                record = json.loads(line)
                generation = Generation(record["text"], record["num_tokens"], record["stop_reason"])
                self._generations[record["key"]] = generation
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"{self.path}: line {number} is no generation; repair it, or delete the line to make it again"
                ) from None
        self._file.truncate(whole)
