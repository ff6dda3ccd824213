"""Models as engines of other codes."""
