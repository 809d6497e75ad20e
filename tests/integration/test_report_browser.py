"""The report in a real browser, without a network: every figure is drawn, and the console has nothing to say."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mifo_verl.report.write import write, write_report
from tests.unit.example_run import ExampleRun, make_data

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; install one to look at the report in it")


def opened(page: Path, width: int, profile: Path) -> tuple[str, str]:
    """(the document after its scripts have run, what the console said)."""
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={profile}",
        f"--window-size={width},900",
        "--virtual-time-budget=20000",
        "--enable-logging=stderr",
        "--dump-dom",
        page.resolve().as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    without_scripts = re.sub(r"<script.*?</script>", "", done.stdout, flags=re.S)
    return without_scripts, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.parametrize("width", [1280, 390])
def test_every_figure_is_drawn_and_the_console_is_silent(tmp_path: Path, width: int):
    run = ExampleRun(tmp_path / "run", make_data(tmp_path)).run(12)
    page = write_report(run)
    assert page is not None
    document, console = opened(page, width, tmp_path / "profile")
    figures = len(re.findall(r'<div class="plot[^"]*"[^>]*data-figure="\d+"', document))
    assert figures > 18
    assert len(re.findall(r'svg-container"', document)) == figures
    assert "plotly-notifier" not in document
    assert console == ""


def test_a_comparison_draws_its_curves_and_leaves_folded_runs_alone(tmp_path: Path):
    data = make_data(tmp_path)
    runs = [ExampleRun(tmp_path / f"mifo-{seed}", data, seed).run(8) for seed in (0, 1)]
    document, console = opened(write(runs, tmp_path / "report.html"), 1280, tmp_path / "profile")
    curves = document[document.index("<h2>Curves</h2>") : document.index("<h2>Where the settings differ</h2>")]
    assert len(re.findall(r'svg-container"', curves)) == len(re.findall(r'data-figure="\d+"', curves)) == 15
    assert len(re.findall(r'svg-container"', document)) == 15
    assert console == ""
