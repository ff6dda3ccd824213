"""Which convolutions of a tensor product run as one generated kernel, and what the kernel is told of the product."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mlip.ops.kernels import triton_convolution
from mlip.ops.kernels.choice import built
from mlip.ops.kernels.convolution import prepare
from mlip.ops.kernels.convolution_source import convolution_source
from mlip.ops.kernels.cpp import SCALARS
from mlip.ops.kernels.form import ConvolutionForm, Coupling

if TYPE_CHECKING:
    from mlip.ops.tensor_product.path_product import PathProduct

ENOUGH = 500_000
"""Edges times weights an edge from which ``auto`` builds a kernel: below it, building takes longer than it saves."""

ENOUGH_IN_TRAINING = 100_000
"""The same in a training, which takes thousands of steps."""

LARGEST_FORM = 1500
"""Nonzero coefficients beyond which ``auto`` builds none: the compiler would take minutes."""


def convolution_form(product: PathProduct) -> ConvolutionForm | None:
    """Return the coefficients of a convolution with a weight for each path and channel; None for other products."""
    if product.mode != "uvu" or product.weights != "path_channel":
        return None
    first1, first2, first3 = (
        [block.start for block in irreps.slices()]
        for irreps in (product.irreps_in1, product.irreps_in2, product.irreps_out)
    )
    couplings, column = [], 0
    for number, (path, target) in enumerate(zip(product.paths, product.targets)):
        symbol = product.symbol(number)
        places = symbol.nonzero().tolist()
        entries = tuple((a, b, c, value) for (a, b, c), value in zip(places, symbol[symbol != 0].tolist()))
        mul = product.irreps_in1[path.in1].mul
        where = first1[path.in1], first2[path.in2], first3[target]
        couplings.append(Coupling(mul, *where, column, tuple(symbol.shape), entries))
        column += mul
    sizes = product.irreps_in1.dim, product.irreps_in2.dim, product.weight_numel, product.irreps_out.dim
    return ConvolutionForm(*sizes, tuple(couplings))


def sources_of(product: PathProduct, dtype: torch.dtype) -> list[str]:
    """Return the C++ of the kernels that the convolutions of a product may ask for; empty: plain torch does them."""
    kernels, form = product.kernels, product.form
    if kernels == "off" or form is None or (kernels == "auto" and form.num_nonzeros > LARGEST_FORM):
        return []
    return [convolution_source(form, SCALARS[dtype])]


def kernel_of(product: PathProduct, x: Tensor, num_edges: int | None) -> str | None:
    """Return the key of the kernel that is to run the convolution of a product, None for plain torch.

    Args:
        product: with ``kernels`` on or auto, see :data:`~mlip.ops.kernels.choice.Kernels`, and ``form``.
        x: the features, for dtype and device.
        num_edges: how much there is to do; None: much.

    Raises:
        ConfigError: ``kernels`` is ``on`` and there can be none; says why.
    """
    kernels, form = product.kernels, product.form
    enough = ENOUGH_IN_TRAINING if product.training else ENOUGH
    small = num_edges is not None and num_edges * product.weight_numel < enough
    if kernels == "auto" and (form is None or small or form.num_nonzeros > LARGEST_FORM):
        return None
    reason = None
    if form is None:
        reason = f"{type(product).__name__} in mode {product.mode} with weights '{product.weights}' has no kernel"
    elif x.device.type not in ("cpu", "cuda"):
        reason = f"there are kernels for CPUs and for CUDA, not for {x.device.type}"
    elif x.dtype not in SCALARS:
        reason = f"there are kernels for float32 and float64, not for {x.dtype}"

    def build() -> str:
        if x.device.type == "cuda":
            return triton_convolution.prepare(form, x.dtype, x.device)
        return prepare(form, x.dtype)

    return built(kernels, build, reason)
