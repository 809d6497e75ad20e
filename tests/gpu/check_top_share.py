"""The exact top share of 1.5e9 coordinates, with and without ties, against counts and sorts of slices."""

import torch
from measure import Row, copy_seconds, median_seconds, peak_bytes
from torch import Tensor

from mifo_verl.method.top_share import Selection, select_top_share

SLICE = 1 << 24


def made_scores(sizes: list[int], levels: int | None, device: torch.device) -> list[Tensor]:
    """Scores of which about half are 0; with ``levels``, the others take only so many values, in many ties."""
    generator = torch.Generator(device).manual_seed(0)
    scores = []
    for size in sizes:
        score = torch.empty(size, device=device)
        for part in score.split(SLICE):
            part.uniform_(-1.0, 1.0, generator=generator).clamp_(min=0.0)
            if levels is not None:
                part.mul_(levels).floor_().div_(levels)
            part.mul_(2.0**-20)
        scores.append(score)
    return scores


def check_selection(scores: list[Tensor], selection: Selection, share: float) -> None:
    """Assert, slice by slice, that the masks are the exact top share with ties to the earlier coordinate."""
    total = sum(score.numel() for score in scores)
    positive = sum(int((part > 0).sum()) for score in scores for part in score.split(SLICE))
    wanted = min(round(share * 1000) * total // 1000, positive)
    assert (selection.num_coordinates, selection.num_positive, selection.num_frozen) == (total, positive, wanted)

    above = at = chosen = 0
    smallest, largest_left = float("inf"), 0.0
    threshold = selection.threshold
    for score, mask in zip(scores, selection.frozen, strict=True):
        for part, on in zip(score.split(SLICE), mask.split(SLICE), strict=True):
            above += int((part > threshold).sum())
            at += int((part == threshold).sum())
            chosen += int(on.sum())
            if part.numel() == 0:
                continue
            smallest = min(smallest, float(torch.where(on, part, torch.inf).min()))
            largest_left = max(largest_left, float(torch.where(on, 0.0, part).max()))
    assert chosen == wanted, f"{chosen} coordinates are frozen, not {wanted}"
    assert above < wanted <= above + at, f"{threshold} is not the {wanted}-th largest: {above} above it, {at} at it"
    assert smallest == threshold > 0, f"the smallest frozen score is {smallest}, not {threshold}"
    assert smallest >= largest_left, f"{largest_left} is left trainable while {smallest} is frozen"

    ties_before = 0
    for score, mask in zip(scores, selection.frozen, strict=True):
        for part, on in zip(score.split(SLICE), mask.split(SLICE), strict=True):
            tie = part == threshold
            first = tie & (tie.cumsum(0, dtype=torch.int64) <= wanted - above - ties_before)
            assert torch.equal(on & tie, first), "a tie went to a later coordinate"
            ties_before += int(tie.sum())


def check_case(name: str, sizes: list[int], levels: int | None, share: float, device: torch.device) -> Row:
    scores, total = made_scores(sizes, levels, device), sum(sizes)
    check_selection(scores, select_top_share(scores, share), share)

    part = scores[0][:SLICE]
    count = round(share * 1000) * part.numel() // 1000
    expected = torch.sort(part.cpu(), descending=True).values[count - 1].item()
    found = select_top_share([part], share).threshold
    assert expected == found or (expected == 0 and found > 0), f"the sort says {expected}, not {found}"

    peak = peak_bytes(lambda: select_top_share(scores, share), device)
    bound = total + (2 << 30)
    assert peak is None or peak < bound, f"the selection took {peak} bytes beside the scores, above {bound}"
    seconds = median_seconds(lambda: select_top_share(scores, share), device)
    return Row(f"top share, {name}", f"{total:.2e} coordinates", seconds, copy_seconds(4 * total, device), peak)


def check_top_share(scale: float, device: torch.device) -> list[Row]:
    total = max(1000, int(1.5e9 * scale))
    sizes = [total * 36 // 100, total * 36 // 100, total * 20 // 100, 17, 0]  # two as large as an embedding of 7B
    sizes.append(total - sum(sizes))
    return [
        check_case("ties", sizes, 16, 0.3, device),
        check_case("distinct", sizes, None, 0.3, device),
        check_case("zeros", sizes, 512, 0.9, device),
    ]
