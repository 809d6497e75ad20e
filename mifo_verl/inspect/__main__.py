"""``python -m mifo_verl.inspect mask <checkpoint or run>``, ``... tokens <run>``: what was frozen, what was kept."""

import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from mifo_verl.bridge.records import INSPECTION, read_lines
from mifo_verl.inspect import show
from mifo_verl.inspect.checkpoint import checkpoint_mask, freeze_settings

USAGE = """usage: python -m mifo_verl.inspect mask   <run> [interval=N]    the mask and both updates of an interval
       python -m mifo_verl.inspect mask   <run>/checkpoints/global_step_N [share=0.5] [history=0.5]
                                          the last mask, and the one that SFT would freeze now
       python -m mifo_verl.inspect tokens <run> [interval=N]    entropies; demonstrations with the kept tokens marked"""

_MASK = {"frozen": "frozen", "previous": "frozen before", "frozen_and_previous": "both", "zero_score": "score 0"}
_UPDATES = {
    "rl_norm": "RL update",
    "sft_norm": "SFT update",
    "rl_visible": "RL visible",
    "sft_visible": "SFT visible",
    "both_visible": "both visible",
}
_CHECKPOINT = {
    "previous": "last mask",
    "frozen": "mask of now",
    "zero_score": "score 0",
    "rl_norm": "update since start",
    "rl_visible": "visible",
}


def main(arguments: list[str]) -> int:
    """Show one thing; returns the exit code."""
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    places = [argument for argument in arguments if "=" not in argument]
    if len(places) != 2 or places[0] not in ("mask", "tokens") or set(options) - {"interval", "share", "history"}:
        asked = {"-h", "--help"} & set(arguments)
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    try:
        folder = Path(places[1])
        if places[0] == "mask" and (folder / "actor").is_dir():
            _checkpoint(folder, options)
        else:
            _interval(folder, options.get("interval"), places[0])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _interval(folder: Path, interval: str | None, what: str) -> None:
    lines = [line for line in read_lines(folder / INSPECTION) if line.get(what)]
    chosen = [line for line in lines if interval is None or str(line["interval"]) == interval]
    if not chosen:
        known = ", ".join(str(line["interval"]) for line in lines) or "none"
        raise ValueError(
            f"interval={interval or 'last'} must be one whose {what} were inspected in {folder} ({known}); "
            f"train with mifo.inspect.{what}=true"
        )
    line: dict[str, Any] = chosen[-1]
    Console().print(f"interval {line['interval']}, SFT phase of step {line['step']}", highlight=False)
    if what == "tokens":
        show.tokens(line)
        return
    show.mask(line["mask"], _MASK)
    show.mask(line["mask"], _UPDATES)
    show.overlap(line["mask"])
    Console().print("updates: L2 norm; visible: where a bfloat16 copy of the weights changed", highlight=False)


def _checkpoint(folder: Path, options: dict[str, str]) -> None:
    settings = freeze_settings(folder, options.get("share"), options.get("history"))
    found = checkpoint_mask(folder, settings)
    told = found.table["by_layer"]
    titles = {key: title for key, title in _CHECKPOINT.items() if key in told or key == "previous"}
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"share {settings.share}, history {settings.history}, scope {settings.scope}")
    show.mask(found.table, titles)
    show.overlap(found.table)
    if found.inside_sft:
        console.print("made inside an SFT phase: the mask of now is the one it holds, and the one before is lost")
    elif "previous" not in told:
        console.print("the last mask is not kept: no SFT phase came before, or mifo.inspect.mask was off at history=0")
    if found.threshold is not None:
        console.print(f"threshold of the mask of now: {found.threshold:.4g}")
    elif not found.inside_sft:
        console.print(f"no mask of now: weights alone do not tell it, mifo.importance.name={settings.importance}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
