"""Is this SAE fit to take a persona vector apart? One measure a module, and the card that puts them together."""

from __future__ import annotations

from .fitness import Fitness, density, evaluate, evaluate_all

__all__ = ["Fitness", "density", "evaluate", "evaluate_all"]
