"""A part that no file of the package knows is checked as ours are: what it says does not fit, and what it keeps."""

from collections.abc import Iterable
from dataclasses import dataclass

from mifo_verl.checks.preflight import check_run
from mifo_verl.compose import compose_config
from mifo_verl.errors import require_count
from mifo_verl.method.constraint import Constraint
from mifo_verl.types import Cost, Problem, RunFacts
from tests.configs.test_check import given


@dataclass(frozen=True)
class FewPrompts(Constraint):
    """Wants few prompts a step, and keeps two bytes a coordinate in RL."""

    most: int = 4

    def __post_init__(self) -> None:
        require_count("most", self.most, "write most=4")

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        if facts.prompts > self.most:
            yield self.problem("most", f"at least the {facts.prompts} prompts of a step", "make it larger")

    def costs(self, facts: RunFacts) -> Iterable[Cost]:
        yield Cost("a second thought", 2, ("rl",), "2N/W", saved_bytes=2)


def checked(folder, *more: str):
    own = folder / "conf" / "mifo" / "constraint" / "few.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("_target_: tests.configs.test_unknown_part.FewPrompts\nmost: 4\n")
    config_dir = ["--config-dir", str(folder / "conf"), "mifo/constraint=few"]
    overrides = given(folder, *config_dir, *more)
    return check_run(compose_config(overrides).node, overrides)


def test_its_problem_is_an_error_in_the_form_of_every_other_and_its_cost_is_counted(tmp_path):
    run = checked(tmp_path)
    (error,) = run.found.errors()
    assert str(error) == "mifo.constraint.most=4 must be at least the 16 prompts of a step; make it larger"
    (kept,) = [component for component in run.components if component.name == "a second thought"]
    (weights,) = [component for component in run.components if component.name == "parameters"]
    assert (kept.num_bytes, kept.phases, kept.place) == (weights.num_bytes / 2, ("rl",), "device")


def test_its_settings_are_checked_by_itself(tmp_path):
    errors = [str(error) for error in checked(tmp_path, "mifo.constraint.most=0").found.errors()]
    assert errors == ["mifo.constraint.most=0 must be a whole number of at least 1; write most=4"]
