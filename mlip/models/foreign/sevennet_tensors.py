"""The tensors of a SevenNet checkpoint, by the names of the newer versions, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from e3nn.o3 import Irrep, Irreps
from torch import Tensor

from mlip.core.errors import ModelFileError

_OLD_NAMES = {
    "EdgeEmbedding": "edge_embedding",
    "reducing nn input to hidden": "reduce_input_to_hidden",
    "reducing nn hidden to energy": "reduce_hidden_to_energy",
    "rescale atomic energy": "rescale_atomic_energy",
}
_CONSTANTS = ("output_mask", "gate.mul.weight", "convolution.weight")
"""Ends of names that e3nn writes and that say nothing."""


class Tensors:
    """Takes tensors by name, each once; what is left over at the end is an error.

    Args:
        state: the ``model_state_dict`` of a checkpoint.

    Raises:
        ModelFileError: it is no mapping of tensors by name.
    """

    def __init__(self, state: Mapping[Any, Any]) -> None:
        self._left: dict[str, Tensor] = {}
        for name, value in state.items():
            if not isinstance(name, str) or not isinstance(value, Tensor):
                raise ModelFileError("its weights are no tensors by name")
            self._left[_newer_name(name)] = value

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str, *shape: int) -> Tensor:
        """Return a tensor of a shape in float64; see `take_any`."""
        return self.take_any(name, shape)

    def take_any(self, name: str, *shapes: tuple[int, ...]) -> Tensor:
        """Return a tensor of one of the shapes in float64.

        Raises:
            ModelFileError: it is absent, has another shape, or is not finite.
        """
        if name not in self._left:
            raise ModelFileError(f"its weights lack '{name}'")
        value = self._left.pop(name)
        if tuple(value.shape) not in shapes:
            raise ModelFileError(
                f"its weights '{name}' have shape {tuple(value.shape)}, and its settings ask for {shapes[0]}"
            )
        if not value.is_floating_point() or not torch.isfinite(value).all():
            raise ModelFileError(f"its weights '{name}' are not finite floating-point numbers")
        return value.double()

    def take_linear(
        self, name: str, irreps_in: Irreps, irreps_out: Irreps, extra: int = 0, bias: bool = False
    ) -> Linear:
        """Return the matrices of an e3nn linear map, its normalisation ``1/sqrt(fan-in)`` included.

        Args:
            name: of the module.
            irreps_in, irreps_out: each irrep once.
            extra: scalars behind the input, a one-hot level of theory.
            bias: whether the settings say that scalars of the output have biases.

        Raises:
            ModelFileError: a tensor is absent, has another shape, or is not finite.
        """
        blocks = [(mul, ir) for mul, ir in irreps_in] + ([(extra, Irrep("0e"))] if extra else [])
        pairs = [(k, mul, ir, out.mul) for k, (mul, ir) in enumerate(blocks) for out in irreps_out if out.ir == ir]
        flat = self.take(f"{name}.weight", sum(mul * mul_out for _, mul, _, mul_out in pairs))
        matrices: dict[Irrep, Tensor] = {}
        constants: Tensor | None = None
        for part, (k, mul, ir, mul_out) in zip(flat.split([a * b for _, a, _, b in pairs]), pairs):
            fan_in = sum(other for other, same in blocks if same == ir)
            matrix = part.reshape(mul, mul_out) * fan_in**-0.5
            if k == len(irreps_in):
                constants = matrix
            else:
                matrices[ir] = matrix
        scalars = sum(mul for mul, ir in irreps_out if ir == Irrep("0e"))
        biases = self._biases(f"{name}.bias", scalars) if bias else torch.zeros(scalars, dtype=torch.float64)
        return Linear(matrices, constants, biases)

    def _biases(self, name: str, count: int) -> Tensor:
        if name not in self:
            raise ModelFileError(f"its setting 'use_bias_in_linear' is true, and its weights lack '{name}'")
        return self.take(name, count)

    def take_species_product(self, name: str, irreps_in: Irreps, num_species: int, irreps_out: Irreps) -> Linear:
        """Return the matrices ``(species, in, out)`` of e3nn's product with the one-hot element, normalised."""
        pairs = [(mul, ir, out.mul) for mul, ir in irreps_in for out in irreps_out if out.ir == ir]
        flat = self.take(f"{name}.weight", sum(mul * num_species * mul_out for mul, _, mul_out in pairs))
        matrices: dict[Irrep, Tensor] = {}
        for part, (mul, ir, mul_out) in zip(flat.split([a * num_species * b for a, _, b in pairs]), pairs):
            matrix = part.reshape(mul, num_species, mul_out) * (mul * num_species) ** -0.5
            matrices[ir] = matrix.transpose(0, 1)
        return Linear(matrices, None, torch.zeros(0, dtype=torch.float64))

    def take_symbols(self, name: str) -> dict[tuple[int, ...], Tensor]:
        """Return the 3j symbols that a convolution was trained with, by degrees; older versions of e3nn differ in sign.

        Raises:
            ModelFileError: something of that name is no 3j symbol.
        """
        found = {}
        for key in [key for key in self._left if key.startswith(f"{name}.") and "_w3j_" in key]:
            degrees = tuple(int(text) for text in key.rpartition("_w3j_")[2].split("_") if text.isdigit())
            if len(degrees) != 3 or max(degrees) > 12:
                raise ModelFileError(f"its weights have an unknown entry '{key}'")
            found[degrees] = self.take(key, *(2 * l + 1 for l in degrees))
        return found

    def finish(self) -> None:
        """Refuse what nobody took.

        Raises:
            ModelFileError: the checkpoint has weights that its settings do not explain.
        """
        # Linear maps without biases have an empty tensor of that name.
        left = sorted(name for name, value in self._left.items() if value.numel() and not name.endswith(_CONSTANTS))
        if left:
            raise ModelFileError(f"it has weights that its settings do not explain: {', '.join(left[:3])}")


class Linear:
    """A linear map of features.

    Args:
        matrices: ``(in, out)`` of each irrep; of a product with the element ``(species, in, out)``.
        constants: ``(levels of theory, scalars out)``; None where there is one level.
        bias: ``(scalars out,)``.
    """

    def __init__(self, matrices: Mapping[Irrep, Tensor], constants: Tensor | None, bias: Tensor) -> None:
        self.matrices, self.bias = matrices, bias
        self._constants = constants

    def constant(self, index: int) -> Tensor:
        """Return what is added to the scalars for a level of theory."""
        return self.bias if self._constants is None else self.bias + self._constants[index]


def _newer_name(name: str) -> str:
    module, _, rest = name.partition(".")
    module = _OLD_NAMES.get(module, module)
    if module[:1].isdigit():
        module = module.replace(" ", "_")
    return f"{module}.{rest.replace('denumerator', 'denominator')}"
