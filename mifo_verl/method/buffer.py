"""The buffer B of hard prompts with a verified demonstration (MIFO section 3, step 2)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mifo_verl.types import BufferEntry


@dataclass
class DemonstrationBuffer:
    """At most one entry a prompt, oldest first. Each entry keeps its provenance: the rollouts that made it hard."""

    entries: dict[str, BufferEntry] = field(default_factory=dict)
    """By prompt id."""

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[BufferEntry]:
        return iter(self.entries.values())

    def put(self, entry: BufferEntry) -> None:
        """Add a prompt as the newest entry. A prompt seen again replaces its old entry."""
        self.discard(entry.example.prompt_id)
        self.entries[entry.example.prompt_id] = entry

    def discard(self, prompt_id: str) -> None:
        """Drop a prompt whose newest rollouts are no longer hard; nothing happens where it is absent."""
        self.entries.pop(prompt_id, None)

    def put_back(self, entries: Iterable[BufferEntry]) -> None:
        """Before all others, in this order; a prompt that has a newer entry keeps that."""
        self.entries = {entry.example.prompt_id: entry for entry in entries} | self.entries

    def oldest(self, limit: int | None) -> list[BufferEntry]:
        """The oldest ``limit`` entries (all where None), which stay."""
        return list(self.entries.values())[:limit]

    def take(self, limit: int | None) -> list[BufferEntry]:
        """Remove and return the oldest ``limit`` entries (all where None); the surplus stays for the next phase."""
        taken = self.oldest(limit)
        for entry in taken:
            del self.entries[entry.example.prompt_id]
        return taken
