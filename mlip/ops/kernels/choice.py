"""Whether generated kernels are used: one word for a whole model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from mlip.core.errors import ConfigError, did_you_mean
from mlip.ops.kernels.compiler import NoCompiler
from mlip.ops.kernels.operators import in_forward_mode

log = logging.getLogger(__name__)

Kernels = Literal["auto", "on", "off"]
"""``auto``: kernels where they can be had and there is enough to do; ``on``: always, an error where they cannot be had;
``off``: plain torch. The results agree to rounding."""


def choose_kernels(model: nn.Module, kernels: Any) -> Kernels:
    """Set ``kernels`` of every part that has generated kernels (``has_kernels``); return what was chosen.

    Args:
        model: anything made of modules.
        kernels: one of `Kernels`; True and False are taken for on and off, as which YAML reads them.

    Raises:
        ConfigError: none of these.
    """
    chosen = {True: "on", False: "off"}[kernels] if isinstance(kernels, bool) else kernels
    if chosen not in get_args(Kernels):
        near = did_you_mean(str(chosen), get_args(Kernels))
        raise ConfigError(f"kernels must be auto, on or off, got {kernels!r}.{near}")
    for module in model.modules():
        if getattr(module, "has_kernels", False):
            module.kernels = chosen
    return chosen


def kernel_sources(model: nn.Module, dtype: torch.dtype) -> list[str]:
    """Return the C++ of all kernels that a model may ask for on a CPU, in inference and training, each once.

    Every part that has kernels (``has_kernels``) tells its own by its method ``kernel_sources(dtype)``.

    Args:
        model: anything made of modules.
        dtype: of its weights: float32 or float64.
    """
    parts = (module for module in model.modules() if getattr(module, "has_kernels", False))
    return list(dict.fromkeys(source for part in parts for source in part.kernel_sources(dtype)))


def kernel_for(part: nn.Module, like: Tensor, find: Callable[[], str | None]) -> str | None:
    """Return the key of the kernel that a part uses now, None for plain torch.

    There is none in forward mode. ``torch.compile`` and ``torch.export``, which cannot trace a build, take the one that
    the part has used before.

    Args:
        part: with ``kernels``.
        like: for dtype and device.
        find: prepares a kernel, or gives None.
    """
    if part.kernels == "off" or in_forward_mode():
        return None
    known = getattr(part, "_kernel_keys", {})
    place = f"{like.dtype} {like.device.type}"
    if torch.compiler.is_compiling():
        return known.get(place)
    key = find()
    if key is not None and known.get(place) != key:
        part._kernel_keys = {**known, place: key}
    return key


def built(kernels: Kernels, build: Callable[[], str], reason: str | None = None) -> str | None:
    """Return the key that ``build`` gives; None, with one line in the log, where there can be no kernel.

    Args:
        kernels: ``auto`` or ``on``.
        build: prepares a kernel; may raise `NoCompiler`.
        reason: why there can be none, if that is known.

    Raises:
        ConfigError: ``kernels`` is ``on`` and there can be none; says why.
    """
    if reason is None:
        try:
            return build()
        except NoCompiler as error:
            reason = str(error)
    if kernels == "on":
        raise ConfigError(f"kernels=on cannot be done: {reason}. Take kernels=auto.")
    _say_once(reason)
    return None


@lru_cache(maxsize=8)
def _say_once(reason: str) -> None:
    log.info("Plain torch is used, several times slower than generated kernels: %s.", reason)
