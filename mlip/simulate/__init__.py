"""Relaxation and molecular dynamics with an ASE calculator."""
