"""A bound on what a configuration builds: the file of a stranger gets no more memory and time than its weights need."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from mlip.core.errors import ConfigError

LARGEST_CONSTANT = 2**26
"""Numbers that a tensor may have besides the weights, such as a table of coefficients."""

_SPARE = 4
"""Blocks may be built to see what comes out, and again to be kept."""

_FACTORIES = (torch.arange, torch.empty, torch.eye, torch.full, torch.linspace, torch.ones, torch.rand, torch.randn,
              torch.zeros)  # fmt: skip


@contextmanager
def no_more_than(num_tensors: int, num_numbers: int) -> Iterator[None]:
    """Stop whatever builds modules inside when it goes far beyond a number of parameters.

    Parameters are counted when a module registers them; a single tensor is refused before its memory is taken.

    Args:
        num_tensors: parameters that there should be.
        num_numbers: numbers in all of them together.

    Raises:
        ConfigError: one sentence.
    """
    counts = {"tensors": 0, "numbers": 0}
    thread = threading.get_ident()

    def count(module: nn.Module, name: str, parameter: Tensor | None) -> None:
        # The hook is of the whole process, and other threads build models of their own.
        if parameter is None or threading.get_ident() != thread:
            return
        counts["tensors"] += 1
        counts["numbers"] += parameter.numel()
        if counts["tensors"] > _SPARE * num_tensors or counts["numbers"] > _SPARE * num_numbers:
            raise _too_large(num_tensors, num_numbers)

    class Checked(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func in _FACTORIES:
                size = func(*args, **{**kwargs, "device": "meta"}).numel()
                if size > max(LARGEST_CONSTANT, _SPARE * num_numbers):
                    raise _too_large(num_tensors, num_numbers)
            return func(*args, **kwargs)

    handle = register_module_parameter_registration_hook(count)
    try:
        with Checked():
            yield
    finally:
        handle.remove()


def _too_large(num_tensors: int, num_numbers: int) -> ConfigError:
    return ConfigError(
        f"its configuration asks for far more weights than the {num_numbers:,} in {num_tensors} tensors that the file "
        "holds."
    )
