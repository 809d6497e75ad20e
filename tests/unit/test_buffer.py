"""The buffer B: method.md part 1 steps 2 and 7, and the table of open choices."""

from mifo_verl.method.buffer import DemonstrationBuffer
from mifo_verl.types import BufferEntry, PromptGroup, SftExample


def entry(prompt_id: str, num_correct: int = 0, step: int = 1) -> BufferEntry:
    example = SftExample(prompt_id, (1, 2), (3, 4), demonstration_sha256="0" * 64)
    return BufferEntry(PromptGroup(prompt_id, num_correct, 8, step), example)


def filled(*prompt_ids: str) -> DemonstrationBuffer:
    buffer = DemonstrationBuffer()
    for prompt_id in prompt_ids:
        buffer.put(entry(prompt_id))
    return buffer


def ids(entries) -> list[str]:
    return [e.example.prompt_id for e in entries]


def test_a_new_buffer_is_empty():
    buffer = DemonstrationBuffer()
    assert len(buffer) == 0 and list(buffer) == [] and buffer.take(None) == [] and buffer.take(3) == []


def test_entries_come_oldest_first():
    assert ids(filled("b", "a", "c")) == ["b", "a", "c"]


def test_a_prompt_seen_again_counts_once_and_its_newest_rollouts_replace_the_old_ones():
    buffer = filled("a", "b")
    newer = entry("a", num_correct=1, step=9)
    buffer.put(newer)
    assert len(buffer) == 2
    assert list(buffer) == [entry("b"), newer]


def test_a_prompt_seen_again_becomes_the_newest():
    buffer = filled("a", "b", "c")
    buffer.put(entry("a"))
    assert ids(buffer.take(2)) == ["b", "c"]
    assert ids(buffer) == ["a"]


def test_a_prompt_that_is_no_longer_hard_is_dropped():
    buffer = filled("a", "b")
    buffer.discard("a")
    assert ids(buffer) == ["b"]


def test_dropping_an_absent_prompt_does_nothing():
    buffer = filled("a")
    buffer.discard("z")
    assert ids(buffer) == ["a"]


def test_taking_without_a_limit_empties_the_buffer():
    buffer = filled("a", "b", "c")
    assert ids(buffer.take(None)) == ["a", "b", "c"]
    assert len(buffer) == 0


def test_taking_with_a_limit_takes_the_oldest_and_keeps_the_surplus():
    buffer = filled("a", "b", "c", "d", "e")
    assert ids(buffer.take(3)) == ["a", "b", "c"]
    assert ids(buffer) == ["d", "e"]


def test_the_oldest_are_those_that_are_taken_and_stay():
    buffer = filled("a", "b", "c")
    assert ids(buffer.oldest(2)) == ["a", "b"] == ids(buffer.take(2))
    assert ids(buffer.oldest(None)) == ["c"] == ids(buffer)


def test_taking_more_than_there_is_takes_all():
    buffer = filled("a")
    assert ids(buffer.take(64)) == ["a"] and len(buffer) == 0


def test_taking_none_of_it_takes_nothing():
    buffer = filled("a")
    assert buffer.take(0) == [] and ids(buffer) == ["a"]


def test_what_was_taken_does_not_change_when_the_buffer_fills_again():
    buffer = filled("a")
    taken = buffer.take(None)
    buffer.put(entry("b"))
    assert ids(taken) == ["a"]


def test_what_is_put_back_comes_first_again_in_its_order_and_a_newer_entry_stays():
    buffer = filled("a", "b", "c", "d")
    taken = buffer.take(3)
    newer = entry("c", num_correct=1, step=9)
    buffer.put(newer)
    buffer.put_back(taken)
    assert ids(buffer) == ["a", "b", "c", "d"] and newer in list(buffer)
    assert ids(buffer.take(2)) == ["a", "b"]


def test_an_entry_keeps_its_provenance():
    buffer = DemonstrationBuffer()
    buffer.put(entry("a", num_correct=1, step=7))
    assert next(iter(buffer)).group == PromptGroup("a", 1, 8, 7)
