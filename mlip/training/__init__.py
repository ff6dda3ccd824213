"""Training with Lightning: losses, schedules, exact resume."""
