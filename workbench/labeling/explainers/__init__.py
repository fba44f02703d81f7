"""Who puts evidence into words: programs, local models, endpoints."""
