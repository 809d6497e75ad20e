"""acc(q): how many of a prompt's N rollouts are correct (MIFO section 3, step 2).

Counts stay integers to the end, so that ``acc(q) <= p`` is never a comparison of floats.
"""

from collections.abc import Iterable


def count_correct(rollouts: Iterable[tuple[str, object, bool]]) -> dict[str, tuple[int, int]]:
    """(num_correct, num_rollouts) of every prompt, in the order in which the prompts first appear.

    ``rollouts`` holds (uid of the prompt, correctness, whether the row is only padding of the batch). Correctness
    comes from a correctness field (``acc``) of the reward, never from the reward itself, and is 0, 1, or a bool,
    of Python or NumPy.
    Padding rows are not counted: a prompt with padding rows alone does not appear.

    Raises ValueError on a correctness that is neither 0 nor 1.
    """
    counts: dict[str, tuple[int, int]] = {}
    for uid, correct, is_padding in rollouts:
        if is_padding:
            continue
        if correct not in (0, 1):  # a NumPy number or bool compares like a Python one
            raise ValueError(
                f"acc={correct} of prompt {uid} must be 0 or 1; the reward function has to return "
                "{'score': float, 'acc': 0 or 1}"
            )
        num_correct, num_rollouts = counts.get(uid, (0, 0))
        counts[uid] = (num_correct + bool(correct), num_rollouts + 1)
    return counts
