"""Backends that choose by measurement, without the measurement."""

import functools
from collections.abc import Callable
from typing import Any

from mlip.core.errors import ConfigError
from mlip.ops.tensor_product.auto import Auto, none_can
from mlip.ops.tensor_product.base import TensorProduct


def chooses(factory: Callable[..., TensorProduct]) -> bool:
    """Return whether a factory builds an :class:`Auto`."""
    return isinstance(factory, functools.partial) and factory.func is Auto


def without_choice(factory: Callable[..., TensorProduct]) -> Callable[..., TensorProduct]:
    """Return a factory that takes the first candidate of an :class:`Auto` that can do it, any other as it is.

    All candidates compute the same numbers and so represent the same maps: a measurement would tell nothing about
    them, and would leave a choice for a size that no model has in the user's cache.
    """
    return functools.partial(_first, factory.keywords["candidates"]) if chooses(factory) else factory


def _first(candidates: dict[str, Callable[..., TensorProduct]], *irreps: object, **options: Any) -> TensorProduct:
    refusals = {}
    for name, candidate in candidates.items():
        try:
            return candidate(*irreps, **options)
        except ConfigError as error:
            refusals[name] = error
    raise none_can(refusals)
