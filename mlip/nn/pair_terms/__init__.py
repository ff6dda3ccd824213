"""Energies of pairs of atoms in closed form, added to what a model learns, one term a file."""
