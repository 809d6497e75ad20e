"""What was frozen, what was kept: ``mifo inspect mask <checkpoint or run>``, ``mifo inspect tokens <run>``."""

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mifo_verl.tools.command_line import exit_code, pairs
from mifo_verl.tools.inspect.overlap import chance_jaccard, jaccard
from mifo_verl.tools.tables import say

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


def mask(table: dict[str, dict[str, list[Any]]], titles: dict[str, str]) -> None:
    """The groups of ``MaskInspection.table``: a column a name of ``titles``, counts as shares of the coordinates.

    A name that the table lacks is not kept.
    """
    for by in ("layer", "kind"):
        groups = table[f"by_{by}"]
        out = Table(by, "coordinates", *titles.values())
        for row, name in enumerate(groups[by]):
            out.add_row(name, f"{groups['coordinates'][row]:,}", *(_cell(groups, key, row) for key in titles))
        if by == "layer":
            out.add_section()
            sums = {key: [sum(groups[key])] for key in groups if key != by and not key.endswith("_norm")}
            sums |= {key: [sum(v * v for v in groups[key]) ** 0.5] for key in groups if key.endswith("_norm")}
            out.add_row("all", f"{sums['coordinates'][0]:,}", *(_cell(sums, key, 0) for key in titles))
        Console().print(out)


def overlap(table: dict[str, dict[str, list[Any]]]) -> None:
    """Jaccard overlap with the mask before, beside what chance gives; nothing where there was none."""
    groups = table["by_layer"]
    if "frozen_and_previous" not in groups:
        return
    columns = [groups[name] for name in ("coordinates", "frozen", "previous")]
    sizes = [sum(column) for column in columns]
    if not sizes[1] or not sizes[2]:
        return
    own = jaccard(sizes[1], sizes[2], sum(groups["frozen_and_previous"]))
    chance, within = chance_jaccard(*([size] for size in sizes)), chance_jaccard(*columns)
    say(f"Jaccard overlap with the mask before: {own:.3f}; chance {chance:.3f}, with each layer's share {within:.3f}")


def tokens(line: dict[str, Any]) -> None:
    """One phase: thresholds, tokens kept most often, and its whole demonstrations with the kept tokens marked."""
    console, found = Console(), line["tokens"]
    if found["threshold"]:
        spread = ", ".join(f"{name} {value:.4f}" for name, value in found["threshold"].items())
        say(f"smallest kept entropy of a demonstration (nats): {spread}")
    shares = zip(found["position_kept"], found["position"], strict=True)
    kept = " ".join(f"{part / whole:.0%}" if whole else "-" for part, whole in shares)
    say(f"share kept by position, start to end: {kept}")
    table = Table("token", "times kept", "times in all", title="tokens kept most often")
    for text, number, whole in found["top_tokens"]:
        table.add_row(repr(text), str(number), str(whole))
    console.print(table)
    for example in found["examples"]:
        console.rule(f"interval {line['interval']}, {example['prompt_id']}")
        console.print(Text(example["prompt"], style="dim"))
        console.print(_marked(example))
        marked = zip(example["tokens"], example["entropy"], example["kept"], strict=True)
        console.print(
            ", ".join(f"{token!r} {entropy:.3f}" for token, entropy, is_kept in marked if is_kept), style="dim"
        )


def _marked(example: dict[str, Any]) -> Text:
    text, is_plain = Text(), not Console().is_terminal
    for token, kept in zip(example["tokens"], example["kept"], strict=True):
        text.append(f"[{token}]" if kept and is_plain else token, style="bold black on dark_orange" if kept else "")
    return text


def _cell(groups: dict[str, list[Any]], key: str, row: int) -> str:
    if key not in groups:
        return "not kept"
    value, size = groups[key][row], groups["coordinates"][row]
    if key.endswith("_norm"):
        return f"{value:.4g}"
    return f"{value / size:.2%}" if size else "-"


def main(arguments: list[str]) -> int:
    """Show one thing; returns the exit code."""
    places = [argument for argument in arguments if "=" not in argument]
    options = [argument for argument in arguments if "=" in argument]
    asked = bool({"-h", "--help"} & set(arguments))
    if asked or len(places) != 2 or places[0] not in ("mask", "tokens"):
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    return exit_code(lambda: _show(places[0], Path(places[1]), options))


def _show(what: str, folder: Path, options: list[str]) -> int:
    if not folder.is_dir():
        raise ValueError(f"{folder} must be the folder of a run or a checkpoint; there is none; correct the path")
    if not (folder / "actor").is_dir():
        _interval(folder, pairs(options, ("interval",)).get("interval"), what)
    elif what == "mask":
        _checkpoint(folder, pairs(options, ("share", "history")))
    else:
        raise ValueError(f"{folder} must be the folder of a run; a checkpoint keeps no tokens, its run does")
    return 0


def _interval(folder: Path, interval: str | None, what: str) -> None:
    from mifo_verl.run.journal import INSPECTION
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
    for text in (*left_out, f"interval {line['interval']}, SFT phase of step {line['step']}"):
        say(text)
    if what == "tokens":
        tokens(line)
        return
    mask(line["mask"], _MASK)
    mask(line["mask"], _UPDATES)
    overlap(line["mask"])
    say("updates: L2 norm; visible: where a bfloat16 copy of the weights changed")


def _checkpoint(folder: Path, options: dict[str, str]) -> None:
    from mifo_verl.tools.inspect.checkpoint import checkpoint_mask, mask_rule

    rule = mask_rule(folder, **options)
    found = checkpoint_mask(folder, rule)
    told = found.table["by_layer"]
    say(rule.words)
    mask(found.table, {key: title for key, title in _CHECKPOINT.items() if key in told or key == "previous"})
    overlap(found.table)
    if found.inside_sft:
        say("made inside an SFT phase: the mask of now is the one it holds, and the one before is lost")
    elif "previous" not in told:
        say("the last mask is not kept: no SFT phase came before, or mifo.inspect.mask was off at history=0")
    if found.threshold is not None:
        say(f"threshold of the mask of now: {found.threshold:.4g}")
    elif not found.inside_sft:
        say(
            "no mask of now: the constraint has none, the importance needs RL's optimizer, or one is not installed here"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
