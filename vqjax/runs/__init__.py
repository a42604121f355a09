"""A run on disk: its folder, its checkpoints, what it logs."""
