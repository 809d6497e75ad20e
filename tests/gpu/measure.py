"""Median times, copy times and peak memory of a device, and the table they go into."""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

REPEATS = 5


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    check: str
    size: str
    seconds: float
    copy_seconds: float
    peak_bytes: int | None


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(function: Callable[[], object], device: torch.device) -> float:
    """The median time of five calls, after one that is not counted."""
    times = []
    for _ in range(REPEATS + 1):
        wait(device)
        start = time.perf_counter()
        function()
        wait(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def copy_seconds(num_bytes: int, device: torch.device) -> float:
    """The median time in which the device copies ``num_bytes`` from one place to another, at most 1 GiB at a time."""
    piece = max(1, min(num_bytes, 1 << 30))
    source = torch.zeros(piece, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = median_seconds(lambda: target.copy_(source), device)
    return seconds * num_bytes / piece


def peak_bytes(function: Callable[[], object], device: torch.device) -> int | None:
    """How far ``function`` raises the allocated memory at its peak, its result included; None where unknown."""
    if device.type != "cuda":
        function()
        return None
    gc.collect()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    function()
    wait(device)
    return torch.cuda.max_memory_allocated(device) - before


def table(rows: list[Row]) -> str:
    lines = [f"{'check':<26}{'size':<36}{'median ms':>11}{'copy ms':>10}{'ratio':>8}{'peak GB':>10}"]
    for row in rows:
        peak = "-" if row.peak_bytes is None else f"{row.peak_bytes / 1e9:.2f}"
        ratio = row.seconds / row.copy_seconds
        times = f"{row.seconds * 1e3:>11.3f}{row.copy_seconds * 1e3:>10.3f}{ratio:>8.1f}"
        lines.append(f"{row.check:<26}{row.size:<36}{times}{peak:>10}")
    return "\n".join(lines)
