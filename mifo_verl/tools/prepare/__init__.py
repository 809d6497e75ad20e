"""Data sets made ready: recipes, the quick start's task and models."""
