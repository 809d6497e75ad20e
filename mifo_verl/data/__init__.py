"""Data: demonstrations, SFT batches, preparation. Pure: tokenizer and checker come in as arguments."""
