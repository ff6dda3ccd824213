"""One architecture a file, and the model file."""
