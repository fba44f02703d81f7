"""Decompositions side by side: traits, dictionaries, before and after."""
