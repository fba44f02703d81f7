"""Sparse autoencoders: read, found, trained, measured."""
