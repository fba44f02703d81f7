"""Preventative steering: a vector that is added while a model is fine-tuned, and the arms that it is compared with."""
