"""The loss of one SFT update by hand: a mean over the sequences of the whole update, whichever micro-batch they are in."""

import pytest
import torch
from verl.utils import tensordict_utils as tu

from mifo_verl.compose import compose_config
from mifo_verl.config import build_config
from mifo_verl.types import SftExample
from mifo_verl.verl.sft_step import BatchCut, SftLossOfBatch, rows_of, sft_batch

LOG_PROBS = {"a": [-1.0, -3.0], "b": [-2.0, -2.0, -5.0], "c": [-7.0]}
# means over the response: 2, 3 and 7; their mean over the update of three is 4
EXAMPLES = [SftExample(name, (5,), (6,) * len(values), "ab") for name, values in LOG_PROBS.items()]


def loss_function(**sft: str) -> SftLossOfBatch:
    from omegaconf import OmegaConf

    settings = [f"mifo.sft.{name}={value}" for name, value in sft.items()]
    node = compose_config(["experiment=quickstart", "mifo/token_selector=all", "mifo.inspect.tokens=false", *settings])
    return SftLossOfBatch(build_config(OmegaConf.to_container(node.node.mifo)))


def losses(num_ranks: int, micro_batches: int, loss: SftLossOfBatch) -> tuple[float, list[int]]:
    """The loss of an update as FSDP makes it, a mean over the ranks of sums over micro-batches; the rows in it."""
    batch = sft_batch(EXAMPLES, [0, 0, 0], BatchCut(num_ranks, micro_batches, pad_token_id=0))
    total, rows = 0.0, []
    for part in tu.chunk_tensordict(batch, num_ranks * micro_batches):
        tu.assign_non_tensor(part, dp_size=num_ranks)
        names = [EXAMPLES[row].prompt_id if row >= 0 else None for row in part["row"].tolist()]
        by_row = [
            # the prompt's token, its response, and what follows the last; a row that fills up has another loss
            torch.tensor([*LOG_PROBS[name], 0.0] if name else [-100.0] * length)
            for name, length in zip(names, part["input_ids"].offsets().diff().tolist(), strict=True)
        ]
        output = {"log_probs": torch.nested.as_nested_tensor(by_row, layout=torch.jagged)}
        output["entropy"] = torch.nested.as_nested_tensor([torch.ones_like(row) for row in by_row], layout=torch.jagged)
        value, metrics = loss(output, part)
        total += float(value) / num_ranks
        rows += [row for row, _, _ in rows_of({"mifo_rows": [metrics["mifo_rows"]]})]
    return total, sorted(rows)


@pytest.mark.parametrize(("num_ranks", "micro_batches"), [(1, 1), (1, 3), (2, 1), (2, 2), (4, 1)])
def test_the_loss_is_the_mean_over_the_updates_sequences_however_it_is_cut_and_filled_up(num_ranks, micro_batches):
    assert losses(num_ranks, micro_batches, loss_function()) == (pytest.approx(4.0), [0, 1, 2])


@pytest.mark.parametrize(("num_ranks", "micro_batches"), [(1, 1), (1, 3), (2, 1), (4, 1)])
def test_or_the_mean_over_its_tokens(num_ranks, micro_batches):
    # (1 + 3 + 2 + 2 + 5 + 7) / 6
    assert losses(num_ranks, micro_batches, loss_function(normalise="token"))[0] == pytest.approx(20 / 6)
