"""The vector-signal tensor product: vector fields on the sphere, multiplied as vectors."""

from collections.abc import Sequence

from e3nn.o3 import Irreps

from mlip.core.errors import ConfigError, did_you_mean
from mlip.ops.tensor_product.base import Mode, Normalization, Weights
from mlip.ops.tensor_product.irrep_grid import IrrepGrid

PRODUCTS = {"dot": "0e", "cross": "1e"}
"""Products of two true vectors and the irrep of their value."""


class VectorGrid(IrrepGrid):
    """Cross and dot products of vector fields (VSTP; The Price of Freedom, arXiv 2506.13523).

    Features are coefficients of vector spherical harmonics: those of natural parity (-1)^j enter a true vector field
    by l = j - 1 and l = j + 1, those of the other parity by l = j; 0o has none. The dot product reaches outputs of
    natural parity, the cross product all but 0e. The formula is :class:`IrrepGrid`'s with fibers 1o, 1o and 0e,
    1e: ``C_abc V1_a V2_b`` is ``V1 · V2 / sqrt(3)`` and ``V1 × V2 / sqrt(2)``.

    Args:
        products: which of ``dot`` and ``cross`` are read back.
        max_degree: see :class:`IrrepGrid`.

    Raises:
        ConfigError: another product, none, and what :class:`IrrepGrid` refuses.
    """

    def __init__(
        self,
        irreps_in1: Irreps,
        irreps_in2: Irreps,
        irreps_out: Irreps,
        mode: Mode = "uvu",
        weights: Weights | None = None,
        normalization: Normalization = "component",
        *,
        products: str | Sequence[str] = ("dot", "cross"),
        max_degree: int | None = None,
    ) -> None:
        products = [products] if isinstance(products, str) else list(products)
        for name in products:
            if name not in PRODUCTS:
                raise ConfigError(
                    f"products must be among {', '.join(PRODUCTS)}, got '{name}'.{did_you_mean(name, PRODUCTS)}"
                )
        if not products:
            raise ConfigError(f"products must name at least one of {', '.join(PRODUCTS)}, got none.")
        super().__init__(
            irreps_in1,
            irreps_in2,
            irreps_out,
            mode,
            weights,
            normalization,
            fiber1="1o",
            fiber2="1o",
            fiber3=[PRODUCTS[name] for name in products],
            max_degree=max_degree,
        )
