"""A user's own folder of settings: found, combined with ours, and its mistakes said as ours are."""

import pytest

from mifo_verl.checks.preflight import check_run
from mifo_verl.compose import ConfigError, compose_config, config_folders
from mifo_verl.overrides import normalised

MINE = """# @package _global_
defaults:
  - override /task: addition
  - override /hardware: cpu
  - override /mifo/token_selector: most
name: mine
mifo:
  sft:
    lr: 3.0e-5
actor_rollout_ref:
  model:
    path: ${mifo_data:addition_start}
"""


@pytest.fixture
def folder(tmp_path):
    for path, text in (
        ("experiment/mine.yaml", MINE),
        ("experiment/other.yaml", "# @package _global_\ndefaults: [mine]\nname: other\n"),
        ("mifo/token_selector/most.yaml", "name: top_entropy\nratio: 0.9\n"),
    ):
        (tmp_path / "conf" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / path).write_text(text)
    return tmp_path / "conf"


def errors_of(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        compose_config(list(overrides))
    return error.value.errors


def test_an_experiment_and_a_part_of_ones_own_are_chosen_like_ours(folder):
    for given in ([f"mifo.config_dirs=[{folder}]"], ["--config-dir", str(folder)], [f"--config-dir={folder}"]):
        node = compose_config([*given, "experiment=other", "seed=3"]).node
        assert (node.name, node.seed, node.mifo.sft.lr) == ("other", 3, 3e-5)
        assert node.mifo.token_selector == {"name": "top_entropy", "ratio": 0.9}
        assert list(node.mifo.config_dirs) == [str(folder)]
    assert config_folders(["--config-dir", str(folder)])[-1] == folder


def test_a_relative_folder_is_kept_as_an_absolute_one_and_two_are_both_searched(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    (folder.parent / "more" / "method").mkdir(parents=True)
    (folder.parent / "more" / "method" / "plain.yaml").write_text("# @package _global_\nbuffer_size: 5\n")
    overrides = ["--config-dir", "conf", "experiment=mine", "method=plain", "mifo.config_dirs=more"]
    assert normalised(overrides)[-1] == f'mifo.config_dirs=["{folder}","{folder.parent}/more"]'
    assert compose_config(overrides).node.buffer_size == 5


def test_a_path_with_blanks_and_commas_is_one_folder(tmp_path):
    folder = tmp_path / "my conf, new"
    folder.mkdir()
    assert list(compose_config(["--config-dir", str(folder), "experiment=quickstart"]).node.mifo.config_dirs) == [
        str(folder)
    ]


def test_a_name_that_no_folder_has_is_said_with_the_names_of_all(folder):
    (line,) = errors_of("--config-dir", str(folder), "experiment=mien")
    assert line.startswith("experiment=mien must be one of ") and "mifo_dagger, mine, other" in line
    assert "did you mean mine?" in line and str(folder) in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: x\n", "must begin with the line '# @package _global_'"),
        ("# @package _global_\nname: [x\n", "must be YAML"),
        ("# @package _global_\nname: ${nowhere}\n", "there is no nowhere"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(folder, text, says):
    (folder / "experiment" / "mine.yaml").write_text(text)
    (line,) = errors_of("--config-dir", str(folder), "experiment=mine", "actor_rollout_ref.model.path=x")
    assert says in line and "; " in line


def test_a_key_of_a_file_that_nothing_reads_is_an_error(folder):
    (folder / "experiment" / "mine.yaml").write_text(MINE + "data:\n  train_batchsize: 3\n")
    overrides = ["--config-dir", str(folder), "experiment=mine", "prepare=null"]
    errors = check_run(compose_config(overrides).node, overrides).found.errors()
    assert any(
        "data.train_batchsize=3" in one and "did you mean data.train_batch_size?" in one for one in map(str, errors)
    )
