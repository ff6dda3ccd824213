"""Graph builders: which pairs of atoms are edges. One builder a file."""
