"""training: one run: from settings to checkpoints."""
