"""Every mutant can still be tried: its old text is there once, and so are its tests."""

import pytest

from tests.mutants.__main__ import ROOT, mutants


def test_there_are_enough_and_no_two_are_called_alike():
    names = [one.name for one in mutants()]
    assert len(names) == len(set(names)) >= 60


@pytest.mark.parametrize("mutant", mutants(), ids=lambda one: one.name)
def test_a_mutant_can_be_tried(mutant):
    assert mutant.problem() == "" and mutant.old != mutant.new
    for test in mutant.tests.split():
        file, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / file).read_text()
