"""Which convolutions of a tensor product run as one generated kernel, and what the kernel is told of the product."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING

from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.kernels.compiler import NoCompiler
from mlip.ops.kernels.convolution import prepare
from mlip.ops.kernels.cpp import SCALARS
from mlip.ops.kernels.form import ConvolutionForm, Coupling

if TYPE_CHECKING:
    from mlip.ops.tensor_product.path_product import PathProduct

log = logging.getLogger(__name__)

ENOUGH = 500_000
"""Edges times weights an edge from which ``auto`` builds a kernel: below it, building takes longer than it saves."""

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


def kernel_of(product: PathProduct, x: Tensor, num_edges: int | None) -> str | None:
    """Return the key of the kernel that is to run the convolution of a product, None for plain torch.

    Args:
        product: with ``kernels``, see :data:`~mlip.ops.kernels.choice.Kernels`, and ``form``.
        x: the features, for dtype and device.
        num_edges: how much there is to do; None: much.

    Raises:
        ConfigError: ``kernels`` is ``on`` and there can be none; says why.
    """
    if product.kernels == "off":
        return None
    reason = None
    if product.form is None:
        reason = f"{type(product).__name__} in mode {product.mode} with weights '{product.weights}' has no kernel"
    elif x.device.type != "cpu":
        reason = f"there are kernels for the CPU only, not for {x.device.type}"
    elif x.dtype not in SCALARS:
        reason = f"there are kernels for float32 and float64, not for {x.dtype}"
    elif product.kernels == "auto" and (
        (num_edges is not None and num_edges * product.weight_numel < ENOUGH)
        or product.form.num_nonzeros > LARGEST_FORM
    ):
        return None
    if reason is None:
        try:
            return prepare(product.form, x.dtype)
        except NoCompiler as error:
            reason = str(error)
    if product.kernels == "on":
        raise ConfigError(f"kernels=on cannot be done: {reason}. Take kernels=auto.")
    if product.form is not None and x.device.type == "cpu":
        _say_once(reason)
    return None


@lru_cache(maxsize=8)
def _say_once(reason: str) -> None:
    log.info("Convolutions run in plain torch, several times slower than generated kernels: %s.", reason)
