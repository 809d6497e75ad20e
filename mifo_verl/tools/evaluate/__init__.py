"""Evaluation: questions to responses to verdicts, with intervals; and comparisons that say what they show."""
