"""What was frozen, what was kept: ``mifo inspect mask <checkpoint or run>``, ``mifo inspect tokens <run>``."""

import sys
from pathlib import Path
from typing import Any

from mifo_verl.tools.command_line import pairs

USAGE = """usage: mifo inspect mask   <run> [interval=N]    the mask and both updates of an interval
       mifo inspect mask   <run>/checkpoints/global_step_N [share=0.5] [history=0.5]
                           the last mask, and the one that an SFT phase would hold now
       mifo inspect tokens <run> [interval=N]    entropies; demonstrations with the kept tokens marked"""

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
    options = [argument for argument in arguments if "=" in argument]
    asked = bool({"-h", "--help"} & set(arguments))
    if asked or len(places) != 2 or places[0] not in ("mask", "tokens"):
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    what, folder = places[0], Path(places[1])
    try:
        if not folder.is_dir():
            raise ValueError(f"{folder} must be the folder of a run or a checkpoint; there is none; correct the path")
        if not (folder / "actor").is_dir():
            _interval(folder, pairs(options, ("interval",)).get("interval"), what)
        elif what == "mask":
            _checkpoint(folder, pairs(options, ("share", "history")))
        else:
            raise ValueError(f"{folder} must be the folder of a run; a checkpoint keeps no tokens, its run does")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _interval(folder: Path, interval: str | None, what: str) -> None:
    from mifo_verl.run.journal import INSPECTION
    from mifo_verl.tools.inspect import show
    from mifo_verl.tools.records import Inspection
    from mifo_verl.tools.run_files import read_lines

    left_out: list[str] = []
    lines = [line for line in read_lines(folder / INSPECTION, Inspection, left_out) if line[what]]
    if not lines:
        raise ValueError(
            f"{folder} holds no {what} in an {INSPECTION}; give a run with mifo.inspect.{what}=true, after an SFT phase"
        )
    chosen = [line for line in lines if interval is None or str(line["interval"]) == interval]
    if not chosen:
        known = ", ".join(str(line["interval"]) for line in lines)
        raise ValueError(f"interval={interval} must be one of {known}, whose {what} this run has; choose one of them")
    line: dict[str, Any] = chosen[-1]
    show.said(*left_out, f"interval {line['interval']}, SFT phase of step {line['step']}")
    if what == "tokens":
        show.tokens(line)
        return
    show.mask(line["mask"], _MASK)
    show.mask(line["mask"], _UPDATES)
    show.overlap(line["mask"])
    show.said("updates: L2 norm; visible: where a bfloat16 copy of the weights changed")


def _checkpoint(folder: Path, options: dict[str, str]) -> None:
    from mifo_verl.tools.inspect import show
    from mifo_verl.tools.inspect.checkpoint import checkpoint_mask, mask_rule

    rule = mask_rule(folder, **options)
    found = checkpoint_mask(folder, rule)
    told = found.table["by_layer"]
    show.said(rule.words)
    show.mask(found.table, {key: title for key, title in _CHECKPOINT.items() if key in told or key == "previous"})
    show.overlap(found.table)
    if found.inside_sft:
        show.said("made inside an SFT phase: the mask of now is the one it holds, and the one before is lost")
    elif "previous" not in told:
        show.said("the last mask is not kept: no SFT phase came before, or mifo.inspect.mask was off at history=0")
    if found.threshold is not None:
        show.said(f"threshold of the mask of now: {found.threshold:.4g}")
    elif not found.inside_sft:
        show.said(
            "no mask of now: the constraint has none, the importance needs RL's optimizer, or one is not installed here"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
