"""Blocks and heads that models are made of."""
