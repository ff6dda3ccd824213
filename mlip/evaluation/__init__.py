"""Errors of a model on a data set: tables and plots."""
