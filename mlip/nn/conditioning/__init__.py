"""What a structure is besides its atoms, as features: total charge, spin, one form a file."""
