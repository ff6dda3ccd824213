"""Whether generated kernels are used: one word for a whole model."""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch import nn

from mlip.core.errors import ConfigError, did_you_mean

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
