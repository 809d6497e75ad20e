"""A row is held out where no training row has its id or asks its question."""

from typing import Any

from mifo_verl.probes.held_out import TrainingPrompts, question_of, spread


def row(text: str, prompt_id: str | None = None, system: str = "") -> dict[str, Any]:
    messages = [{"role": "system", "content": system}] * bool(system) + [{"role": "user", "content": text}]
    return {"prompt": messages} | ({"prompt_id": prompt_id} if prompt_id else {})


def test_the_id_or_the_question_alone_is_enough_to_be_trained_on():
    trained = TrainingPrompts([row("1+1=?", "a"), row("2+2=?", "b", system="Be short.")])
    assert trained.has(row("other", "a"))
    assert trained.has(row("2+2=?", "c"))
    assert trained.has(row(" 1+1=?\n", "c", system="Think."))
    assert not trained.has(row("3+3=?", "c"))
    assert trained.place == {"a": 0, "b": 1}


def test_rows_without_ids_are_known_by_their_messages():
    trained = TrainingPrompts([row("1+1=?")])
    assert trained.has(row("1+1=?")) and not trained.has(row("1+2=?"))
    assert question_of(row("a  b", system="s")["prompt"]) == "a b"


def test_what_is_chosen_is_spread_evenly():
    assert spread(range(10), 4) == [0, 2, 5, 7]
    assert spread("abc", 3) == spread("abc", 7) == spread("abc", None) == ["a", "b", "c"]
    assert spread([], 3) == [] == spread("abc", 0)
