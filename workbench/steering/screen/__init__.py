"""Data screening: which samples of a data set pull a model toward a trait, and by which features."""
