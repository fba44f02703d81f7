"""What a persona vector is made of: shares, secondary views, nulls, and (in `causal`) the effect of each feature."""
