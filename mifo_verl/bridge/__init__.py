"""The plumbing: the only folder, with train.py and plugin.py, that imports verl, ray, tensordict, hydra or omegaconf."""
