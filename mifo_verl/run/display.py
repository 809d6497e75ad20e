"""What a person sees of a run: a live line on a terminal, plain lines in a log, and the final table.

The controller runs on some machine of the cluster; this display reads the records that it writes.
"""

import json
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from mifo_verl.run.journal import EVENTS, METRICS, STAGE, Follower

_REFRESH_SECONDS = 0.5
_SAY_SECONDS = 25.0
"""Of silence in a log, after which the stage is said."""

logger = logging.getLogger(__name__)


class ProgressDisplay:
    """A thread that follows a run's records, and what the controller says that it does, while the run goes on."""

    def __init__(self, folder: Path, config: DictConfig) -> None:
        self._folder = folder
        self._events, self._lines = Follower(folder / EVENTS), Follower(folder / METRICS)
        (folder / STAGE).unlink(missing_ok=True)
        self._total = config.trainer.total_training_steps
        self._full = config.mifo.schedule.get("size")
        self._console = Console()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._stage: tuple[str, float] = "start-up: Ray", time.time()
        self._said = time.monotonic()

    def __enter__(self) -> "ProgressDisplay":
        self._console.print(f"run folder: {self._folder}", soft_wrap=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("step {task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[stage]}"),
        )
        with Progress(*columns, console=self._console, disable=not self._console.is_terminal) as bar:
            task = bar.add_task("no step yet", total=self._total, stage=self._stage[0])
            while not self._stop.wait(_REFRESH_SECONDS):
                self._try_to_show(bar, task)
            self._try_to_show(bar, task)

    def _try_to_show(self, bar: Progress, task: Any) -> None:
        for show in (self._show_stage, self._show_new):
            with _told_if_it_fails():
                show(bar, task)

    def _show_stage(self, bar: Progress, task: Any) -> None:
        """What goes on: always on a terminal; in a log when nothing was said for half a minute."""
        with suppress(FileNotFoundError):
            found = json.loads((self._folder / STAGE).read_text())
            self._stage = found["stage"], found["since"]
        stage, since = self._stage
        bar.update(task, stage=f"{stage} ({max(0.0, time.time() - since):.0f} s)")
        if not self._console.is_terminal and time.monotonic() - self._said > _SAY_SECONDS:
            self._say(f"{_clock()} {stage} for {max(0.0, time.time() - since):.0f} s")

    def _show_new(self, bar: Progress, task: Any) -> None:
        for event in self._events():
            with _told_if_it_fails():
                self._say(f"{_clock(event['time'])} {event['text']}")
        for line in self._lines():
            with _told_if_it_fails():
                text = _describe(line, self._full)
                bar.update(task, description=text, completed=line["step"])
                if not self._console.is_terminal or "accuracy_before" in line:
                    self._say(f"{_clock()} step {line['step']} {text}")

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)


@contextmanager
def _told_if_it_fails() -> Iterator[None]:
    """What cannot be shown, or a file that cannot be read, is told: the run goes on, and so does the display."""
    try:
        yield
    except Exception:
        logger.exception("the display stumbled")


def _clock(seconds: float | None = None) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def _describe(line: dict[str, Any], full: int | None) -> str:
    interval = f"interval {line['interval']}"
    if line["phase"] == "rl":
        buffer = f"{line['buffer_size']}" + (f"/{full}" if full else "")
        return f"RL  {interval}  accuracy {_text(line['accuracy'])}  buffer {buffer}"
    loss = "not finite" if line["loss"] is None else f"{line['loss']:.4f}"
    text = f"SFT {interval}  loss {loss}  kept {line['kept_share']:.3f}  frozen {line['frozen_share']:.3f}"
    before, after = line.get("accuracy_before"), line.get("accuracy_after")
    return f"{text}  validation {before['mean']:.3f} -> {after['mean']:.3f}" if before and after else text


def print_summary(summary: dict[str, Any], folder: Path) -> None:
    """The final tables of a run, and what it cost."""
    console, probes = Console(), summary["probes"]
    before = summary["accuracy_start"]
    columns: tuple[str, ...] = ("validation accuracy", "before", "after", "change")
    rows: list[tuple[str, ...]] = [
        (
            source,
            _text(before.get(source)),
            _text(end),
            _text(end - before[source], "+.3f") if source in before else "-",
        )
        for source, end in summary["accuracy_end"].items()
    ]
    console.print(_table("The run", columns, rows))
    columns = ("interval", "accuracy before", "after", "frozen", "tokens kept", "demonstrations")
    rows = [
        (
            str(phase["interval"]),
            *(_text(phase[key]) for key in ("accuracy_before", "accuracy_after", "frozen_share")),
            f"{phase['kept_tokens']}/{phase['response_tokens']}",
            str(phase["demonstrations"]),
        )
        for phase in summary["sft_phases"]
    ]
    if rows:
        console.print(_table("SFT phases; accuracy: average of the data sources", columns, rows))
    if intervals := summary["coupling"]["intervals"]:
        rows = [
            (str(line["interval"]), *(_text(line[name], form) for name, (_, form) in _COUPLING.items()))
            for line in [*intervals, {"interval": "total"} | summary["coupling"]["total"]]
        ]
        titles = ("interval", *(title for title, _ in _COUPLING.values()))
        console.print(_table("Coupling: what one objective cost the other", titles, rows))
    shares = {"seconds": probes["share_of_seconds"], "compute (estimated)": probes["share_of_compute"]}
    of_run = "".join(f", {share:.1%} of the run's {of}" for of, share in shares.items() if share is not None)
    console.print(
        f"probes: {probes['seconds']:.1f} s{of_run}\n"
        f"{summary['rl_steps']} RL steps, {summary['sft_updates']} SFT updates, {summary['intervals']} complete "
        f"intervals, {summary['distinct_demonstrations']} distinct demonstrations\n"
        f"{_where_time_went(summary)}\nkept in {folder}",
        soft_wrap=True,
        highlight=False,
    )


def _where_time_went(summary: dict[str, Any]) -> str:
    """Every stage with its share of the run, the longest first."""
    total = summary["seconds"]["total"]
    parts = sorted(summary["stages"].items(), key=lambda pair: -pair[1])
    told = ", ".join(f"{name.replace('_', ' ')} {part:.1f} ({part / total:.0%})" for name, part in parts if part > 0.05)
    return f"seconds: total {total:.1f} = {told}"


_COUPLING = {
    "rl_raised_cross_entropy": ("RL raised CE", "+.4f"),
    "sft_raised_cross_entropy": ("SFT raised CE", "+.4f"),
    "sft_lost_accuracy": ("lost, held out", "+.3f"),
    "sft_lost_solved": ("lost, solved", "+.3f"),
    "sft_gained_hard": ("gained, hard", "+.3f"),
    "lost_solved_per_gained_hard": ("lost / gain", ".2f"),
    "kl_to_before": ("KL", ".4f"),
}
"""Numbers of the coupling: what RL cost SFT (rise of the demonstrations' cross-entropy), and SFT cost RL (accuracy)."""


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(title=title)
    for column in columns:
        table.add_column(column, no_wrap=column == "interval")
    for row in rows:
        table.add_row(*row)
    return table


def _text(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)
