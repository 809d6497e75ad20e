"""The plumbing: with train.py and plugin.py the only place that imports verl, ray, tensordict, hydra, omegaconf."""
