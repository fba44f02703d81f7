"""Commands of `workbench sae`: the shelf, training, evaluation."""
