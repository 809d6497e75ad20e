"""The summary of a phase's tokens: histogram, positions, thresholds, the tokens kept, whole demonstrations."""

import pytest

from mifo_verl.loop.tokens import EDGES, POSITIONS, TokenSummary
from mifo_verl.types import SftExample


def example(*tokens: int) -> SftExample:
    return SftExample("p", (1, 2, 3), tokens, "0" * 64)


def test_the_bins_run_from_a_ten_thousandth_to_ten():
    assert len(EDGES) == 41
    assert EDGES[0] == pytest.approx(1e-4) and EDGES[-1] == pytest.approx(10)
    assert EDGES[8] == pytest.approx(1e-3)


def test_a_value_falls_into_the_bin_of_its_edges():
    summary = TokenSummary(0, 8)
    summary.add(example(5, 6, 7, 8), [0.0, EDGES[3], 0.99 * EDGES[4], 11.0], [False, True, True, False])
    assert [place for place, count in enumerate(summary.entropy) for _ in range(count)] == [0, 4, 4, 41]
    assert [place for place, count in enumerate(summary.entropy_kept) for _ in range(count)] == [4, 4]


def test_positions_are_shares_of_the_response():
    summary = TokenSummary(0, 8)
    summary.add(example(*range(POSITIONS)), [1.0] * POSITIONS, [place == 19 for place in range(POSITIONS)])
    summary.add(example(1, 2), [1.0, 2.0], [True, False])
    assert summary.position == [2] + [1] * 9 + [2] + [1] * 9
    assert summary.position_kept == [1] + [0] * 18 + [1]


def test_thresholds_are_the_smallest_kept_entropies():
    summary = TokenSummary(0, 8)
    for low, high in ((0.3, 0.9), (0.1, 0.2), (0.5, 0.6)):
        summary.add(example(1, 2, 3), [0.0, low, high], [False, True, True])
    assert summary.table(str)["threshold"] == {"min": 0.1, "median": 0.3, "max": 0.5}


def test_the_tokens_kept_most_often_come_first_and_ties_by_number():
    summary = TokenSummary(0, 8)
    summary.add(example(9, 9, 7, 8, 9), [1.0] * 5, [True, True, True, True, False])
    assert summary.table(lambda token: f"<{token}>")["top_tokens"] == [["<9>", 2, 3], ["<7>", 1, 1], ["<8>", 1, 1]]


def test_the_first_demonstrations_are_kept_whole_up_to_a_length():
    summary = TokenSummary(num_examples=1, max_tokens=2)
    summary.add(example(5, 6, 7), [0.12345, 0.5, 1.0], [False, True, True])
    summary.add(example(8), [1.0], [True])
    assert summary.table(str)["examples"] == [
        {
            "prompt_id": "p",
            "prompt": "23",
            "tokens": ["5", "6"],
            "entropy": [0.1235, 0.5],
            "kept": [0, 1],
            "num_tokens": 3,
        }
    ]


def test_a_flag_too_few_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        TokenSummary(1, 1).add(example(1, 2), [0.1, 0.2], [True])


def test_an_empty_phase_has_a_table():
    table = TokenSummary(1, 1).table(str)
    assert table["threshold"] is None and table["top_tokens"] == [] and sum(table["entropy"]) == 0
