"""What a run is around its loop: folder, journal, checkpoints, display, budget, watchdog."""
