"""Who does a model say it is, when it is pushed along the axis? Claims of an identity, style, and random directions beside."""
