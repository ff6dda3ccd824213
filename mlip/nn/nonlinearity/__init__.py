"""Equivariant nonlinearities of node features, one form a file."""
