"""Answers graded from a file."""
