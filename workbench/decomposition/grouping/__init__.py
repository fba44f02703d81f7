"""Features that act as one."""
