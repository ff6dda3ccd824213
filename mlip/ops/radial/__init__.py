"""Radial bases: distances in, smooth functions of the distance out. One basis a file."""
