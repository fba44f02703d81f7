"""What steering costs: the trait in replies, their coherence, capability and KL under every method, side by side."""
