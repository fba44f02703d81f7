"""Watching a model while it writes: projections on persona vectors, feature activations, alarms."""
