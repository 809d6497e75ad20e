"""Python runs this at the start of every process that has this folder on its PYTHONPATH: the processes of a kill test."""

from tests.faults.points import begin

begin()
