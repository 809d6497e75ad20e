"""What the probes measure at a border, with a policy and answers whose numbers are known."""

import json
from collections import Counter
from dataclasses import asdict

import pytest

from mifo_verl.config import ProbeConfig
from mifo_verl.data.sft_batch import Rejection
from mifo_verl.probes.data import held_out
from mifo_verl.probes.probes import Probes
from mifo_verl.probes.step import RowSums
from mifo_verl.probes.types import Answer, Asked, Before, HeldOut
from mifo_verl.types import BufferEntry, PromptGroup, SftExample

DEMONSTRATIONS = [SftExample("d0", (1,), (1, 2), "a"), SftExample("d1", (1,), (1, 2, 3, 4), "b")]
VALIDATION = [{"id": name, "data_source": "even" if int(name[1]) % 2 == 0 else "odd"} for name in ("v0", "v1", "v2")]
TRAINING = {name: {"id": name, "data_source": "train"} for name in ("s1", "s2", "h1", "h2", "h3")}


class Policy:
    """Its log-probability of every token is ``log_prob``; it answers right the prompts in ``right``."""

    def __init__(self) -> None:
        self.log_prob, self.right = -1.0, {"v0", "s1", "s2"}
        self.asked: list[list[str]] = []

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
def policy() -> Policy:
    return Policy()


def probes_of(policy: Policy, **settings) -> Probes:
    data = HeldOut(VALIDATION, DEMONSTRATIONS, TRAINING.get)
    return Probes(ProbeConfig(**{"rollouts": 2} | settings), data, policy.forward, policy.ask)


def entry(prompt_id: str, group: bool = True) -> BufferEntry:
    rollouts = PromptGroup(prompt_id, 0, 8, 1) if group else None
    return BufferEntry(rollouts, SftExample(prompt_id, (1,), (2,), "c"))


def test_both_couplings_of_an_interval_are_measured_at_its_three_borders(policy):
    probes = probes_of(policy)
    assert probes.is_start_missing(1)
    probes.before_rl()
    assert not probes.is_start_missing(1)
    policy.log_prob = -2.0  # RL
    probes.solved.see([PromptGroup("s1", 8, 8, 1), PromptGroup("s2", 8, 8, 1), PromptGroup("h1", 0, 8, 1)])
    before = probes.before_sft([entry("h1"), entry("h2"), entry("h3", group=False)])
    probes.ask_before(before)
    assert (before.cross_entropy_start, before.cross_entropy) == (1.0, 2.0)
    policy.log_prob, policy.right = -0.5, {"v0", "v1", "s2", "h1"}  # SFT
    probes.solved.see([PromptGroup("s3", 8, 8, 2)])  # what is solved later is not asked after
    found = probes.after_sft(1, Before.of(json.loads(json.dumps(asdict(before))))) | probes.ask_after(before)
    assert (found["cross_entropy_before"], found["cross_entropy_after"]) == (2.0, 0.5)
    assert found["accuracy_before"] == {"even": 0.5, "odd": 0.0, "mean": 0.25}
    assert found["accuracy_after"] == {"even": 0.5, "odd": 1.0, "mean": 0.75}
    assert (found["solved_accuracy_before"], found["solved_accuracy_after"]) == (1.0, 0.5)
    assert (found["hard_accuracy_before"], found["hard_accuracy_after"]) == (0.0, 0.5)
    assert policy.asked == [["v0", "v1", "v2", "s1", "s2", "h1", "h2"]] * 2
    assert probes.cross_entropy_start == 0.5


def test_the_shift_is_a_mean_over_tokens_on_the_rollouts_made_before(policy):
    probes = probes_of(policy)
    before = probes.before_sft([])
    probes.ask_before(before)
    assert [(len(one.response_ids), one.is_correct) for one in before.rollouts] == [(1, True), (2, False)]
    policy.right = set()
    found = probes.after_sft(1, before)
    assert found["kl_to_before"] == (1 * 0.5 + 2 * 0.25) / 3
    assert (found["policy_entropy_before"], found["policy_entropy_after"]) == (1.0, 2.0)
    assert (found["reward_margin_before"], found["reward_margin_after"]) == (-3.0 - -1.0, 0.0)
    # demonstrations of 6 tokens before and after, rollouts of 3 tokens under both policies; answers of 2 x (1 + 2 + 3)
    assert before.sizes["forward_tokens"] == 6 + 6 + 2 * 3 and before.sizes["generated_tokens"] == 12


def test_the_pass_before_an_rl_phase_is_counted_once_by_the_sft_phase_that_follows(policy):
    probes = probes_of(policy)
    probes.before_rl()
    first = probes.before_sft([])
    assert first.sizes["forward_tokens"] == 6 + 6  # demonstrations of 6 tokens: before RL, before SFT
    probes.after_sft(1, first)  # after SFT, which is before the next RL phase
    assert first.sizes["forward_tokens"] == 6 + 6 + 6
    assert probes.before_sft([]).sizes["forward_tokens"] == 6


def test_of_every_second_interval_the_pass_after_the_phase_before_is_counted_too(policy):
    probes = probes_of(policy, every=2)
    probes.after_sft(2, None)
    assert probes.before_sft([]).sizes["forward_tokens"] == 6 + 6


def test_of_every_second_interval_the_start_comes_from_the_phase_before(policy):
    probes = probes_of(policy, every=2)
    assert probes.after_sft(2, None) == {} and probes.cross_entropy_start == 1.0
    assert probes.after_sft(3, None) == {} and probes.cross_entropy_start is None
    assert probes.is_start_missing(5) and not probes.is_start_missing(4)


def test_what_is_switched_off_is_null_and_is_not_asked(policy):
    data = HeldOut(VALIDATION, [], TRAINING.get)
    probes = Probes(ProbeConfig(rollouts=0, solved=0, hard=0), data, policy.forward, policy.ask)
    probes.solved.see([PromptGroup("s1", 8, 8, 1)])
    before = probes.before_sft([entry("h1")])
    probes.ask_before(before)
    found = probes.after_sft(1, before) | probes.ask_after(before)
    assert policy.asked == [["v0", "v1", "v2"]] * 2
    assert not probes.is_start_missing(1)
    nulls = {name for name, value in found.items() if value is None}
    assert nulls == set(found) - {"accuracy_before", "accuracy_after", "probe"}


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
    data = held_out(ProbeConfig(prompts=2), training, validation, Prompts(), 5, lambda *event: said.update([event]))
    assert [one.prompt_id for one in data.demonstrations] == ["v0", "v4"]
    assert list(said) == [
        ("probe", "2 held-out demonstrations of data.val_files, dropped: {'too_long': 1, 'trained_on': 2, 'wrong': 1}")
    ]
    assert [one["prompt_id"] for one in data.rows] == ["v0", "wrong"]
    assert data.training_row("t1")["prompt"] == training[1]["prompt"] and data.training_row("v0") is None


def test_without_a_demonstration_held_out_the_probe_says_so_once_and_is_null(policy):
    said = []
    training = Table([row("t0", "a?")])
    data = held_out(ProbeConfig(), training, Table([row("t0", "a?")]), Prompts(), 5, lambda *event: said.append(event))
    assert data.demonstrations == []
    text = (
        "0 held-out demonstrations of data.val_files, dropped: {'trained_on': 1}: their cross-entropy is not measured"
    )
    assert said == [("probe", text)]
    probes = Probes(ProbeConfig(), data, policy.forward, policy.ask)
    assert not probes.is_start_missing(1) and probes.before_sft([]).cross_entropy is None
