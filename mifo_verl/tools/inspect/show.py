"""Masks and tokens on a terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mifo_verl.tools.inspect.overlap import chance_jaccard, jaccard


def said(*lines: str) -> None:
    """Plain lines, which are not cut."""
    for line in lines:
        Console(highlight=False, soft_wrap=True).print(line, markup=False)


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
    said(f"Jaccard overlap with the mask before: {own:.3f}; chance {chance:.3f}, with each layer's share {within:.3f}")


def tokens(line: dict[str, Any]) -> None:
    """One phase: thresholds, tokens kept most often, and its whole demonstrations with the kept tokens marked."""
    console, found = Console(), line["tokens"]
    if found["threshold"]:
        spread = ", ".join(f"{name} {value:.4f}" for name, value in found["threshold"].items())
        said(f"smallest kept entropy of a demonstration (nats): {spread}")
    shares = zip(found["position_kept"], found["position"], strict=True)
    kept = " ".join(f"{part / whole:.0%}" if whole else "-" for part, whole in shares)
    said(f"share kept by position, start to end: {kept}")
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
