"""Tensor products of irreps: one interface, one backend a file."""
