"""Measurements of components: what they cost, what they can represent, how fast they are."""
