"""A part says what it needs, how it fits, what it costs and how it is described; parts may come from elsewhere."""

import sys
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint

import pytest

from mifo_verl.method import registry as registry_file
from mifo_verl.method.constraint import NoConstraint
from mifo_verl.method.gate import GATES, AnyPrompt, Gate, MaxAccuracy
from mifo_verl.method.mask import GradientMask, StrictMask
from mifo_verl.method.off_policy import OffPolicy
from mifo_verl.method.on_policy import OnPolicy
from mifo_verl.method.part import Part
from mifo_verl.method.registry import Registry, load_outside_parts
from mifo_verl.method.schedule import Always, Every, Never, SftThenRl, WhenFull
from mifo_verl.method.sft_loss import SftLoss
from mifo_verl.types import Problem, Progress, RunFacts

OWN_GATES = Registry("mifo/gate", Gate)


@dataclass(frozen=True)
class Own(Part):
    """A part of somebody else's package."""

    size: int = 3


def said(part: Part, **facts) -> list[str]:
    """The problems as a user reads them."""
    return [
        f"{found.setting}={found.value} {'must be ' * found.is_error}{found.rule}; {found.cure}"
        for found in part.problems(RunFacts(**facts))
    ]


def test_a_part_needs_nothing_fits_everywhere_and_costs_nothing_unless_it_says_otherwise():
    registry = Registry("mifo/thing", Part)
    registry.register("own")(Own)
    part = registry.build({"name": "own", "size": 4})
    assert (part.needs, said(part), list(part.costs(RunFacts()))) == (frozenset(), [], [])
    assert part.describe() == "own (size=4)" and part.setting("size") == "mifo.thing.size"
    assert part.problem("size", "odd", "add one") == Problem("mifo.thing.size", 4, "odd", "add one", is_error=True)


def test_a_mask_needs_the_start_and_a_history_only_if_it_remembers():
    assert StrictMask().needs == {"start", "history"} and StrictMask(history=0).needs == {"start"}
    assert NoConstraint().needs == frozenset()


def test_a_mask_wants_float32_weights():
    assert said(GradientMask(), weights_dtype="bf16") == [
        "actor_rollout_ref.actor.fsdp_config.model_dtype=bf16 must be fp32, because importance is taken from float32 "
        "master weights (bf16 hides most RL updates); use actor_rollout_ref.actor.fsdp_config.model_dtype=fp32, or "
        "mifo/constraint=none"
    ]
    assert said(NoConstraint(), weights_dtype="bf16") == said(StrictMask()) == []


def test_what_a_mask_costs():
    def costs(part, **facts):
        return [(c.name, c.num_bytes, c.phases, c.saved_bytes) for c in part.costs(RunFacts(**facts))]

    always = ("rollout", "rl", "sft")
    mask, history = ("mask", 0.125, ("sft",), 0), ("importance", 4, always, 4)
    assert costs(StrictMask(share=0.25)) == [history, mask]  # AdamW: steps in slices hold nothing
    other = {"optimizer": "Lion"}
    assert costs(StrictMask(share=0.25), **other) == [history, mask, ("held values", 3.0, ("sft",), 0)]
    assert costs(StrictMask(), **other, sft_optimizer="fresh")[-1] == ("held values", 2.0, ("sft",), 0)
    assert costs(GradientMask(history=0)) == [("importance", 4, ("sft",), 0), mask]
    assert costs(NoConstraint()) == costs(StrictMask(), has_sft_phases=False) == []


def test_an_accuracy_below_one_rollout_and_one_of_1_are_advice():
    assert said(MaxAccuracy(0.1)) == [
        "mifo.gate.max_accuracy=0.1 is below one rollout of 8 and acts as 0: hard is a prompt without any correct "
        "rollout; write '1/8' for one, or 0"
    ]
    assert said(MaxAccuracy(1)) == ["mifo.gate.max_accuracy=1 takes every prompt for hard; use mifo/gate=any for that"]
    assert said(MaxAccuracy(0)) == said(MaxAccuracy("1/8")) == said(AnyPrompt()) == []
    assert said(MaxAccuracy(0.1), has_sft_phases=False) == []


def test_phases_that_never_come_are_advice_and_too_few_demonstrations_an_error():
    assert said(WhenFull(21), steps=5, prompts=4) == [
        "mifo.schedule.size=21 is more than the 20 prompts of the whole run: no SFT phase ever comes; make it smaller, "
        "or the run longer"
    ]
    assert said(Every(6), steps=5) == [
        "mifo.schedule.rl_steps=6 is more than the run's 5 steps: no SFT phase ever comes; make it smaller, or the "
        "run longer"
    ]
    assert said(SftThenRl(5), steps=5) == [
        "mifo.schedule.sft_steps=5 is no less than the run's 5 steps (trainer.total_training_steps): no RL step ever "
        "comes; make it smaller, or the run longer"
    ]
    few = "at most the 7 demonstrations of data.train_files; make it smaller, or no SFT phase ever comes"
    assert said(WhenFull(8), demonstrations=7) == [f"mifo.schedule.size=8 must be {few}"]
    assert said(Every(1, 8), demonstrations=7) == [f"mifo.schedule.min_size=8 must be {few}"]
    for schedule in (WhenFull(20), Every(5), SftThenRl(4), Never(), Always()):
        assert said(schedule, steps=5, prompts=4, demonstrations=20) == []


def test_the_phases_that_a_schedule_foretells():
    facts = RunFacts(steps=10, prompts=32)
    told = {
        WhenFull(64): (10, 1.25, 64),  # 32 prompts * 1/4 hard * 10 steps / 64
        WhenFull(4): (10, 10, 4),  # no more than one phase a step
        Every(5, 2): (10, 2, 40),
        Every(5, 50): (10, 2, 50),
        Never(): (10, 0, 0),
        Always(): (0, 10, 32),
        SftThenRl(4): (6, 4, 32),
    }
    for schedule, phases in told.items():
        expected = schedule.expected(facts, hard_share=0.25)
        assert (expected.rl_steps, expected.sft_phases, expected.demonstrations) == phases
    assert [schedule.num_rl_steps(10) for schedule in told] == [10, 10, 10, 10, 10, 0, 6]
    place = Progress(step=2, interval=3, rl_steps=1, steps=10)
    assert [schedule.sft_share(place, 0.5) for schedule in told] == [0.5, 0.5, 0.5, 0.5, 0.5, 0.25, 0.625]
    assert Always().sft_share(replace(place, spent=0.75), 0.5) == 0.75  # a budget ends the run
    assert [schedule.has_sft_phases for schedule in told] == [True, True, True, True, False, True, True]
    assert [schedule.buffer_limit for schedule in told] == [64, 4, None, None, None, None, None]


def test_a_strict_mask_wants_moments_that_can_be_put_back():
    assert said(StrictMask(), optimizer="AdamW8bit") == [
        "actor_rollout_ref.actor.optim.optimizer=AdamW8bit must be an optimizer with moments of at least 16 bits, "
        "because those of frozen coordinates are put back; use AdamW, or mifo/constraint=gradient"
    ]
    assert said(GradientMask(), optimizer="AdamW8bit") == []


def test_a_fact_that_nobody_gives_is_refused():
    @dataclass(frozen=True)
    class Curious(SftLoss):
        @property
        def needs(self):
            return frozenset({"entropy", "progress", "top_mass:10", "top_entropy:0", "teacher_log_probs"})

    Registry("mifo/sft_loss", SftLoss).register("curious")(Curious)
    given = "log_prob_before, progress, teacher_log_prob"
    rule = f"must be a part whose needs are entropy, {given}, top_mass:K or top_entropy:K, of the K likeliest tokens"
    assert said(Curious()) == [
        f"mifo.sft_loss=curious (needs {fact}) {rule}; correct its needs"
        for fact in ("teacher_log_probs", "top_entropy:0")
    ]


@pytest.mark.parametrize(
    ("base", "given", "other"),
    [(OffPolicy, ("given", "first", "entropy"), "correct"), (OnPolicy, ("correct", "entropy"), "teacher_log_prob")],
)
def test_a_rule_of_the_rl_loss_that_needs_what_no_rollout_has_is_refused(base, given, other):
    group = {OffPolicy: "mifo/off_policy", OnPolicy: "mifo/on_policy"}[base]

    @dataclass(frozen=True)
    class Curious(base):
        needs = frozenset({*given, other})

    Registry(group, base).register("curious")(Curious)
    rule = f"{group.replace('/', '.')}=curious (needs {other}) must be a part whose needs are {' or '.join(given)}"
    assert said(Curious(), has_prefixes=True) == [f"{rule}; correct its needs"]


def test_the_policy_before_an_sft_phase_is_compared_with_beside_such_phases_alone():
    @dataclass(frozen=True)
    class Near(SftLoss):
        @property
        def needs(self):
            return frozenset({"log_prob_before"})

    Registry("mifo/sft_loss", SftLoss).register("near")(Near)
    assert said(Near()) == [] and [cost.num_bytes for cost in Near().costs(RunFacts())] == [4]
    (problem,) = said(Near(), has_sft_phases=False)
    assert problem.startswith("mifo.sft_loss.name=near must be beside SFT phases")


# Parts from outside


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A package that is importable and registers a part of its own."""
    (tmp_path / "their_parts.py").write_text(
        "from dataclasses import dataclass\n"
        "from mifo_verl.method.gate import Gate\n"
        "from mifo_verl.types import Use\n"
        "@dataclass(frozen=True)\n"
        "class Alternate(Gate):\n"
        "    every: int = 2\n"
        "    def __call__(self, group):\n"
        "        return Use.SFT_LATER if group.step % self.every == 0 else Use.RL\n"
        "class NoDataclass(Gate):\n"
        "    pass\n"
        "def register():\n"
        "    from tests.unit.test_part import OWN_GATES\n"
        "    OWN_GATES.register('alternate')(Alternate)\n"
        "def fail():\n"
        "    raise KeyError('gone')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    load_outside_parts.cache_clear()
    yield lambda name: monkeypatch.setattr(
        registry_file,
        "entry_points",
        lambda group: [EntryPoint("theirs", f"their_parts:{name}", group)] if group == "mifo_verl.parts" else [],
    )
    load_outside_parts.cache_clear()
    sys.modules.pop("their_parts", None)


def test_a_part_of_an_entry_point_is_a_member_like_any_other(outside):
    outside("register")
    assert OWN_GATES.names() == ["alternate"]
    part = OWN_GATES.build({"name": "alternate", "every": 3})
    assert part.describe() == "alternate (every=3)" and part.accepts(1, 8) is True


def test_an_entry_point_that_fails_is_named(outside):
    outside("fail")
    with pytest.raises(RuntimeError) as error:
        GATES.names()
    assert str(error.value) == (
        "a package offers parts as mifo_verl.parts: theirs = their_parts:fail, and they failed to load: "
        "KeyError: 'gone'; correct or uninstall it"
    )


def test_a_part_may_be_named_by_its_class(outside):
    part = GATES.build({"_target_": "their_parts.Alternate", "every": 4})
    assert part.describe() == "Alternate (every=4)" and part.setting("every") == "mifo.gate.every"
    assert GATES.build({"_target_": "their_parts.Alternate", "name": "mine"}).describe() == "mine (every=2)"


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "their_parts.Alternate", "name": "any"}, "must have a name of its own: any is taken"),
        ({"_target_": "their_parts.Gone"}, "must be package.module.Class, a part of mifo/gate in a package that is"),
        ({"_target_": "nowhere.Alternate"}, "(ModuleNotFoundError: No module named 'nowhere')"),
        ({"_target_": "their_parts.NoDataclass"}, "NoDataclass is no dataclass; decorate it"),
        ({"_target_": "mifo_verl.method.schedule.Never"}, "does not derive from mifo_verl.method.gate.Gate"),
        ({"_target_": "their_parts.Alternate", "evry": 4}, "mifo.gate.evry=4 must be a setting of Alternate (did you"),
    ],
)
def test_a_class_that_is_no_part_of_the_group_is_refused(outside, node, message):
    with pytest.raises(ValueError) as error:
        GATES.build(node)
    assert message in str(error.value)
