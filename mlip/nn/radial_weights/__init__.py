"""Radial weights: from the radial basis to the weights of a convolution, one form a file."""
