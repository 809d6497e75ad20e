"""The report in a real browser, without a network: every figure is drawn and fits, and the console has nothing to say."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mifo_verl.tools.report.__main__ import write
from tests.unit.example_run import ExampleRun, make_data

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; install one to look at the report in it")

# a window is 500 pixels wide at least, a frame is as narrow as one likes
FRAME = """<iframe id="frame" src="{page}" width="{width}" height="900" style="border: 0"></iframe><pre id="seen"></pre>
<script>
onload = () => setTimeout(() => {{
  const inside = document.getElementById("frame").contentDocument;
  const figures = [...inside.querySelectorAll(".svg-container")].filter((one) => one.clientWidth > 0);
  const card = (figure) => figure.closest(".card");
  document.getElementById("seen").textContent = JSON.stringify({{
    width: inside.documentElement.clientWidth,
    content: inside.documentElement.scrollWidth,
    drawn: figures.length,
    narrow: figures.filter((one) => one.clientWidth < 0.8 * card(one).clientWidth).length,
    wide: figures.filter((one) => one.clientWidth > card(one).clientWidth).length,
    document: inside.body.innerHTML.replace(/<script[^]*?<\\/script>/g, ""),
  }});
}}, 15000);
</script>"""


def opened(page: Path, width: int, profile: Path) -> tuple[dict[str, Any], str]:
    """(what FRAME saw of the page after its scripts had run, what the console said)."""
    frame = page.with_name(f"frame-{width}.html")
    frame.write_text(FRAME.format(page=page.resolve().as_uri(), width=width))
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={profile}",
        "--window-size=1400,900",
        "--virtual-time-budget=30000",
        "--enable-logging=stderr",
        "--dump-dom",
        frame.resolve().as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    seen = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, flags=re.S)
    assert seen, done.stdout
    return json.loads(html.unescape(seen[1])), "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.parametrize("width", [1280, 390])
def test_every_figure_is_drawn_inside_its_card_and_the_console_is_silent(tmp_path: Path, width: int):
    run = ExampleRun(tmp_path / "run", make_data(tmp_path)).run(12)
    page = run / "report.html"
    write([run], page)
    seen, console = opened(page, width, tmp_path / "profile")
    figures = len(re.findall(r'<div class="plot[^"]*"[^>]*data-figure="\d+"', seen["document"]))
    assert figures > 18
    assert seen["drawn"] == figures
    assert seen["width"] == seen["content"] == pytest.approx(width, abs=16)  # less a scroll bar; nothing to scroll to
    assert (seen["narrow"], seen["wide"]) == (0, 0)
    assert "plotly-notifier" not in seen["document"]
    assert console == ""


def test_a_comparison_draws_its_curves_and_leaves_folded_runs_alone(tmp_path: Path):
    data = make_data(tmp_path)
    runs = [ExampleRun(tmp_path / f"mifo-{seed}", data, seed).run(8) for seed in (0, 1)]
    write(runs, tmp_path / "report.html")
    seen, console = opened(tmp_path / "report.html", 1280, tmp_path / "profile")
    document = seen["document"]
    curves = document[document.index("<h2>Curves</h2>") : document.index("<h2>Where the settings differ</h2>")]
    assert len(re.findall(r'svg-container"', curves)) == len(re.findall(r'data-figure="\d+"', curves)) == 15
    assert len(re.findall(r'svg-container"', document)) == 15
    assert console == ""
