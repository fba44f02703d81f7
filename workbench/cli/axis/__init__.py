"""The verbs of `workbench axis`: the characters of a model, its assistant axis, drift along it, and a cap on it."""
