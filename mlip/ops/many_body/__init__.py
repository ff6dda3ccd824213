"""Many-body products: equivariant polynomials of the features of one atom, one backend a file."""
