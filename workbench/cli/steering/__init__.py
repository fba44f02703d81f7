"""The verbs that use persona vectors: steer, monitor, prevent, diff, screen."""
