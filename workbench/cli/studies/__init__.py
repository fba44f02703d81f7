"""Commands that check a finished vector or decomposition, or the method itself."""
