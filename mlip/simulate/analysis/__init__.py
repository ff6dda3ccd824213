"""What can be learned from the trajectory of an MD run."""
