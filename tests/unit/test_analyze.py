"""Analyses of checkpoints on Hugging Face folders small enough to work out by hand."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mifo_verl.tools.analyze.__main__ import main
from mifo_verl.tools.analyze.measures import principal_angles, rotation, subspace, support_overlap, update_norms
from mifo_verl.tools.analyze.prune import prune, write_pruned
from mifo_verl.tools.inspect.sources import common_names, open_weights

Q, UP, NORM = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight"
START = {Q: torch.tensor([[3.0, 0.0], [0.0, 4.0]]), UP: torch.zeros(2, 2), NORM: torch.ones(2)}
END = {Q: torch.tensor([[3.0, 3.0], [0.0, 8.0]]), UP: torch.full((2, 2), 0.5), NORM: torch.ones(2)}


def folder(path: Path, tensors: dict[str, torch.Tensor], files: int = 1) -> Path:
    """A Hugging Face folder, its tensors in one file or in several with an index."""
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "tokenizer.json").write_text("{}")
    if files == 1:
        save_file(tensors, path / "model.safetensors")
        return path
    weight_map = {name: f"model-{number % files}.safetensors" for number, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        save_file({name: tensors[name] for name, own in weight_map.items() if own == file}, path / file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return path


@pytest.fixture
def start(tmp_path: Path) -> Path:
    return folder(tmp_path / "start", START)


@pytest.fixture
def end(tmp_path: Path) -> Path:
    return folder(tmp_path / "end", END, files=2)


def test_norms_are_those_of_the_hand(start: Path, end: Path):
    found = update_norms(open_weights(str(start)), {"end": open_weights(str(end))})
    assert list(found["by_layer"]) == ["0", "1", "norm"]
    assert found["by_layer"]["0"] == {"coordinates": 4, "ends": {"end": {"norm": 5.0, "relative": 1.0, "moved": 2}}}
    assert found["by_layer"]["1"]["ends"]["end"] == {"norm": 1.0, "relative": None, "moved": 4}
    assert found["by_kind"]["norm"]["ends"]["end"]["norm"] == 0.0
    assert found["total"]["all"]["ends"]["end"]["norm"] == pytest.approx(26**0.5)


@pytest.mark.parametrize("label", ["start", "coordinates", "norm 1"])
def test_an_end_may_have_any_name(start: Path, end: Path, label: str):
    weights = open_weights(str(end))
    found = update_norms(open_weights(str(start)), {label: weights, "other": weights})["by_layer"]["0"]
    assert found == {
        "coordinates": 4,
        "ends": {one: {"norm": 5.0, "relative": 1.0, "moved": 2} for one in (label, "other")},
    }


def test_supports_meet_where_both_changed_and_chance_is_the_product(start: Path, end: Path, tmp_path: Path):
    other = {Q: torch.tensor([[3.0, 1.0], [1.0, 4.0]]), UP: torch.zeros(2, 2), NORM: torch.full((2,), 1 + 2**-12)}
    first, one, two = (open_weights(str(path)) for path in (start, end, folder(tmp_path / "other", other)))
    found = support_overlap((first, one), (first, two), torch.bfloat16)["by_layer"]
    counts = {"coordinates": 4, "first": 2, "second": 2, "both": 1}
    assert found["0"] == counts | {"jaccard": 1 / 3, "chance": 1 / 3}
    assert found["norm"]["second"] == 0  # bfloat16 does not show it
    assert found["1"]["jaccard"] == 0.0
    assert support_overlap((first, one), (first, two), torch.float32)["by_layer"]["norm"]["second"] == 2


def test_pruning_leaves_the_start_where_it_prunes_and_the_end_elsewhere():
    draw = torch.Generator().manual_seed(1)
    before, after = (torch.randn(100, 100, generator=draw) for _ in range(2))
    pruned = prune(before, after, 0.3, "a", seed=0, rescale=False)
    kept = pruned == after
    assert torch.equal(pruned[~kept], before[~kept])
    assert float(kept.float().mean()) == pytest.approx(0.7, abs=0.02)  # four standard deviations


def test_dare_keeps_the_mean_of_the_update_and_plain_pruning_does_not():
    before, after = torch.zeros(1000, 100), torch.ones(1000, 100)
    dare = prune(before, after, 0.5, "a", seed=0, rescale=True)
    assert set(dare.unique().tolist()) == {0.0, 2.0}
    assert float(dare.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(prune(before, after, 0.5, "a", seed=0, rescale=False).mean()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("rescale", [False, True])
def test_rate_0_is_the_end_bit_for_bit(rescale: bool):
    before, after = torch.full((4,), 1e8), torch.tensor([0.1, 0.2, 0.3, -0.7])
    assert torch.equal(prune(before, after, 0.0, "a", 0, rescale), after)


def test_what_a_rate_prunes_higher_rates_prune_too():
    before, after = torch.zeros(1000), torch.ones(1000)
    kept = [prune(before, after, rate, "a", 3, False).bool() for rate in (0.1, 0.3, 0.5)]
    assert not (kept[1] & ~kept[0]).any() and not (kept[2] & ~kept[1]).any()


def test_a_draw_is_its_own_seeds_and_names():
    before, after = torch.zeros(1000), torch.ones(1000)
    first = prune(before, after, 0.5, "a", 0, False)
    assert torch.equal(first, prune(before, after, 0.5, "a", 0, False))
    assert not torch.equal(first, prune(before, after, 0.5, "b", 0, False))
    assert not torch.equal(first, prune(before, after, 0.5, "a", 1, False))


def test_a_pruned_model_is_a_whole_hugging_face_folder(start: Path, end: Path, tmp_path: Path):
    assert main(["prune", str(start), str(end), f"out={tmp_path / 'out'}", "rates=0,0.5"]) == 0
    for rate in ("0", "0.5"):
        out = tmp_path / "out" / f"rate_{rate}"
        assert {file.name for file in out.iterdir()} == {"config.json", "tokenizer.json", "model.safetensors"}
        written = load_file(out / "model.safetensors")
        for name, tensor in written.items():
            assert torch.equal(tensor, prune(START[name], END[name], float(rate), name, 0, False))


def test_a_model_larger_than_a_file_gets_an_index(start: Path, end: Path, tmp_path: Path):
    weights = open_weights(str(start)), open_weights(str(end))
    how = {"rate": 0.0, "seed": 0, "rescale": False, "dtype": torch.bfloat16}
    write_pruned(*weights, end, tmp_path / "out", **how, file_bytes=16)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert sorted(set(index["weight_map"].values())) == [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    assert index["metadata"]["total_size"] == 2 * (4 + 4 + 2)
    read = open_weights(str(tmp_path / "out"))
    assert torch.equal(read.tensor(Q), END[Q].bfloat16())
    assert set(read.names()) == set(END)


def test_planes_that_are_turned_by_an_angle_have_that_angle():
    for degrees in (0.0, 1e-5, 10.0, 60.0, 90.0):
        angle = math.radians(degrees)
        first = torch.eye(4, dtype=torch.float64)[:, :2]
        second = torch.tensor(
            [[1.0, 0.0], [0.0, math.cos(angle)], [0.0, math.sin(angle)], [0.0, 0.0]], dtype=torch.float64
        )
        found = principal_angles(first, second).tolist()
        assert found == [pytest.approx(0.0, abs=1e-9), pytest.approx(degrees, rel=1e-6, abs=1e-9)]


def test_a_turned_matrix_has_turned_left_vectors_and_the_same_values():
    angle = math.radians(30)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = torch.diag(torch.tensor([3.0, 1.0]))
    found = rotation(matrix, turn @ matrix, rank=1)
    assert found["left_max"] == pytest.approx(30, abs=1e-4)
    assert found["right_max"] == pytest.approx(0, abs=1e-4)
    assert found["values"] == pytest.approx(0, abs=1e-6)
    assert rotation(matrix, 2 * matrix, rank=2) == {
        "left_mean": pytest.approx(0, abs=1e-6),
        "left_max": pytest.approx(0, abs=1e-6),
        "right_mean": pytest.approx(0, abs=1e-6),
        "right_max": pytest.approx(0, abs=1e-6),
        "values": pytest.approx(1.0),
    }


def test_vectors_have_no_subspace(start: Path, end: Path):
    rows = subspace(open_weights(str(start)), open_weights(str(end)), rank=1)
    assert {row["name"] for row in rows if row["kind"] != "norm"} == {row["name"] for row in rows} <= {Q, UP}


def test_models_that_differ_are_refused_and_a_tied_head_is_none_of_it(start: Path, tmp_path: Path):
    tied = open_weights(str(folder(tmp_path / "tied", START | {"lm_head.weight": torch.ones(1)})))
    assert set(common_names(open_weights(str(start)), tied)) == set(START)
    other = open_weights(str(folder(tmp_path / "other", {Q: START[Q]})))
    with pytest.raises(
        ValueError, match=r"the models differ: 2 tensors are not in all of them, such as model\.layers\.1"
    ):
        common_names(open_weights(str(start)), other)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["prun", "a", "b"],
            "prun must be one of updates, prune, subspace, overlap, fork, predictors, sparsify, forgetting, sensitivity (did you mean prune?)",
        ),
        (["updates", "START"], "weights=1 must be 2 or more for updates"),
        (["updates", "START", "nowhere"], "weights=nowhere must be a Hugging Face folder or a checkpoint"),
        (["prune", "START", "START"], "out= must be given"),
        (["prune", "START", "START", "out=x", "rates=1"], "rates=1 must be numbers in [0, 1)"),
        (["prune", "START", "START", "out=x", "samples=2"], "samples=2 must go with benchmarks="),
        (["prune", "START", "START", "out=x", "benchmarks=[x]", "samples=0"], "samples=0 must be a whole number"),
        (["prune", "START", "START", "out=x", "benchmarks=[gsm8]"], "benchmarks=gsm8 must be one of"),
        (["prune", "START", "START", "out=x", "seed=1.7"], "seed=1.7 must be a whole number; correct it"),
        (["subspace", "START", "START", "rank=0"], "rank=0 must be a whole number of at least 1"),
        (["subspace", "START", "START", "rank=1.5"], "rank=1.5 must be a whole number; correct it"),
        (["subspace", "START", "START", "device=cudaa"], "device=cudaa must be a device that torch finds here"),
        (["subspace", "START", "START", "device=meta"], "device=meta must be a device that torch finds here"),
        (["updates", "START", "nowhere", "json=/nosuch/x.json"], "json=/nosuch/x.json must be a file that can be"),
        (["overlap", "START", "START", "START", "dtype=int8"], "dtype=int8 must be one of bfloat16, float16, float32"),
        (["updates", "START", "START", "jsn=x"], "jsn=x must be key=value, key one of json (did you mean json?)"),
    ],
)
def test_mistakes_are_named_in_one_line(start: Path, arguments: list[str], said: str, capsys):
    assert main([str(start) if argument == "START" else argument for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.strip().count("\n") == 0


def test_the_numbers_also_go_into_a_file(start: Path, end: Path, tmp_path: Path):
    assert main(["updates", str(start), str(end), f"json={tmp_path / 'x.json'}"]) == 0
    assert json.loads((tmp_path / "x.json").read_text())["by_layer"]["0"]["ends"]["end"]["norm"] == 5.0
    assert main(["overlap", str(start), str(end), str(end)]) == 0
    assert main(["subspace", str(start), str(end), "rank=1"]) == 0
