"""The order of a run: which phase comes next, on which prompts. No torch, no verl."""
