"""The space of characters that a model can play: where the assistant stands in it, what moves it, and what holds it."""
