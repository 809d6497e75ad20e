"""Generation with transformers, batched, with a KV cache of its own: the CPU rollout server without verl and Ray."""
