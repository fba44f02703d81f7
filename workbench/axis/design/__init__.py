"""Where a system prompt lands among the characters of a model, what holds it there, and what would steady it."""
