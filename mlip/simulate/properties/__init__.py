"""Properties of a material from energies, forces and stresses of any ASE calculator."""
