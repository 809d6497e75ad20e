"""Platform and rollouts for machines without a GPU."""
