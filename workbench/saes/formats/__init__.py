"""On-disk formats of sparse autoencoders, one module each."""
