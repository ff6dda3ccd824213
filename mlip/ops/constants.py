"""Constants of the mathematics (coefficients, grids) that follow a module without losing digits."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class ConstantsModule(nn.Module):
    """A module whose constants are computed once in float64 and cast from there on every ``.to()``.

    An ordinary buffer that went to float32 and back keeps float32's digits. Here ``.to(torch.float64)``
    always restores all of them. Constants are not part of the state dict: they are recomputed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._masters: dict[str, tuple[Tensor, bool]] = {}

    def register_constant(self, name: str, value: Tensor, *, keep_dtype: bool = False) -> None:
        """Add a constant that is reachable as ``self.name``.

        Args:
            name: attribute name.
            value: the constant; floating-point values in float64.
            keep_dtype: stay in this dtype whatever the module is cast to (the device still follows).
        """
        # Tensors made in inference mode could not be used in training later; a clone outside of it can.
        with torch.inference_mode(False):
            self._masters[name] = (value.detach().clone(), keep_dtype)
            self.register_buffer(name, value.detach().clone(), persistent=False)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "ConstantsModule":
        super()._apply(fn, recurse)
        for name, (master, keep_dtype) in self._masters.items():
            # The buffer knows where it went: fn alone would leave the master of a module on a GPU here.
            moved = self._buffers[name]
            self._buffers[name] = master.to(device=moved.device, dtype=master.dtype if keep_dtype else moved.dtype)
        return self

    def constant_like(self, name: str, other: Tensor) -> Tensor:
        """Return a constant in the dtype and on the device of another tensor."""
        return self._buffers[name].to(dtype=other.dtype, device=other.device)


def as_float64(value: Any) -> Tensor:
    """Return a float64 tensor of a number, a list or an array."""
    return torch.as_tensor(value, dtype=torch.float64)
