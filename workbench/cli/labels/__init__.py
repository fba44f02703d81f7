"""Commands of `workbench labels`: label files, explanations, scores, annotation."""
