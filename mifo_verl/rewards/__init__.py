"""Rewards: answer extraction and equivalence. Each returns the score and the correctness separately."""
