"""Names of plug-ins, and errors that list the choices."""

from dataclasses import dataclass, field

import pytest

from mifo_verl.errors import nearest, require
from mifo_verl.method.part import Part
from mifo_verl.method.registry import Registry


@pytest.fixture
def shapes() -> Registry[Part]:
    registry = Registry("mifo/shape", Part)

    @registry.register("square")
    @dataclass(frozen=True)
    class Square(Part):
        side: int
        tags: tuple = field(default_factory=tuple)
        colour: str = "red"

        def __post_init__(self) -> None:
            require(self.side > 0, "side", self.side, "above 0", "use mifo/shape=point")

    @registry.register("point")
    @dataclass(frozen=True)
    class Point(Part):
        pass

    return registry


def message(registry: Registry, node: dict) -> str:
    with pytest.raises(ValueError) as error:
        registry.build(node)
    return str(error.value)


def test_a_node_builds_its_member_with_its_settings(shapes):
    square = shapes.build({"name": "square", "side": 3})
    assert (square.side, square.colour, square.tags) == (3, "red", ())
    assert type(shapes.build({"name": "point"})).__name__ == "Point"


def test_the_node_is_not_changed(shapes):
    node = {"name": "square", "side": 3}
    shapes.build(node)
    assert node == {"name": "square", "side": 3}


def test_names_are_sorted(shapes):
    assert shapes.names() == ["point", "square"]


def test_register_returns_the_class():
    registry = Registry("mifo/shape", Part)

    @registry.register("it")
    @dataclass(frozen=True)
    class It(Part):
        pass

    assert It() == It() and type(registry.build({"name": "it"})) is It


def test_a_name_taken_is_refused(shapes):
    with pytest.raises(ValueError) as error:
        shapes.register("point")(type(shapes.build({"name": "point"})))
    assert str(error.value) == "mifo/shape: point is registered already, by Point"
    assert type(shapes.build({"name": "point"})).__name__ == "Point"


def test_an_unknown_name_lists_the_choices_and_the_nearest(shapes):
    assert message(shapes, {"name": "sqare", "side": 1}) == (
        "mifo.shape.name=sqare must be one of point, square (did you mean square?); choose it with mifo/shape=<name>"
    )


def test_a_missing_name_lists_the_choices(shapes):
    assert message(shapes, {}) == (
        "mifo.shape.name=None must be one of point, square; choose it with mifo/shape=<name>"
    )


def test_an_unknown_setting_lists_what_the_member_takes_and_the_nearest(shapes):
    assert message(shapes, {"name": "square", "side": 1, "color": "blue"}) == (
        "mifo.shape.color=blue must be a setting of square (did you mean colour?); "
        "square takes side, tags, colour, and mifo/shape=<name> chooses another member"
    )
    assert message(shapes, {"name": "point", "side": 1}) == (
        "mifo.shape.side=1 must be a setting of point; point takes no setting, "
        "and mifo/shape=<name> chooses another member"
    )


def test_a_missing_setting_without_default_is_named(shapes):
    assert message(shapes, {"name": "square"}) == (
        "mifo.shape.side must be set for square; write mifo.shape.side=<value>"
    )


def test_a_value_that_the_member_refuses_gets_its_full_name(shapes):
    assert message(shapes, {"name": "square", "side": 0}) == ("mifo.shape.side=0 must be above 0; use mifo/shape=point")


@pytest.mark.parametrize(("word", "hint"), [("sqare", " (did you mean square?)"), ("zzz", ""), ("", "")])
def test_nearest_hints_only_at_what_looks_alike(word, hint):
    assert nearest(word, ["point", "square"]) == hint
