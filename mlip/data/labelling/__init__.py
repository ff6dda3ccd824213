"""Make data: compute labels of structures with a program of quantum chemistry."""
