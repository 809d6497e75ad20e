"""Columns of messages as flat arrays, and masks over their rows: what ``bad_rows`` looks at, batch by batch.

B stands for the rows of a batch, M for their messages.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
_STAND_IN = {
    "data_source": "?",
    "prompt": [{"role": "user", "content": "?"}],
    "reward_model": {"ground_truth": "?"},
}


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
        hits = self.row[mask(of_messages)]
        return np.bincount(hits, minlength=len(self.length)) > 0

    def malformed(self) -> Mask:
        """True for the rows without a message, or with one without a role or a text."""
        return (self.length == 0) | self.any(pc.or_(pc.is_null(self.role), pc.is_null(self.content)))

    def last_is_blank(self) -> Mask:
        """True for the rows whose last message is nothing but blanks."""
        return self._of_last(blank(self.content))

    def last_role_is(self, role: str) -> Mask:
        """True for the rows whose last message is of this role."""
        return self._of_last(mask(pc.equal(self.role, role)))

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


def readable(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Mask]:
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


def has(text: pa.Array, pattern: str) -> pa.Array:
    """True where the pattern is found; an empty pattern is found nowhere."""
    return pc.match_substring_regex(text, pattern) if pattern else pa.array(np.zeros(len(text), bool))


def blank(text: pa.Array) -> Mask:
    """True for a null and for nothing but blanks."""
    return ~mask(pc.match_substring_regex(text, r"\S"))


def mask(of_rows: pa.Array) -> Mask:
    """Booleans of Arrow as NumPy's; a null is False."""
    return np.asarray(of_rows.fill_null(False)).astype(bool)
