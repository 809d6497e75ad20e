"""Tables of the tools: on a terminal they fit it, in a file a row is a line."""

import pandas as pd
import pytest

from mifo_verl.tools.tables import print_frame

NAMES = [f"number {n}" for n in range(1, 6)]
WIDE = pd.DataFrame([{"arm": arm} | dict.fromkeys(NAMES, "0.5000 ± 0.0100") for arm in ("mifo", "rl_only")])


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich's word for: this is a terminal
    monkeypatch.setenv("TERM", "dumb")  # without colours
    monkeypatch.setenv("COLUMNS", "80")


def test_a_table_wider_than_the_terminal_comes_in_parts_that_each_name_their_rows(terminal, capsys):
    print_frame(WIDE, "What it cost")  # 11 for the arm, 18 a number: three fit 80 columns
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) == 65
    heads = [[cell.strip() for cell in line.strip("┃").split("┃")] for line in lines if line.startswith("┃")]
    assert heads == [["arm", *NAMES[:3]], ["arm", *NAMES[3:]]]
    assert sum("│ rl_only │ 0.5000 ± 0.0100 │" in line for line in lines) == 2
    assert sum("What it cost" in line for line in lines) == 1


def test_one_that_fits_is_one_table_and_so_is_any_in_a_file(terminal, capsys, monkeypatch):
    print_frame(WIDE[["arm", *NAMES[:3]]])
    assert capsys.readouterr().out.count("┏") == 1
    monkeypatch.delenv("FORCE_COLOR")
    print_frame(WIDE)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and set(map(len, lines)) == {101}  # 11 + 5 * 18


def test_a_cell_that_fits_no_terminal_is_folded_and_an_empty_one_is_a_dash(terminal, capsys):
    print_frame(pd.DataFrame([{"arm": "mifo", "command": "x" * 100, "seeds": None}]))
    lines = capsys.readouterr().out.splitlines()
    assert (
        max(map(len, lines)) == 80 and "".join(lines).count("x") == 100 and any("│ –     │" in line for line in lines)
    )
