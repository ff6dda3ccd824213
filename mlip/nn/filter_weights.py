"""Radial weights on the filter only, for tensor products that weight their inputs and their output."""

from collections.abc import Callable

import torch
from e3nn.o3 import Irreps
from torch import Tensor, nn

from mlip.ops.tensor_product.base import Expressivity, TensorProduct


class FilterWeighted(nn.Module):
    """``x1 ⊗ (w2 x2)`` of a product with weights by degree: one radial function for each degree of x2 and channel.

    Such a product multiplies three weights, w3 (w1 x1 ⊗ w2 x2). Were all of them functions of the distance, messages
    would be cubic in the radial weights and fall at the cutoff with the cube of the envelope, where a Clebsch–Gordan
    product is linear in both; MACE, which takes powers of the messages again, would start with forces of 10¹¹ eV/Å
    and more. w1 and w3 are one, and left to the maps before and behind the product.

    Args:
        product: a backend with weights by degree in mode ``uvu``.

    Attributes:
        irreps_in1, irreps_in2, irreps_out, operator, expressivity, filter_is_harmonics: those of the product.
        weight_numel: number of weights of the filter.
    """

    def __init__(self, product: TensorProduct) -> None:
        super().__init__()
        self.product = product
        self.num_before, self.weight_numel, self.num_behind = product.weight_sizes

    @property
    def irreps_in1(self) -> Irreps:
        """Features in."""
        return self.product.irreps_in1

    @property
    def irreps_in2(self) -> Irreps:
        """The filter."""
        return self.product.irreps_in2

    @property
    def irreps_out(self) -> Irreps:
        """Features out."""
        return self.product.irreps_out

    @property
    def operator(self) -> str:
        """The family of bilinear maps."""
        return self.product.operator

    @property
    def expressivity(self) -> Expressivity:
        """What the product can represent."""
        return self.product.expressivity

    @property
    def filter_is_harmonics(self) -> bool:
        """Whether the product reads a direction from the filter."""
        return self.product.filter_is_harmonics

    def kernel_key(self, like: Tensor, num_edges: int | None = None) -> str | None:
        """Return None: there are no kernels of products with weights by degree."""
        return None

    def convolve(
        self,
        x1: Tensor,
        x2: Tensor,
        weight: Tensor,
        senders: Tensor,
        receivers: Tensor,
        num_nodes: int,
        starts: Tensor | None = None,
    ) -> Tensor:
        """As :meth:`~mlip.ops.tensor_product.base.TensorProduct.convolve`; ``weight``: ``(edges, weight_numel)``."""
        before = weight.new_ones(len(weight), self.num_before)
        behind = weight.new_ones(len(weight), self.num_behind)
        every = torch.cat([before, weight, behind], 1)
        return self.product.convolve(x1, x2, every, senders, receivers, num_nodes, starts)


def filter_weighted(factory: Callable[..., TensorProduct]) -> Callable[..., TensorProduct | FilterWeighted]:
    """Return a factory of the same products, those with weights by degree with weights on the filter only."""

    def build(irreps_in1: Irreps, irreps_in2: Irreps, irreps_out: Irreps, mode: str) -> TensorProduct | FilterWeighted:
        product = factory(irreps_in1, irreps_in2, irreps_out, mode=mode)
        return FilterWeighted(product) if product.expressivity.weights == "degree" and product.weight_numel else product

    return build
