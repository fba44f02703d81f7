"""Where features fire: documents as tokens, the contexts kept of each feature, the index of them."""
