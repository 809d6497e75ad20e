"""The paper's analyses that need checkpoints alone, tensor by tensor: ``mifo analyze``."""
