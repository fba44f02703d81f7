"""Activation capping along an axis or along features: limits from rollouts, bands of blocks, controls, and what it costs."""
