"""Arguments become settings of their types; what is wrong is one line that names it."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from mifo_verl.tools.command_line import pairs, read, require_writable, run


@dataclass(frozen=True)
class Settings:
    source: Path
    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (8,)
    most: int | None = None
    share: float = 0.5
    strict: bool = False


def test_every_field_is_read_as_its_type_and_what_is_not_given_keeps_its_default() -> None:
    given = ["in=a=b.txt", "names=[x, y]", "sizes=1,2", "most=3", "share=1e-2", "strict=True"]
    assert read(Settings, given, {"source": "in"}) == Settings(Path("a=b.txt"), ("x", "y"), (1, 2), 3, 0.01, True)
    assert read(Settings, ["source=a"]) == Settings(Path("a"), (), (8,), None, 0.5, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "source= must be given; write source=<...>"),
        (["share"], "share must be key=value, key one of source, names, sizes, most, share, strict"),
        (["share="], "share= must be key=value"),
        (["shares=1"], r"\(did you mean share\?\)"),
        (["source=a", "most=1.5"], "most=1.5 must be a whole number; correct it"),
        (["source=a", "sizes=[1,x]"], "sizes=x must be a whole number"),
        (["source=a", "share=half"], "share=half must be a number"),
        (["source=a", "strict=yes"], "strict=yes must be true or false"),
    ],
)
def test_a_mistake_names_the_argument_and_the_rule(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(Settings, arguments)


def test_without_known_keys_any_key_goes() -> None:
    assert pairs(["a=1", "b=x=y"]) == {"a": "1", "b": "x=y"}


@pytest.mark.parametrize("error", [ValueError("x must be y; do z"), OSError("no disk"), None])
def test_the_exit_code_is_2_after_one_line_or_0(error: Exception | None, capsys: pytest.CaptureFixture[str]) -> None:
    def action() -> None:
        if error is not None:
            raise error

    assert run(action) == (0 if error is None else 2)
    out, err = capsys.readouterr()
    assert err == ("" if error is None else f"error: {error}\n")
    assert out.startswith("done in ") == (error is None)


def test_what_is_not_the_users_to_fix_is_raised_unless_it_is_named() -> None:
    def action() -> None:
        raise RuntimeError("x")

    assert run(action, RuntimeError) == 2
    with pytest.raises(RuntimeError):
        run(action)


@pytest.mark.parametrize("where", ["nosuch/x", "folder", "a_file/x", "/proc/x"])
def test_what_cannot_be_written_is_told_before_the_work(tmp_path: Path, where: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a_file").touch()
    with pytest.raises(ValueError, match=f"json={tmp_path / where} must be a file that can be written: .*; choose"):
        require_writable("json", tmp_path / where)


def test_a_folder_that_is_made_on_the_way_is_asked_for_the_nearest_one_that_is_there(tmp_path: Path) -> None:
    require_writable("out", tmp_path / "a" / "b" / "x.html", makes_folders=True)
    with pytest.raises(ValueError, match="must be a file that can be written"):
        require_writable("out", Path("/proc/foo/x.html"), makes_folders=True)


def test_asking_leaves_nothing_behind_and_changes_no_file(tmp_path: Path) -> None:
    (tmp_path / "held").write_text("before")
    require_writable("json", tmp_path / "held")
    require_writable("json", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["held"] and (tmp_path / "held").read_text() == "before"
