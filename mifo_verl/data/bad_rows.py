"""The rows of a parquet file that no run should train on, found column by column, with the reason against each.

A row is read as columns of Arrow, never as Python objects, so that a file of some 10,000 long demonstrations takes
seconds.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mifo_verl.data.parquet import find_demonstrations, is_untyped

MAX_FIELD_BYTES = 1_000_000
"""A longer text is no prompt and no demonstration: about 250,000 tokens."""
ROLES = ("system", "user", "assistant", "tool")
_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
_BATCH_ROWS = 1024
_THREADS = 2
_COLUMNS = ("data_source", "prompt", "target", "prompt_id", "extra_info")
NUM_SHOWN = 5
Mask = NDArray[np.bool_]
_STAND_IN = {
    "data_source": "?",
    "prompt": [{"role": "user", "content": "?"}],
    "reward_model": {"ground_truth": "?"},
}
_SHOWN_CHARS = 160


class Reason(Enum):
    """Why a row is bad; a row has the first that holds. ``value`` is the word for reports, ``rule`` what has to be."""

    NO_DATA_SOURCE = "no_data_source", "data_source a text"
    MALFORMED_PROMPT = (
        "malformed_prompt",
        "prompt a list of messages, each with a role and a text, the last not blank",
    )
    UNKNOWN_ROLE = "unknown_role", f"the role of every message one of {', '.join(ROLES)}"
    ENDS_WITH_ANSWER = "ends_with_answer", "the last message of prompt a question, not one of the assistant's"
    NO_ANSWER = "no_answer", "reward_model.ground_truth a text that is not blank"
    MALFORMED_DEMONSTRATION = (
        "malformed_demonstration",
        "target null, or one message with the role assistant and a text",
    )
    CONTROL_CHARACTER = "control_character", "text without control characters (a null byte for instance) and in UTF-8"
    SPECIAL_TOKEN = (
        "special_token",
        "text without the tokenizer's special tokens, which would split the conversation",
    )
    TOO_LONG = "too_long", f"every text within {MAX_FIELD_BYTES:,} bytes"
    LONG_PROMPT = "long_prompt", "every prompt within data.max_prompt_length tokens"
    DUPLICATE = "duplicate", "its prompt no other row's"
    SHARED_ID = "shared_prompt_id", "its prompt_id no other prompt's"

    rule: str

    def __new__(cls, word: str, rule: str) -> "Reason":
        """The member with the word as its value."""
        member = object.__new__(cls)
        member._value_, member.rule = word, rule
        return member


@dataclass
class RowScan:
    """What is known of a file's rows, by row number from 0."""

    path: Path
    num_rows: int = 0
    bad: dict[int, Reason] = field(default_factory=dict)
    has_demonstration: list[bool] = field(default_factory=list)
    prompt_bytes: list[int] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    """Roles and texts of the prompt in one string; None where it is malformed."""
    texts: dict[int, str] = field(default_factory=dict)
    """An excerpt of a bad row, of the first five of every reason at least."""
    sample: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Some rows whole, evenly spaced."""

    def good_rows(self) -> list[int]:
        """The rows that are not bad, in order."""
        return [row for row in range(self.num_rows) if row not in self.bad]

    def messages(self, row: int) -> list[dict[str, str]]:
        """The prompt of a good row."""
        parts = [message.split("\0") for message in str(self.keys[row]).split("\1")]
        return [{"role": role, "content": content} for role, content in parts]

    def num_demonstrations(self) -> int:
        """Good rows with a demonstration, well formed but not verified."""
        return sum(self.has_demonstration[row] for row in self.good_rows())


def scan_rows(path: str | Path, special_tokens: Iterable[str] = (), num_sampled: int = 0) -> RowScan:
    """The bad rows of a file that ``check_columns`` passed, and a sample of all its rows; reads it once."""
    file = pq.ParquetFile(path)
    columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
    hostile = "|".join(map(re.escape, special_tokens))
    total = file.metadata.num_rows
    wanted = {place * total // num_sampled for place in range(num_sampled)} if total else set()
    batches = file.iter_batches(_BATCH_ROWS, columns=[*columns, "reward_model.ground_truth"])
    scan, ids = RowScan(Path(path)), []
    for part, part_ids in _in_threads(lambda start, batch: _scan_batch(batch, hostile, wanted, start), batches):
        scan.bad |= {scan.num_rows + row: reason for row, reason in part.bad.items()}
        scan.texts |= {scan.num_rows + row: text for row, text in part.texts.items()}
        scan.sample |= {scan.num_rows + row: whole for row, whole in part.sample.items()}
        scan.has_demonstration += part.has_demonstration
        scan.prompt_bytes += part.prompt_bytes
        scan.keys += part.keys
        ids += part_ids
        scan.num_rows += part.num_rows
    _find_repeats(scan, ids)
    return scan


def _in_threads(scan: Callable[[int, pa.RecordBatch], Any], batches: Iterable[pa.RecordBatch]) -> Iterator[Any]:
    """What ``scan(first row, batch)`` returns, in order; a few batches at a time, so that not all are in memory."""
    batches, start = iter(batches), 0
    with ThreadPoolExecutor(_THREADS) as pool:
        while group := list(islice(batches, 2 * _THREADS)):
            starts = [start + number * _BATCH_ROWS for number in range(len(group))]
            start += len(group) * _BATCH_ROWS
            yield from pool.map(scan, starts, group)


def excerpt(text: str, position: int = 0) -> str:
    """A piece of a text around a position, on one line, control characters escaped."""
    start = max(0, position - _SHOWN_CHARS // 2)
    piece = text[start : start + _SHOWN_CHARS]
    shown = piece if piece.isprintable() else piece.encode("unicode_escape").decode()
    return ("..." if start else "") + shown[: 2 * _SHOWN_CHARS] + ("..." if start + _SHOWN_CHARS < len(text) else "")


def _find_repeats(scan: RowScan, ids: Sequence[str | None]) -> None:
    """Mark a row whose prompt, or whose prompt_id, an earlier good row has."""
    first: dict[str, int] = {}
    owner: dict[str, str] = {}
    for row, key in enumerate(scan.keys):
        if key is None or row in scan.bad:
            continue
        name = ids[row] if ids else None
        if key in first:
            scan.bad[row], scan.texts[row] = Reason.DUPLICATE, f"as row {first[key]}: {_shown(key)}"
        elif name is not None and name in owner:
            scan.bad[row], scan.texts[row] = Reason.SHARED_ID, f"prompt_id {name}: {_shown(key)}"
        else:
            first[key] = row
            if name is not None:
                owner[name] = key


def _shown(key: str) -> str:
    return excerpt(key.replace("\0", ": ").replace("\1", " | "))


def _scan_batch(batch: pa.RecordBatch, hostile: str, wanted: set[int], start: int) -> tuple[RowScan, list[str | None]]:
    batch, broken = _readable(batch)
    size, names = batch.num_rows, batch.schema.names
    prompt = Messages(batch.column("prompt"))
    truth = pc.cast(pc.struct_field(batch.column("reward_model"), "ground_truth"), pa.string())
    found = {
        Reason.NO_DATA_SOURCE: _mask(pc.is_null(batch.column("data_source"))),
        Reason.MALFORMED_PROMPT: prompt.malformed() | prompt.last_is_blank(),
        Reason.UNKNOWN_ROLE: prompt.any(pc.invert(pc.is_in(prompt.role, pa.array(ROLES)))),
        Reason.ENDS_WITH_ANSWER: prompt.last_role_is("assistant"),
        Reason.NO_ANSWER: _blank(truth),
        Reason.CONTROL_CHARACTER: broken | prompt.any(_has(prompt.content, _CONTROL)) | _mask(_has(truth, _CONTROL)),
        Reason.SPECIAL_TOKEN: prompt.any(_has(prompt.content, hostile)),
        Reason.TOO_LONG: prompt.any(pc.greater(pc.binary_length(prompt.content), MAX_FIELD_BYTES)),
    }
    demonstration = np.zeros(size, bool)
    if "target" in names and not is_untyped(batch.schema.field("target").type):
        target = Messages(batch.column("target"))
        demonstration = _mask(find_demonstrations(batch.column("target")))
        found[Reason.MALFORMED_DEMONSTRATION] = (target.length > 0) & ~demonstration
        found[Reason.CONTROL_CHARACTER] |= target.any(_has(target.content, _CONTROL))
        found[Reason.SPECIAL_TOKEN] |= target.any(_has(target.content, hostile))
        found[Reason.TOO_LONG] |= target.any(pc.greater(pc.binary_length(target.content), MAX_FIELD_BYTES))
    bad = {int(row): reason for reason in reversed(Reason) if reason in found for row in np.flatnonzero(found[reason])}
    keys = [None if wrong else key for wrong, key in zip(found[Reason.MALFORMED_PROMPT], prompt.keys(), strict=True)]
    scan = RowScan(Path(), size, bad, demonstration.tolist(), prompt.num_bytes().tolist(), keys)
    for reason in set(bad.values()):
        for row in [row for row in sorted(bad) if bad[row] is reason][:NUM_SHOWN]:
            scan.texts[row] = _excerpt_of(batch.slice(row, 1).to_pylist()[0], reason, hostile)
    scan.sample = {row: batch.slice(row, 1).to_pylist()[0] for row in range(size) if start + row in wanted}
    ids = batch.column("prompt_id").to_pylist() if "prompt_id" in names else [None] * size
    return scan, [None if name is None else str(name) for name in ids]


def _excerpt_of(row: dict[str, Any], reason: Reason, hostile: str) -> str:
    """The part of a row that shows why it is bad."""
    pattern = {Reason.CONTROL_CHARACTER: _CONTROL, Reason.SPECIAL_TOKEN: hostile}.get(reason)
    messages = [*(row["prompt"] or []), *(row.get("target") or [])]
    for message in messages if pattern else []:
        hit = re.search(pattern or "", (message or {}).get("content") or "")
        if hit:
            return excerpt(message["content"], hit.start())
    if reason is Reason.TOO_LONG:
        longest = max((message["content"] or "" for message in messages), key=len)
        return f"{len(longest.encode()):,} bytes: {excerpt(longest)}"
    column = {Reason.NO_ANSWER: "reward_model", Reason.MALFORMED_DEMONSTRATION: "target"}.get(reason, "prompt")
    return f"{column}={excerpt(str(row[column]))}"


class Messages:
    """A column of lists of messages, flat: role_M, content_M, and row_M, the row of each message."""

    def __init__(self, column: pa.Array) -> None:
        flat = pc.list_flatten(column)
        self.role, self.content = pc.struct_field(flat, "role"), pc.struct_field(flat, "content")
        self.row = np.asarray(pc.list_parent_indices(column), dtype=np.int64)
        self.length = np.asarray(pc.list_value_length(column).fill_null(0), dtype=np.int64)
        self._ends = np.cumsum(self.length)

    def any(self, of_messages: pa.Array) -> Mask:
        """True for the rows with a message for which the mask holds; a null does not hold."""
        hits = self.row[_mask(of_messages)]
        return np.bincount(hits, minlength=len(self.length)) > 0

    def malformed(self) -> Mask:
        """True for the rows without a message, or with one without a role or a text."""
        return (self.length == 0) | self.any(pc.or_(pc.is_null(self.role), pc.is_null(self.content)))

    def last_is_blank(self) -> Mask:
        """True for the rows whose last message is nothing but blanks."""
        return self._of_last(_blank(self.content))

    def last_role_is(self, role: str) -> Mask:
        """True for the rows whose last message is of this role."""
        return self._of_last(_mask(pc.equal(self.role, role)))

    def num_bytes(self) -> NDArray[np.int64]:
        """Bytes of all texts of each row."""
        lengths = np.asarray(pc.binary_length(self.content).fill_null(0), dtype=np.int64)
        return np.bincount(self.row, weights=lengths, minlength=len(self.length)).astype(np.int64)

    def keys(self) -> list[str]:
        """Roles and texts of each row in one string."""
        pairs = zip(self.role.to_pylist(), self.content.to_pylist(), strict=True)
        texts = [f"{role}\0{content}" for role, content in pairs]
        return ["\1".join(texts[end - length : end]) for end, length in zip(self._ends, self.length, strict=True)]

    def _of_last(self, of_messages: Mask) -> Mask:
        some, result = self.length > 0, np.zeros(len(self.length), bool)
        result[some] = of_messages[self._ends[some] - 1]
        return result


def _readable(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Mask]:
    """The batch in valid UTF-8, and True for the rows where it was not, which a stand-in takes the place of."""
    broken = np.zeros(batch.num_rows, bool)
    try:
        batch.validate(full=True)
        return batch, broken
    except pa.ArrowInvalid:
        pass
    rows = []
    for number in range(batch.num_rows):
        row = batch.slice(number, 1)
        try:
            row.validate(full=True)
            rows += row.to_pylist()
        except (pa.ArrowInvalid, UnicodeDecodeError):
            broken[number] = True
            rows.append(_STAND_IN)
    return pa.RecordBatch.from_pylist(rows, schema=batch.schema), broken


def _has(text: pa.Array, pattern: str) -> pa.Array:
    """True where the pattern is found; an empty pattern is found nowhere."""
    return pc.match_substring_regex(text, pattern) if pattern else pa.array(np.zeros(len(text), bool))


def _blank(text: pa.Array) -> Mask:
    """True for a null and for nothing but blanks."""
    return ~_mask(pc.match_substring_regex(text, r"\S"))


def _mask(of_rows: pa.Array) -> Mask:
    """Booleans of Arrow as NumPy's; a null is False."""
    return np.asarray(of_rows.fill_null(False)).astype(bool)
