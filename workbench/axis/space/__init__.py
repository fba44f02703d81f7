"""Characters on a model: their replies, their vectors, the space these span, and the axis from all of them to the assistant."""
