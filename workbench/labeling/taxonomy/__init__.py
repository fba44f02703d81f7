"""Sub-traits: which of them a feature belongs to, and what a trait is made of."""
