"""Screening: one task for thousands of structures, by many workers, whatever happens to some of them."""
