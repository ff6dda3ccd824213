"""Contracts that every component must pass, shared by the tests and by mlip doctor."""
