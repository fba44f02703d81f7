"""Annotating by hand: a person reads features and has the last word on their labels, in Jupyter or in the terminal."""
