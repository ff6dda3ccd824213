"""Potentials of other packages: their checkpoints, read without their code and turned into models of ours."""
