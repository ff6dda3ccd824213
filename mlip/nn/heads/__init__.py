"""Heads: from node features to physical fields. One head a file."""
