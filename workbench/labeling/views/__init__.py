"""One value that shows what is known of a feature: contexts, lens, tallies, neighbours, and what taking it out does."""
