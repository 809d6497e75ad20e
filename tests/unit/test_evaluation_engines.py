"""The GPUs of an evaluation: tensor parallel inside a copy of the model, data parallel over the copies."""

import pytest

from mifo_verl.tools.evaluate.engines import devices_of_copies, tensor_parallel_sizes

QWEN_7B = {"num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944}
QWEN_1_5B = {"num_attention_heads": 12, "num_key_value_heads": 2, "intermediate_size": 8960}
LLAMA_70B = {"num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 28672}
EIGHT = list("01234567")


@pytest.mark.parametrize(
    ("config", "gpus", "sizes"),
    [
        (QWEN_7B, 8, [1, 2, 4]),  # 28 heads do not split over 8
        (QWEN_7B, 6, [1, 2]),  # nor over 3 or 6
        (QWEN_1_5B, 8, [1, 2, 4]),  # 2 key-value heads are copied over 4
        (LLAMA_70B, 8, [1, 2, 4, 8]),
        (LLAMA_70B, 3, [1]),
        ({"num_attention_heads": 6}, 6, [1, 2, 3, 6]),
    ],
)
def test_heads_say_over_how_many_gpus_a_model_splits(config, gpus, sizes):
    assert tensor_parallel_sizes(config, gpus) == sizes


@pytest.mark.parametrize(
    ("config", "gigabytes", "asked", "copies"),
    [
        (QWEN_7B, 15, None, [[d] for d in EIGHT]),  # 2 * 15 <= 72: a copy a GPU
        (LLAMA_70B, 141, None, [list("0123"), list("4567")]),  # 282 <= 4 * 72
        (QWEN_7B, 400, None, [list("0123"), list("4567")]),  # as many as its heads split over
        (QWEN_7B, 15, 4, [list("0123"), list("4567")]),
    ],
)
def test_a_copy_spans_as_few_gpus_as_hold_it(config, gigabytes, asked, copies):
    assert devices_of_copies(config, EIGHT, gigabytes * 10**9, 72 * 10**9, asked) == copies


def test_a_size_that_splits_no_head_is_refused():
    with pytest.raises(ValueError, match=r"tensor_parallel=8 must be one of \[1, 2, 4\]; leave it out"):
        devices_of_copies(QWEN_7B, EIGHT, 1, 1, 8)
