"""Generated kernels: forms as plain data, their code, and the operators of torch that run it."""
