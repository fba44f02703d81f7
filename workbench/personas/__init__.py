"""From trait text to persona vector: traits, rollouts, judges, extraction and its evidence."""
