"""mifo_verl: reinforcement learning interleaved with supervised fine-tuning, without forgetting, on verl."""

__version__ = "0.1.0"
__path__.append(f"{__path__[0]}/old_names")  # python -m mifo_verl.report, until the next release
