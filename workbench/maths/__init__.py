"""Tensors in, tensors out: no files, no models, no globals. Errors here are ValueError with a full sentence."""
