"""The masks that a checkpoint tells of, worked out by hand; and the two commands that show masks and tokens."""

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from mifo_verl.method.constraint import CONSTRAINTS
from mifo_verl.method.coordinates import ShardRange
from mifo_verl.method.importance import IMPORTANCES
from mifo_verl.tools.inspect.__main__ import main
from mifo_verl.tools.inspect.checkpoint import MaskRule, checkpoint_mask, mask_rule
from mifo_verl.tools.inspect.sources import open_weights
from tests.unit.example_run import ExampleRun, make_data

NAMES = ["model.layers.0.mlp.up_proj.weight", "model.norm.weight"]
START = [[0.0, 0.0, 0.0, 0.0], [1.0, 1.0]]
END = [[4.0, -1.0, 0.0, 1.0], [1.0, 2.0]]
HISTORY = [[0.0, 6.0, 0.0, 0.0], [0.0, 0.0]]
# C~ at alpha = 1/2: 2, 3.5, 0, 0.5 | 0, 0.5


def checkpoint(
    folder: Path, parts: dict[str, list[list[float]]], freeze: dict | None = None, importance="abs_change"
) -> Path:
    """A checkpoint of one rank, in a run with a config."""
    step = folder / "checkpoints" / "global_step_3"
    (step / "actor").mkdir(parents=True)
    (step / "mifo").mkdir()
    weights = {name: torch.tensor(values) for name, values in zip(NAMES, END, strict=True)}
    weights[NAMES[0]] = weights[NAMES[0]].view(2, 2)
    torch.save(weights, step / "actor" / "model_world_size_1_rank_0.pt")
    tensors = {f"{part}.{n}": torch.tensor(values) for part, rows in parts.items() for n, values in enumerate(rows)}
    save_file(tensors, step / "mifo" / "rank_0_of_1.safetensors")
    node = {
        "constraint": freeze or {"name": "strict", "share": "1/3", "history": 0.5},
        "importance": {"name": importance},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump({"mifo": node}))
    return step


BOTH = {"start": START, "history": HISTORY}


def rule(share: object, history: object, scope: str) -> MaskRule:
    node = {"name": "strict", "share": share, "history": history, "scope": scope}
    return MaskRule(CONSTRAINTS.build(node), IMPORTANCES.build({"name": "abs_change"}), "")


def test_the_mask_of_now_and_the_last_one_are_those_of_the_hand(tmp_path: Path):
    step = checkpoint(tmp_path, BOTH)
    assert mask_rule(step).constraint == rule("1/3", 0.5, "global").constraint
    found = checkpoint_mask(step, mask_rule(step))
    table = found.table["by_layer"]
    assert table["layer"] == ["0", "norm"]
    assert table["frozen"] == [2, 0]  # 2 and 3.5
    assert table["previous"] == [1, 0]
    assert table["frozen_and_previous"] == [1, 0]
    assert table["zero_score"] == [1, 1]
    assert table["rl_norm"] == [pytest.approx(18**0.5), 1.0]
    assert found.threshold == 2.0 and not found.inside_sft


def test_ties_go_to_the_earlier_coordinate_over_all_tensors(tmp_path: Path):
    found = checkpoint_mask(checkpoint(tmp_path, BOTH), rule("1/2", "0.5", "global"))
    assert found.table["by_layer"]["frozen"] == [3, 0]
    assert found.threshold == 0.5


def test_a_score_of_0_is_not_frozen(tmp_path: Path):
    found = checkpoint_mask(checkpoint(tmp_path, BOTH), rule("1", "0.5", "global"))
    assert found.table["by_layer"]["frozen"] == [3, 1]


def test_per_tensor_takes_the_share_of_each(tmp_path: Path):
    found = checkpoint_mask(checkpoint(tmp_path, BOTH), rule("1/2", "0.5", "per_tensor"))
    assert found.table["by_layer"]["frozen"] == [2, 1]


def test_without_a_history_the_change_alone_decides(tmp_path: Path):
    found = checkpoint_mask(checkpoint(tmp_path, {"start": START}), rule("1/6", "0", "global"))
    assert found.table["by_layer"]["frozen"] == [1, 0]
    assert found.threshold == 4.0


LAST = {"inspection.last": [[True, True, False, False], [False, True]]}


def shown(capsys, *arguments: str) -> str:
    """The output of the command, each line's runs of spaces and rules as one space."""
    assert main(list(arguments)) == 0
    return "\n".join(" ".join(line.replace("│", " ").split()) for line in capsys.readouterr().out.splitlines())


def test_without_a_history_the_last_mask_is_the_one_kept_by_itself(tmp_path: Path, capsys):
    dagger = {"name": "strict", "share": "1/2", "history": 0}
    step = checkpoint(tmp_path, {"start": START} | LAST, dagger)
    table = checkpoint_mask(step, mask_rule(step)).table["by_layer"]
    # |change| is 4, 1, 0, 1 | 0, 1: of the three that are 1 the two that come first are frozen
    assert (table["frozen"], table["previous"], table["frozen_and_previous"]) == ([3, 0], [2, 1], [2, 0])
    out = shown(capsys, "mask", str(step))
    assert "0 4 50.00% 75.00%" in out and "norm 2 50.00% 0.00%" in out and "not kept" not in out
    assert "overlap with the mask before: 0.500; chance 0.333" in out  # 2 of 4; 3 * 3 / 6 = 1.5 of 4.5


def test_a_last_mask_that_is_not_there_is_not_kept_and_has_no_share(tmp_path: Path, capsys):
    step = checkpoint(tmp_path, {"start": START})
    table = checkpoint_mask(step, mask_rule(step)).table["by_layer"]
    assert "previous" not in table and "frozen_and_previous" not in table
    out = shown(capsys, "mask", str(step))
    assert "0 4 not kept" in out and "all 6 not kept" in out and "overlap" not in out
    assert "the last mask is not kept" in out


def test_another_importance_decides_as_it_did_in_that_interval(tmp_path: Path, capsys):
    half = {"name": "strict", "share": "1/2", "history": 0}
    step = checkpoint(tmp_path, {"start": START} | LAST, half, importance="random")
    (step / "mifo" / "controller.json").write_text('{"interval": 3}')
    scorer = IMPORTANCES.build({"name": "random"})
    scores = [
        scorer(torch.tensor(a), torch.tensor(a), ShardRange(name, 0), 3) for name, a in zip(NAMES, END, strict=True)
    ]
    third = torch.cat(scores).sort(descending=True).values[2]
    found = checkpoint_mask(step, mask_rule(step))
    assert found.table["by_layer"]["frozen"] == [int((score >= third).sum()) for score in scores]
    assert found.threshold == float(third)
    assert "importance: drawn at random" in shown(capsys, "mask", str(step))


def test_of_parts_that_nobody_here_knows_the_last_mask_is_shown_and_none_of_now(tmp_path: Path, capsys):
    for place, mine in enumerate(({"importance": "mine"}, {"freeze": {"name": "mine", "share": 2}})):
        step = checkpoint(tmp_path / str(place), {"start": START} | LAST, **mine)
        found = checkpoint_mask(step, mask_rule(step))
        table = found.table["by_layer"]
        assert table["previous"] == [2, 1] and found.threshold is None
        assert not {"frozen", "zero_score", "frozen_and_previous"} & set(table)
        assert table["rl_norm"] == [pytest.approx(18**0.5), 1.0]
        out = shown(capsys, "mask", str(step))
        assert "0 4 50.00% 4.243" in out and "mask of now" not in out.splitlines()[2] and "overlap" not in out
        assert (
            "no mask of now: the constraint has none, the importance needs RL's optimizer, or one is not installed"
            in out
        )


def test_a_checkpoint_without_its_run_has_no_rule(tmp_path: Path, capsys):
    step = checkpoint(tmp_path, BOTH)
    (tmp_path / "config.yaml").unlink()
    assert main(["mask", str(step)]) == 2
    assert "must lie in the folder of its run, whose config.yaml has the rule" in capsys.readouterr().err


def test_where_nothing_has_changed_nothing_is_frozen(tmp_path: Path):
    found = checkpoint_mask(checkpoint(tmp_path, {"start": END}), rule("1/2", "0", "global"))
    assert found.table["by_layer"]["frozen"] == [0, 0]


def test_inside_an_sft_phase_the_mask_is_the_one_held(tmp_path: Path):
    step = checkpoint(tmp_path, {"start": START})
    tensors = {"start.0": torch.tensor(START[0]), "start.1": torch.tensor(START[1])}
    held = {"frozen.0": torch.tensor([False, False, True, True]), "frozen.1": torch.tensor([True, False])}
    save_file(tensors | held, step / "mifo" / "rank_0_of_1.safetensors")
    found = checkpoint_mask(step, rule("1/2", "0", "global"))
    assert found.inside_sft and found.table["by_layer"]["frozen"] == [2, 1]
    assert main(["mask", str(step)]) == 0


@pytest.mark.parametrize("importance", ["abs_change", "random"])
def test_inside_an_sft_phase_the_history_is_of_the_mask_held_and_none_before_is_kept(
    tmp_path: Path, capsys, importance: str
):
    held = {"frozen": [[False, True, False, False], [False, False]]}
    step = checkpoint(tmp_path, BOTH | held, importance=importance)
    found = checkpoint_mask(step, mask_rule(step))
    table = found.table["by_layer"]
    assert found.inside_sft and found.threshold is None and table["frozen"] == [1, 0]
    assert not {"previous", "frozen_and_previous", "zero_score"} & set(table)
    out = shown(capsys, "mask", str(step))
    assert "0 4 not kept 25.00%" in out and "overlap" not in out
    assert "made inside an SFT phase: the mask of now is the one it holds, and the one before is lost" in out
    assert main(["mask", str(step), "history=0"]) == 2
    error = capsys.readouterr().err
    assert "history=0 must be of a mask of now" in error and error.count("\n") == 1


def test_parts_have_the_shapes_of_the_weights(tmp_path: Path):
    step = checkpoint(tmp_path, BOTH)
    assert torch.equal(open_weights(f"{step}@start").tensor(NAMES[0]), torch.zeros(2, 2))
    assert torch.equal(open_weights(str(step)).tensor(NAMES[0]), torch.tensor([[4.0, -1.0], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="must hold the interval's frozen; the run that made it kept none"):
        open_weights(f"{step}@frozen")


def test_settings_given_go_over_those_of_the_run(tmp_path: Path, capsys):
    step = checkpoint(tmp_path, BOTH)
    assert mask_rule(step, share="0.25", history="0").constraint == rule("0.25", "0", "global").constraint
    assert main(["mask", str(step), "share=1/6"]) == 0
    assert "constraint: the top 1/6 of the coordinates by importance are frozen" in capsys.readouterr().out


def test_a_checkpoint_without_all_its_ranks_is_refused(tmp_path: Path):
    step = checkpoint(tmp_path, BOTH)
    (step / "actor" / "model_world_size_1_rank_0.pt").rename(step / "actor" / "model_world_size_2_rank_0.pt")
    with pytest.raises(ValueError, match="must hold the shards of 2 ranks; 1 are there"):
        open_weights(str(step))


def test_the_intervals_of_a_run_are_shown(tmp_path: Path, capsys):
    run = ExampleRun(tmp_path / "run", make_data(tmp_path)).run(12)
    assert main(["mask", str(run), "interval=2"]) == 0
    out = capsys.readouterr().out
    assert "interval 2, SFT phase of step" in out and "Jaccard overlap with the mask before" in out
    assert main(["tokens", str(run)]) == 0
    assert "tokens kept most often" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tokens", "RUN", "interval=9"], "interval=9 must be one of 1, whose tokens this run has; choose"),
        (["mask", "RUN", "interval=x"], "interval=x must be one of 1, whose mask this run has; choose"),
        (["mask", "RUN", "share=0.5"], "share=0.5 must be key=value, key one of interval; correct it"),
        (["tokens", "RUN", "intervall=1"], "key one of interval (did you mean interval?); correct it"),
        (["mask", "STEP", "interval=1"], "interval=1 must be key=value, key one of share, history; correct it"),
        (["mask", "STEP", "share=2"], "share=2 must be a share in [0, 1]"),
        (["tokens", "STEP"], "must be the folder of a run; a checkpoint keeps no tokens, its run does"),
        (["mask", "nosuch"], "nosuch must be the folder of a run or a checkpoint; there is none; correct the path"),
        (["mask", "EMPTY"], "holds no mask in an inspection.jsonl; give a run with mifo.inspect.mask=true"),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path: Path, capsys, arguments: list[str], said: str):
    (tmp_path / "empty").mkdir()
    places = {
        "RUN": ExampleRun(tmp_path / "run", make_data(tmp_path)).run(4, finish=False),
        "STEP": checkpoint(tmp_path / "other", BOTH),
        "EMPTY": tmp_path / "empty",
    }
    assert main([str(places.get(argument, argument)) for argument in arguments]) == 2
    out, error = capsys.readouterr()
    assert said in error and error.count("\n") == 1 and out == ""


def test_without_a_folder_the_usage_is_shown(capsys):
    assert (main(["mask"]), main(["-h"]), main(["masks", "."])) == (2, 0, 2)
    out, error = capsys.readouterr()
    assert out.startswith("usage: ") and error.count("usage: ") == 2
