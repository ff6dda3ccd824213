"""Write samples to the files that other programs read; one module a format."""
