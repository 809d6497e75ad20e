"""Names of ``python -m`` before the command ``mifo``; they go with the next release."""
