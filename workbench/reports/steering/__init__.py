"""Figures of the ways to use a vector: steering, monitoring, prevention, screening, and what a fine-tune changed."""
