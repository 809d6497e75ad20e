"""What the probes measure at a border, with a policy and answers whose numbers are known."""

from collections import Counter
from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from mifo_verl.config import build_config
from mifo_verl.loop.state import Answer, Before, LoopState, SftProgress
from mifo_verl.probes.held_out import HeldOut, held_out, measured_on
from mifo_verl.probes.probes import Asked, Policy, Probes
from mifo_verl.probes.step import RowSums
from mifo_verl.settings import ProbeConfig
from mifo_verl.types import BufferEntry, PromptGroup, Rejection, SftExample
from mifo_verl.verl.build import asked_with

DEMONSTRATIONS = [SftExample("d0", (1,), (1, 2), "a"), SftExample("d1", (1,), (1, 2, 3, 4), "b")]
VALIDATION = [{"id": name, "data_source": "even" if int(name[1]) % 2 == 0 else "odd"} for name in ("v0", "v1", "v2")]
TRAINING = {name: {"id": name, "data_source": "train"} for name in ("s1", "s2", "h1", "h2", "h3")}


class Model:
    """Its log-probability of every token is ``log_prob``; it answers right the prompts in ``right``."""

    def __init__(self) -> None:
        self.log_prob, self.right = -1.0, {"v0", "s1", "s2"}
        self.asked: list[list[str]] = []
        self.servers: list[str] = []

    def measured(self) -> Policy:
        return Policy(self.forward, self.ask, lambda: self.servers.append("wake"), lambda: self.servers.append("sleep"))

    def forward(self, rows, with_shift):
        sizes = [len(response) for _, response in rows]
        if not with_shift:
            return [RowSums(n, self.log_prob * n) for n in sizes]
        kl, start = iter((0.5, 0.25)), iter((-3.0, -1.0))  # of the rollouts of v0 (right) and v1 (wrong)
        return [RowSums(n, self.log_prob * n, 2.0 * n, next(start) * n, 1.0 * n, next(kl) * n) for n in sizes]

    def ask(self, rows):
        self.asked.append([row["id"] for row in rows])
        return [
            Asked(row["data_source"], 2, [Answer([1], [5] * (place + 1), row["id"] in self.right)] * 2)
            for place, row in enumerate(rows)
        ]


@pytest.fixture
def policy() -> Model:
    return Model()


def probes_of(policy: Model, state: LoopState | None = None, **settings) -> Probes:
    data = HeldOut(VALIDATION, DEMONSTRATIONS, TRAINING.get)
    return Probes(ProbeConfig(**{"rollouts": 2} | settings), data, policy.measured(), state or LoopState())


def entry(prompt_id: str, group: bool = True) -> BufferEntry:
    rollouts = PromptGroup(prompt_id, 0, 8, 1) if group else None
    return BufferEntry(rollouts, SftExample(prompt_id, (1,), (2,), "c"))


def test_both_couplings_of_an_interval_are_measured_at_its_three_borders(policy):
    state = LoopState()
    probes = probes_of(policy, state)
    assert probes.is_start_missing
    probes.before_rl()
    assert not probes.is_start_missing
    policy.log_prob = -2.0  # RL
    state.solved += ["s1", "s2"]
    before = probes.before_sft([entry("h1"), entry("h2"), entry("h3", group=False)])
    assert (before.cross_entropy_start, before.cross_entropy) == (1.0, 2.0)
    assert policy.servers == ["wake", "sleep"]
    policy.log_prob, policy.right = -0.5, {"v0", "v1", "s2", "h1"}  # SFT
    state.solved.append("s3")  # what is solved later is not asked after
    state.interval = 2
    found = probes.after_sft(before) | probes.ask_after(before)
    assert (found["cross_entropy_before"], found["cross_entropy_after"]) == (2.0, 0.5)
    assert found["accuracy_before"] == {"even": 0.5, "odd": 0.0, "mean": 0.25}
    assert found["accuracy_after"] == {"even": 0.5, "odd": 1.0, "mean": 0.75}
    assert (found["solved_accuracy_before"], found["solved_accuracy_after"]) == (1.0, 0.5)
    assert (found["hard_accuracy_before"], found["hard_accuracy_after"]) == (0.0, 0.5)
    assert policy.asked == [["v0", "v1", "v2", "s1", "s2", "h1", "h2"]] * 2
    assert state.cross_entropy_start == 0.5 and not probes.is_start_missing


class Uneven(Model):
    """Is surer of the tokens of the short demonstration: -1 each of its 2, -3 each of the other's 4."""

    def forward(self, rows, with_shift):
        return [RowSums(2, 2 * -1.0), RowSums(4, 4 * -3.0)]


def test_the_cross_entropy_is_a_mean_over_tokens_and_not_over_demonstrations():
    state = LoopState()
    probes_of(Uneven(), state).before_rl()
    assert state.cross_entropy_start == (2 * 1 + 4 * 3) / 6  # a mean of the two means would be 2


def test_the_shift_is_a_mean_over_tokens_on_the_rollouts_made_before(policy):
    probes = probes_of(policy)
    before = probes.before_sft([])
    assert [(len(one.response_ids), one.is_correct) for one in before.rollouts] == [(1, True), (2, False)]
    policy.right = set()
    found = probes.after_sft(before)
    assert found["kl_to_before"] == (1 * 0.5 + 2 * 0.25) / 3
    assert (found["policy_entropy_before"], found["policy_entropy_after"]) == (1.0, 2.0)
    assert (found["reward_margin_before"], found["reward_margin_after"]) == (-3.0 - -1.0, 0.0)
    # demonstrations of 6 tokens before and after, rollouts of 3 tokens under both policies; answers of 2 x (1 + 2 + 3)
    assert before.sizes["forward_tokens"] == 6 + 6 + 2 * 3 and before.sizes["generated_tokens"] == 12


def test_the_pass_before_an_rl_phase_is_counted_once_by_the_sft_phase_that_follows(policy):
    probes = probes_of(policy, rollouts=0)
    probes.before_rl()
    first = probes.before_sft([])
    assert first.sizes["forward_tokens"] == 6 + 6  # demonstrations of 6 tokens: before RL, before SFT
    probes.after_sft(first)  # after SFT, which is before the next RL phase
    assert first.sizes["forward_tokens"] == 6 + 6 + 6
    assert probes.before_sft([]).sizes["forward_tokens"] == 6


def test_of_every_second_interval_the_pass_after_the_phase_before_is_counted_too(policy):
    probes = probes_of(policy, LoopState(interval=3), every=2)
    probes.after_sft(None)
    assert probes.before_sft([]).sizes["forward_tokens"] == 6 + 6


def test_of_every_second_interval_the_start_comes_from_the_phase_before(policy):
    state = LoopState(interval=3)
    probes = probes_of(policy, state, every=2)
    assert probes.after_sft(None) == {} and state.cross_entropy_start == 1.0
    state.interval = 4
    assert probes.after_sft(None) == {} and state.cross_entropy_start is None
    assert not probes.is_start_missing and not probes.is_due
    state.interval = 5
    assert probes.is_start_missing
    state.rl_steps = 1
    assert not probes.is_start_missing  # it is over


def test_what_is_switched_off_is_null_and_is_not_asked(policy):
    data, state = HeldOut(VALIDATION, [], TRAINING.get), LoopState(solved=["s1"])
    probes = Probes(ProbeConfig(rollouts=0, solved=0, hard=0), data, policy.measured(), state)
    assert not probes.is_start_missing
    state.solved.clear()
    before = probes.before_sft([entry("h1")])
    found = probes.after_sft(before) | probes.ask_after(before)
    assert policy.asked == [["v0", "v1", "v2"]] * 2
    nulls = {name for name, value in found.items() if value is None}
    assert nulls == set(found) - {"accuracy_before", "accuracy_after", "probe"}


# ---------------------------------------------------------------------- a resume


def resumed(policy, digest: str, **state) -> tuple[LoopState, list[str]]:
    """(the state, what was said) of a run that goes on and measures on ``these``."""
    found, said = LoopState(solved=["solved"], measured_on=digest, **state), []
    probes_of(policy, found).go_on("these", lambda kind, text: said.append(text))
    assert found.measured_on == "these" and found.solved == ["solved"]
    return found, said


def inside() -> SftProgress:
    return SftProgress([], 0, None, {}, Before(1.0, 2.0, [], []))


def test_a_resume_goes_on_with_what_was_measured_on_the_same_data_and_drops_the_rest_with_a_word(policy):
    same, said = resumed(policy, "these", cross_entropy_start=0.5, sft=inside())
    assert same.cross_entropy_start == 0.5 and same.sft.before is not None and said == []
    other, said = resumed(policy, "others", cross_entropy_start=0.5, sft=inside())
    assert other.cross_entropy_start is None and other.sft.before is None
    assert len(said) == 1 and "other data or settings" in said[0]
    nothing, said = resumed(policy, "")
    assert nothing.cross_entropy_start is None and said == []


@pytest.mark.parametrize("digest", ["these", "others"])
def test_tokens_that_no_record_counts_yet_are_spent_whatever_a_resume_drops(policy, digest):
    assert resumed(policy, digest, uncounted_tokens=6, cross_entropy_start=0.5)[0].uncounted_tokens == 6


def test_data_and_sampling_settings_are_told_apart_and_demonstrations_by_their_text():
    examples = [SftExample("d", (1,), (2,), "a"), SftExample("d", (1,), (2,), "b"), SftExample("d", (3,), (2,), "a")]
    rows = [{"prompt_id": "v0", "data_source": "x"}]
    made = [measured_on(HeldOut(rows, [example], {}.get), {"n": 1}) for example in examples]
    made += [measured_on(HeldOut([], [examples[0]], {}.get), {"n": 1})]
    made += [measured_on(HeldOut(rows, [examples[0]], {}.get), {"n": 2})]
    assert len(set(made)) == 5
    assert made[0] == measured_on(HeldOut(rows, [examples[0]], {}.get), {"n": 1})


@pytest.mark.parametrize(
    "change",
    [
        "mifo.probe.around_sft=false",
        "mifo.probe.rollouts=3",
        "mifo.probe.solved_accuracy=1/2",
        "actor_rollout_ref.rollout.val_kwargs.temperature=0.5",
        "actor_rollout_ref.rollout.val_kwargs.n=3",
        "data.max_response_length=9",
    ],
)
def test_every_setting_that_the_values_depend_on_is_among_those_asked_with(config_of, change):
    found = []
    for overrides in ([], [change]):
        config = config_of(*overrides)
        probe = build_config(OmegaConf.to_container(config.mifo, resolve=True)).probe
        found.append(asked_with(config, probe))
    assert found[0] != found[1]


# ---------------------------------------------------------------------- what is held out


class Table(list):
    """Rows as verl's data sets hold them."""

    column_names = ("prompt", "prompt_id")

    @property
    def dataframe(self):
        return self

    def select_columns(self, names):
        return Table({name: row[name] for name in names} for row in self)


class Prompts:
    """Builds a demonstration of every row but those that are wrong."""

    def render(self, row):
        return [ord(letter) for letter in row["raw_prompt"][0]["content"]]

    def build(self, row, prompt_ids):
        if row["prompt_id"] == "wrong":
            return Rejection.WRONG
        return SftExample(row["prompt_id"], tuple(prompt_ids), (1,), "a")


PROMPTS = Prompts()


def row(prompt_id: str, text: str, target: bool = True):
    return {
        "prompt_id": prompt_id,
        "prompt": [{"role": "user", "content": text}],
        "target": [{"role": "assistant", "content": "x"}] if target else None,
        "reward_model": {"ground_truth": "7"},
    }


def test_demonstrations_are_held_out_right_and_short_and_what_is_dropped_is_said():
    said = Counter()
    training = Table([row("t0", "a?"), row("t1", "b?")])
    rows = [row("v0", "c?"), row("t1", "d?"), row("v1", " a?"), row("wrong", "e?"), row("v2", "too long a question?")]
    validation = Table([*rows, row("v3", "f?", target=False), row("v4", "g?")])
    data = held_out(
        ProbeConfig(prompts=2),
        training,
        validation,
        PROMPTS.render,
        PROMPTS.build,
        5,
        lambda *event: said.update([event]),
    )
    assert [one.prompt_id for one in data.demonstrations] == ["v0", "v4"]
    assert list(said) == [
        ("probe", "2 held-out demonstrations of data.val_files, dropped: {'too_long': 1, 'trained_on': 2, 'wrong': 1}")
    ]
    assert [one["prompt_id"] for one in data.rows] == ["v0", "wrong"]
    assert data.training_row("t1")["prompt"] == training[1]["prompt"] and data.training_row("v0") is None


def test_without_a_demonstration_held_out_the_probe_says_so_once_and_is_null(policy):
    said = []
    training = Table([row("t0", "a?")])
    data = held_out(
        ProbeConfig(),
        training,
        Table([row("t0", "a?")]),
        PROMPTS.render,
        PROMPTS.build,
        5,
        lambda *event: said.append(event),
    )
    assert data.demonstrations == []
    text = (
        "0 held-out demonstrations of data.val_files, dropped: {'trained_on': 1}: their cross-entropy is not measured"
    )
    assert said == [("probe", text)]
    probes = Probes(ProbeConfig(), replace(data, rows=[]), policy.measured(), LoopState())
    assert not probes.is_start_missing and probes.before_sft([]).cross_entropy is None
