"""How well a label tells where its feature fires, whoever wrote it."""
