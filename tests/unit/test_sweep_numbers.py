"""What arms are compared by, of a run's records: prompts won and lost in SFT phases, tokens and FLOPs."""

from mifo_verl.probes.coupling import asked_of
from mifo_verl.tools.sweep.numbers import compute_of


def phase(solved=None, hard=None, asked=(0, 0)):
    """The last record of an SFT phase; the pairs are accuracies before and after."""
    line = {"phase": "sft", "probe": {"solved": asked[0], "hard": asked[1]}}
    for kind, pair in (("solved", solved), ("hard", hard)):
        line |= dict(zip((f"{kind}_accuracy_before", f"{kind}_accuracy_after"), pair or (None, None), strict=True))
    return line


def test_every_prompt_that_was_asked_has_one_vote():
    lines = [
        phase((1.0, 0.75), (0.0, 1.0), (4, 2)),  # 1 lost, 2 gained
        {"phase": "sft"},
        phase(None, (0.0, 0.5), (0, 6)),  # 3 gained, with no solved prompt to set against them
        phase((0.5, 0.75), (0.25, 0.5), (8, 8)),  # 2 won back, 2 gained
    ]
    assert asked_of(lines) == {
        "sft/solved_accuracy": (-1 + 2) / 12,
        "solved_asked": 12,
        "sft/hard_accuracy": (2 + 3 + 2) / 16,
        "hard_asked": 16,
        "sft/net_accuracy": (-1 + 2 + 2 + 2) / (4 + 2 + 8 + 8),
    }


def test_a_solved_prompt_lost_takes_back_a_hard_one_gained():
    assert asked_of([phase((1.0, 0.5), (0.0, 0.25), (2, 4))])["sft/net_accuracy"] == 0.0


def test_without_phases_that_asked_both_kinds_there_is_no_net():
    lines = [phase(None, (0.0, 0.5), (0, 2)), phase((1.0, 1.0), None, (3, 0))]
    assert asked_of(lines).keys() == {"sft/solved_accuracy", "solved_asked", "sft/hard_accuracy", "hard_asked"}
    assert asked_of([{"phase": "sft"}]) == {}


def test_tokens_and_flops_are_the_sums_of_the_records():
    rl = [{"prompt_tokens": 1, "response_tokens": 2, "generated_tokens": 3, "flops": 40}] * 2
    sft = [{"prompt_tokens": 5, "response_tokens": 6, "kept_tokens": 2, "flops": 7}]
    assert compute_of(rl, sft) == {
        "rl_tokens": 6, "generated_tokens": 6, "sft_tokens": 11, "loss_tokens": 2, "rl_flops": 80, "sft_flops": 7, "flops": 87,
    }  # fmt: skip
    rl[1] = rl[1] | {"staged": {"prompt_tokens": 2, "response_tokens": 3, "kept_tokens": 1}}
    assert compute_of(rl, sft) == compute_of(rl[:1] * 2, sft) | {"sft_tokens": 16, "loss_tokens": 3}
    assert compute_of([{"response_length": 3}], sft) == {}
    rl[1] = rl[0] | {"staged": {"prompt_tokens": 10, "response_tokens": 20, "kept_tokens": 4}}
    mixed = compute_of(rl, sft)  # a demonstration in an update of RL is SFT's tokens too
    assert (mixed["sft_tokens"], mixed["loss_tokens"], mixed["rl_tokens"], mixed["flops"]) == (41, 6, 6, 87)
