"""Drift: how far a conversation carries a model along an axis, beyond what the last message alone would do."""
