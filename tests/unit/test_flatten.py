"""Configs as flat settings."""

from mifo_verl.run.flatten import flatten


def test_a_setting_has_its_full_name_and_an_empty_group_is_one() -> None:
    node = {"seed": 0, "mifo": {"constraint": {"share": "1/2", 3: None}, "sft": {}}, "files": ["a", "b"]}
    assert list(flatten(node).items()) == [
        ("seed", 0),
        ("mifo.constraint.share", "1/2"),
        ("mifo.constraint.3", None),
        ("mifo.sft", {}),
        ("files", ["a", "b"]),
    ]
