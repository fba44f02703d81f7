"""Commands of `workbench features`: the index of all features, and a feature from all sides."""
