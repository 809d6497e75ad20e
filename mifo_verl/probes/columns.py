"""The columns of what is inspected of a mask. Standard library only."""

COUNTS = (
    "coordinates",
    "frozen",
    "zero_score",
    "previous",
    "frozen_and_previous",
    "rl_moved",
    "sft_moved",
    "both_moved",
    "rl_visible",
    "sft_visible",
    "both_visible",
    "frozen_rl_visible",
)
"""What is counted of every group: its size, the mask, the scores of 0, the mask of the interval before, supports, and
how much of RL's is frozen."""
NORMS = ("rl_norm", "sft_norm")
"""L2 norms of the RL phase's and of the SFT phase's update."""
