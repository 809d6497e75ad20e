"""mifo_verl: reinforcement learning interleaved with supervised fine-tuning, without forgetting, on verl."""

__version__ = "0.1.0"
