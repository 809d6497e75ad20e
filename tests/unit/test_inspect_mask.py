"""Counts of a mask and of two updates, by layer and kind: by hand, over shards, and against a mask made by chance."""

import pytest
import torch

from mifo_verl.method.top_share import OneShard
from mifo_verl.probes.mask import MaskInspection
from mifo_verl.probes.parameters import KINDS, in_order, kind_of, layer_of
from mifo_verl.tools.inspect.overlap import chance_jaccard, jaccard

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "layer", "kind"),
    [
        ("model.embed_tokens.weight", "embedding", "embedding"),
        ("model.layers.0.self_attn.q_proj.weight", "0", "q"),
        ("model.layers.11.self_attn.k_proj.bias", "11", "k"),
        ("model.layers.2.self_attn.v_proj.lora_A.default.weight", "2", "v"),
        ("model.layers.2.self_attn.o_proj.weight", "2", "o"),
        ("model.layers.2.mlp.gate_proj.weight", "2", "gate"),
        ("model.layers.2.mlp.up_proj.weight", "2", "up"),
        ("model.layers.2.mlp.experts.7.down_proj.weight", "2", "down"),
        ("model.layers.2.input_layernorm.weight", "2", "norm"),
        ("model.layers.2.self_attn.q_norm.weight", "2", "norm"),
        ("model.norm.weight", "norm", "norm"),
        ("lm_head.weight", "head", "head"),
        ("model.layers.3.self_attn.qkv_proj.weight", "3", "other"),
        ("transformer.h.4.attn.c_attn.weight", "4", "other"),
        ("transformer.wte.weight", "embedding", "embedding"),
    ],
)
def test_a_parameter_has_the_layer_and_the_kind_of_its_name(name: str, layer: str, kind: str):
    assert (layer_of(name), kind_of(name)) == (layer, kind)
    assert kind in KINDS


def test_layers_stand_in_the_order_of_the_model():
    assert in_order(["head", "10", "2", "norm", "embedding", "2"]) == ["embedding", "2", "10", "norm", "head"]


def test_the_overlap_is_that_of_the_definition_and_of_chance():
    assert jaccard(3, 2, 1) == 1 / 4
    assert jaccard(0, 0, 0) is None
    # two masks of half of 100: 25 in common, 75 in either
    assert chance_jaccard([100], [50], [50]) == 25 / 75
    # all of one layer in both, nothing of the other: chance within layers is 1
    assert chance_jaccard([50, 50], [50, 0], [50, 0]) == 1
    assert chance_jaccard([10], [0], [0]) is None


def test_chance_is_what_random_masks_have():
    draw = torch.Generator().manual_seed(0)
    one, two = (torch.rand(200_000, generator=draw) < share for share in (0.5, 0.2))
    own = jaccard(int(one.sum()), int(two.sum()), int((one & two).sum()))
    assert own == pytest.approx(chance_jaccard([200_000], [int(one.sum())], [int(two.sum())]), abs=0.005)


NAMES = [
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.1.mlp.up_proj.weight",
]
START = [torch.tensor([1.0, 1.0, 1.0, 1.0]), torch.tensor([2.0, 2.0]), torch.tensor([4.0, 4.0])]
# 1 + 2^-7 is the next bfloat16 after 1; 1 + 2^-12 rounds to 1
AFTER_RL = [torch.tensor([1.0, 1 + 2**-7, 1 + 2**-12, 4.0]), torch.tensor([2.0, 6.0]), torch.tensor([4.0, 4.0])]
AFTER_SFT = [torch.tensor([1.0, 2.0, 1.0, 4.0]), torch.tensor([2.0, 9.0]), torch.tensor([5.0, 4.0])]
FROZEN = [[False, True, False, True], [False, True], [False, False]]
PREVIOUS = [[True, True, False, False], [False, True], [True, False]]
SCORE = [[0.0, 0.1, 0.0, 3.0], [0.0, 4.0], [0.0, 0.0]]


def counted(slices: list[slice], shards: object, with_previous: bool = True) -> dict:
    inspection = MaskInspection(NAMES)
    start, after_rl, after_sft = (
        [t[s] for t, s in zip(ts, slices, strict=True)] for ts in (START, AFTER_RL, AFTER_SFT)
    )
    inspection.rl(start, after_rl)
    for number, own in enumerate(slices):
        previous = torch.tensor(PREVIOUS[number])[own] if with_previous else None
        inspection.mask(number, torch.tensor(FROZEN[number])[own], torch.tensor(SCORE[number])[own], previous)
    inspection.sft(after_rl, after_sft)
    return inspection.table(shards, CPU)  # type: ignore[arg-type]


def test_the_counts_are_those_of_the_hand():
    table = counted([slice(None)] * 3, OneShard())
    assert table["by_layer"] == {
        "layer": ["0", "1"],
        "coordinates": [6, 2],
        "frozen": [3, 0],
        "zero_score": [3, 2],
        "previous": [3, 1],
        "frozen_and_previous": [2, 0],
        "rl_moved": [4, 0],
        "sft_moved": [3, 1],
        "both_moved": [3, 0],
        "rl_visible": [3, 0],
        "sft_visible": [2, 1],
        "both_visible": [2, 0],
        "frozen_rl_visible": [3, 0],
        "rl_norm": [pytest.approx((2**-14 + 2**-24 + 9 + 16) ** 0.5), 0.0],
        "sft_norm": [pytest.approx(((1 - 2**-7) ** 2 + 2**-24 + 9) ** 0.5), 1.0],
    }
    assert table["by_kind"]["kind"] == ["q", "up"]
    assert table["by_kind"]["frozen"] == [2, 1]


def test_without_a_mask_before_nothing_overlaps():
    table = counted([slice(None)] * 3, OneShard(), with_previous=False)["by_layer"]
    assert table["previous"] == table["frozen_and_previous"] == [0, 0]


def test_shards_count_together_what_one_counts(over_shards):
    parts = [[slice(0, 1), slice(0, 2), slice(0, 0)], [slice(1, 4), slice(2, 2), slice(0, 2)]]
    alone = counted([slice(None)] * 3, OneShard())
    for table in over_shards(lambda shards: counted(parts[shards.rank], shards), 2):
        for by in ("by_layer", "by_kind"):
            norms = {"rl_norm", "sft_norm"}
            assert {k: v for k, v in table[by].items() if k not in norms} == {
                k: v for k, v in alone[by].items() if k not in norms
            }
            for name in norms:
                assert table[by][name] == pytest.approx(alone[by][name])


def test_a_phase_that_an_older_version_began_ends_without_what_it_has_not_counted():
    inspection = MaskInspection(NAMES)
    inspection.rl(START, AFTER_RL)
    for number in range(3):
        inspection.mask(number, torch.tensor(FROZEN[number]), torch.tensor(SCORE[number]), None)
    state = inspection.state()
    resumed = MaskInspection(NAMES)
    resumed.restore_(state | {"counts": state["counts"][:, :-1]})
    resumed.sft(AFTER_RL, AFTER_SFT)
    inspection.sft(AFTER_RL, AFTER_SFT)
    whole, part = (one.table(OneShard(), CPU)["by_layer"] for one in (inspection, resumed))
    assert part == {name: column for name, column in whole.items() if name != "frozen_rl_visible"}


def test_nothing_but_sft_is_counted_where_no_rl_phase_was():
    inspection = MaskInspection(NAMES)
    inspection.sft(START, AFTER_SFT)
    table = inspection.table(OneShard(), CPU)["by_layer"]
    assert table["sft_moved"] == [3, 1] and table["both_moved"] == [0, 0]
