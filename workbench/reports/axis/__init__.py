"""Pages and drawings of the assistant axis."""
