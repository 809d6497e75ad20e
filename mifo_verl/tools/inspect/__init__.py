"""What was frozen and which tokens were kept: counted on the ranks in a run, shown for runs and checkpoints."""
