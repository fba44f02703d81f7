"""What a fine-tune changed: shifts along persona vectors and features, the lens on unrelated text, decoder rotation."""
