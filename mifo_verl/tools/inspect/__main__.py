"""``python -m mifo_verl.tools.inspect mask <checkpoint or run>``, ``... tokens <run>``: what was frozen, what was kept."""

import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from mifo_verl.run.journal import INSPECTION, read_lines
from mifo_verl.tools.command_line import pairs
from mifo_verl.tools.inspect import show
from mifo_verl.tools.inspect.checkpoint import checkpoint_mask, freeze_settings

USAGE = """usage: python -m mifo_verl.tools.inspect mask   <run> [interval=N]    the mask and both updates of an interval
       python -m mifo_verl.tools.inspect mask   <run>/checkpoints/global_step_N [share=0.5] [history=0.5]
                                          the last mask, and the one that SFT would freeze now
       python -m mifo_verl.tools.inspect tokens <run> [interval=N]    entropies; demonstrations with the kept tokens marked"""

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
    places = [argument for argument in arguments if "=" not in argument]
    asked = bool({"-h", "--help"} & set(arguments))
    if asked or len(places) != 2 or places[0] not in ("mask", "tokens"):
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    try:
        _show(places[0], Path(places[1]), [argument for argument in arguments if "=" in argument])
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _show(what: str, folder: Path, options: list[str]) -> None:
    if not folder.is_dir():
        raise ValueError(f"{folder} must be the folder of a run or a checkpoint, and there is none; correct the path")
    if not (folder / "actor").is_dir():
        _interval(folder, pairs(options, ("interval",)).get("interval"), what)
    elif what == "mask":
        _checkpoint(folder, pairs(options, ("share", "history")))
    else:
        raise ValueError(f"{folder} must be the folder of a run; a checkpoint keeps no tokens, its run does")


def _interval(folder: Path, interval: str | None, what: str) -> None:
    lines = [line for line in read_lines(folder / INSPECTION) if line.get(what)]
    if not lines:
        raise ValueError(
            f"{folder} holds no {what} in an {INSPECTION}; give a run with mifo.inspect.{what}=true, after an SFT phase"
        )
    chosen = [line for line in lines if interval is None or str(line["interval"]) == interval]
    if not chosen:
        known = ", ".join(str(line["interval"]) for line in lines)
        raise ValueError(f"interval={interval} must be one of {known}, whose {what} this run has; choose one of them")
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
