"""The matrix product: block products, 6j symbols and the two ways to multiply."""

from __future__ import annotations

import math
from itertools import product as cartesian

import pytest
import torch
from e3nn.o3 import Irreps

from mlip.ops.tensor_product import matrix
from mlip.ops.tensor_product.matrix import MatrixProduct
from mlip.testing import tensor_products as contract
from tests.ops.recoupling import wigner_6j
from tests.ops.signal_couplings import couplings, symbol

BOTH = "0e+1o+1e+2e+2o+3o+3e"
"""All irreps up to degree 3 that matrices on the degrees 0..3 hold."""


def make(space: str, in1: str, in2: str, out: str, mode: str = "uuu", **options: object) -> MatrixProduct:
    return MatrixProduct(Irreps(in1), Irreps(in2), Irreps(out), mode, space=space, **options).double()


@pytest.mark.parametrize("degree", [2, 3])
def test_raw_matrices_are_block_products(degree: int) -> None:
    product = make("degrees", BOTH, BOTH, BOTH, normalization="none", degree=degree)
    seen = set()
    for key, found in couplings(product).items():
        irreps = [product.sides[side][n].ir for side, n in enumerate(key)]
        expected = torch.zeros_like(found)
        closed = 0.0
        for i, j, k in cartesian(range(degree + 1), repeat=3):
            ends = [(i, j), (j, k), (i, k)]
            if any(ir.p != (-1) ** (x + y) or not abs(x - y) <= ir.l <= x + y for ir, (x, y) in zip(irreps, ends)):
                continue
            blocks = [symbol(x, y, ir.l) * math.sqrt(ir.dim) for ir, (x, y) in zip(irreps, ends)]
            expected += torch.einsum("ija,jkb,ikc->abc", *blocks)
            closed += wigner_6j(irreps[0].l, irreps[1].l, irreps[2].l, k, i, j)
        assert (found - expected).abs().max() < 1e-12
        l1, l2, l3 = (ir.l for ir in irreps)
        if all(ir.p == (-1) ** ir.l for ir in irreps) and abs(l1 - l2) <= l3 <= l1 + l2 and not (l1 + l2 + l3) % 2:
            closed *= math.sqrt(math.prod(ir.dim for ir in irreps))
            assert float((found * symbol(l1, l2, l3)).sum()) == pytest.approx(closed, abs=1e-12)
            seen.add((l1, l2, l3))
    assert len(seen) == 23


def test_raw_spin_matrices_follow_the_6j_symbols() -> None:
    product = make("spin", BOTH + "+0o", BOTH + "+0o", BOTH + "+0o", normalization="none", degree=3)
    for key, found in couplings(product).items():
        irreps = [product.sides[side][n].ir for side, n in enumerate(key)]
        kappa = 2 * math.sqrt(math.prod(ir.dim for ir in irreps)) * abs(wigner_6j(*(ir.l for ir in irreps), 3, 3, 3))
        kappa *= irreps[0].p * irreps[1].p == irreps[2].p
        assert float(found.norm()) == pytest.approx(kappa, abs=1e-12)


def test_spin_matrices_are_matrices_of_two_parities() -> None:
    """The two blocks are a change of basis of [[even, odd], [odd, even]]."""
    product = make("spin", "1o+2e", "1o+2e", "0e+1e+1o+2e", normalization="none", degree=1)
    even, odd = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double(), torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double()
    for key, found in couplings(product).items():
        lifted = []
        for side, n in enumerate(key):
            ir = product.sides[side][n].ir
            matrices = symbol(1, 1, ir.l).permute(2, 0, 1) * math.sqrt(ir.dim)
            lifted.append(torch.stack([torch.kron(even if ir.p == 1 else odd, m.contiguous()) for m in matrices]))
        assert (found - torch.einsum("aij,bjk,cik->abc", *lifted)).abs().max() < 1e-13


@pytest.mark.parametrize(
    ("inputs", "degree"), [(("2o", "0e", "2o"), 2), (("0e", "0e", "0e"), 0), (("1o", "2e", "3o"), 2)]
)
def test_the_space_has_room_for_every_irrep(inputs: tuple[str, str, str], degree: int) -> None:
    product = make("degrees", *inputs)
    assert product.operator == f"matrix degrees {degree}"
    assert product.irreps_out == Irreps(inputs[2])


@pytest.mark.parametrize("mode", ["uuu", "uvu"])
def test_both_ways_to_multiply_matrices_agree(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    product = make("degrees", "4x1o+4x2e", "4x1o+4x2e" if mode == "uuu" else "1o+2e", "4x0e+4x1e+4x2e", mode)
    inputs, results = contract.random_inputs(product), []
    for size in (0, 100):
        monkeypatch.setattr(matrix, "LARGEST_UNROLLED", size)
        results.append(product(*inputs))
    assert (results[0] - results[1]).abs().max() < 1e-13


def test_a_spin_path_that_vanishes_is_not_declared() -> None:
    """{3 5 5; 3 3 3} = 0 by accident."""
    assert wigner_6j(3, 5, 5, 3, 3, 3) == 0.0
    product = make("spin", "3o+5o", "5o+3o", "3o+3e+5o+5e+4e", degree=3)
    assert (3, 5, 4) in product.expressivity.paths
    assert (3, 5, 5) not in product.expressivity.paths
