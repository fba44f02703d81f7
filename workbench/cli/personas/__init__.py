"""Commands around a persona vector: traits, judges, vectors and the panel of all traits."""
