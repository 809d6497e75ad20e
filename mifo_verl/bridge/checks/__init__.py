"""The checks of a run before anything starts, one subject a file: no Ray, no GPU, no network, no weights."""
