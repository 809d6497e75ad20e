"""The only folder that imports verl, TransferQueue and tensordict: trainer, workers, engine, rollouts."""
