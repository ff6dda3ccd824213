"""Tensors in, tensors out: radial bases, tensor products, sphere grids, segment sums. No atoms."""
