"""Reward by exact match of the whole answer: the last box where there is one, else all that follows ``</think>``.

verl finds it by ``reward.custom_reward_function.path=pkg://mifo_verl.rewards.exact`` and ``name=compute_score``.
"""

from mifo_verl.rewards.boxed import normalise
from mifo_verl.rewards.extract import answer_part, last_boxed
from mifo_verl.rewards.verdict import Verdict, binary, reward_function


def verdict(text: str, answer: str, require_think: bool = False) -> Verdict:
    """Whether the answer is ``answer`` letter by letter; spaces count as one, integers as in ``boxed.normalise``.

    Without ``</think>`` all of ``text`` is read, or nothing with ``require_think``. An empty answer is wrong.
    """
    answered = answer_part(text, require_think)
    found = last_boxed(answered)
    found = " ".join((answered if found is None else found).split())
    return binary(bool(found) and normalise(found) == normalise(" ".join(answer.split())), found or None)


compute_score = reward_function(verdict)
