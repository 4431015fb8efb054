"""Everything that outlives a run: patch stores, checkpoints, tracked runs, registered models."""
