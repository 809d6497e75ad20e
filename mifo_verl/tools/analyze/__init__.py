"""The paper's analyses that need checkpoints alone, tensor by tensor: ``python -m mifo_verl.tools.analyze``."""
