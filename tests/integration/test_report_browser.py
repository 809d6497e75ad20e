"""The report in a real browser, without a network: every figure is drawn and fits, and the console has nothing to say."""

import html
import json
import re
import shutil
import subprocess
from typing import Any

import pytest

from mifo_verl.tools.report.__main__ import write
from tests.unit.example_run import ExampleRun, make_data

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; install one to look at the report in it")

# a window is 500 pixels wide at least, a frame is as narrow as one likes
FRAME = '<iframe src="{page}" width="{width}" height="900" style="border: 0"></iframe>'
LOOK = """<pre id="seen"></pre>
<script>
const seenIn = (frame) => {
  const inside = frame.contentDocument;
  const figures = [...inside.querySelectorAll(".svg-container")].filter((one) => one.clientWidth > 0);
  const card = (figure) => figure.closest(".card");
  return {
    width: inside.documentElement.clientWidth,
    content: inside.documentElement.scrollWidth,
    drawn: figures.length,
    narrow: figures.filter((one) => one.clientWidth < 0.8 * card(one).clientWidth).length,
    wide: figures.filter((one) => one.clientWidth > card(one).clientWidth).length,
    document: inside.body.innerHTML.replace(/<script[^]*?<\\/script>/g, ""),
  };
};
onload = () => setTimeout(() => {
  const frames = [...document.querySelectorAll("iframe")];
  document.getElementById("seen").textContent = JSON.stringify(frames.map(seenIn));
}, 15000);
</script>"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> tuple[dict[str, Any], str]:
    """(what LOOK saw of a run at two widths and of a comparison after their scripts had run, what the console said)."""
    folder = tmp_path_factory.mktemp("pages")
    data = make_data(folder)
    one, several = folder / "one.html", folder / "several.html"
    write([ExampleRun(folder / "run", data).run(12)], one)
    write([ExampleRun(folder / f"mifo-{seed}", data, seed).run(8) for seed in (0, 1)], several)
    shown = {"1280": (one, 1280), "390": (one, 390), "several": (several, 1280)}
    frames = [FRAME.format(page=page.resolve().as_uri(), width=width) for page, width in shown.values()]
    (folder / "frames.html").write_text("\n".join([*frames, LOOK]))
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={folder / 'profile'}",
        "--window-size=1400,900",
        "--virtual-time-budget=30000",
        "--enable-logging=stderr",
        "--dump-dom",
        (folder / "frames.html").resolve().as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    seen = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, flags=re.S)
    assert seen, done.stdout
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return dict(zip(shown, json.loads(html.unescape(seen[1])), strict=True)), console


@pytest.mark.parametrize("width", [1280, 390])
def test_every_figure_is_drawn_inside_its_card_and_the_console_is_silent(opened, width: int):
    seen, console = opened[0][str(width)], opened[1]
    figures = len(re.findall(r'<div class="plot[^"]*"[^>]*data-figure="\d+"', seen["document"]))
    assert figures > 18
    assert seen["drawn"] == figures
    assert seen["width"] == seen["content"] == pytest.approx(width, abs=16)  # less a scroll bar; nothing to scroll to
    assert (seen["narrow"], seen["wide"]) == (0, 0)
    assert "plotly-notifier" not in seen["document"]
    assert console == ""


def test_a_comparison_draws_its_curves_and_leaves_folded_runs_alone(opened):
    seen, console = opened[0]["several"], opened[1]
    document = seen["document"]
    curves = document[document.index("<h2>Curves</h2>") : document.index("<h2>Where the settings differ</h2>")]
    assert len(re.findall(r'svg-container"', curves)) == len(re.findall(r'data-figure="\d+"', curves)) == 15
    assert len(re.findall(r'svg-container"', document)) == 15
    assert console == ""
