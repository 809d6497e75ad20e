"""What a person sees of a run: a live line on a terminal, plain lines in a log, and the final table.

The controller runs on some machine of the cluster; this display reads the records that it writes.
"""

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from mifo_verl.run.journal import EVENTS, METRICS, read_lines

_REFRESH_SECONDS = 0.5

logger = logging.getLogger(__name__)


class ProgressDisplay:
    """A thread that follows ``metrics.jsonl`` while the run goes on."""

    def __init__(self, folder: Path, config: DictConfig) -> None:
        self._file = folder / METRICS
        self._events = folder / EVENTS
        self._shown_events = len(read_lines(self._events))
        self._total = config.trainer.total_training_steps
        self._full = config.mifo.schedule.get("size")
        self._console = Console()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._shown_steps = len(read_lines(self._file))  # of a run that goes on

    def __enter__(self) -> "ProgressDisplay":
        self._console.print(f"run folder: {self._file.parent}", soft_wrap=True)
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
        )
        with Progress(*columns, console=self._console, disable=not self._console.is_terminal) as bar:
            task = bar.add_task("starting Ray and the roles", total=self._total)
            while not self._stop.wait(_REFRESH_SECONDS):
                self._try_to_show(bar, task)
            self._try_to_show(bar, task)

    def _try_to_show(self, bar: Progress, task: Any) -> None:
        try:
            self._show_new(bar, task)
        except Exception:  # a line that cannot be shown, a file that cannot be read: the run goes on, and so does this
            logger.exception("the display stumbled")

    def _show_new(self, bar: Progress, task: Any) -> None:
        events = read_lines(self._events)
        for event in events[self._shown_events :]:
            self._shown_events += 1
            self._console.print(f"{_clock(event['time'])} {event['text']}", soft_wrap=True, highlight=False)
        lines = read_lines(self._file)
        self._shown_steps = min(self._shown_steps, len(lines))  # a resumed run forgets the lines after its checkpoint
        for line in lines[self._shown_steps :]:
            self._shown_steps += 1  # first, so that a line that cannot be shown is tried once
            text = _describe(line, self._full)
            bar.update(task, description=text, completed=line["step"])
            if not self._console.is_terminal or "accuracy_before" in line:
                self._console.print(f"{_clock()} step {line['step']} {text}", soft_wrap=True, highlight=False)


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
    console, seconds, probes = Console(), summary["seconds"], summary["probes"]
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
    console.print(_table("SFT phases", columns, rows))
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
        f"seconds: RL {seconds['rl']:.1f}, SFT {seconds['sft']:.1f}, overhead {seconds['overhead']:.1f}, "
        f"total {seconds['total']:.1f}\nkept in {folder}",
        soft_wrap=True,
        highlight=False,
    )


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
