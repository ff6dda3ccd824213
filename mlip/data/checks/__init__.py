"""Checks that stop silent wrongness before a training: one pass over the data, in memory that stays small.

A check is a subclass of :class:`mlip.data.checks.base.Check` in any module of this folder; nothing else names it.
"""
