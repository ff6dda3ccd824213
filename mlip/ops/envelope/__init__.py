"""Envelopes: smooth switches from one to zero at the cutoff. One envelope a file."""
