"""Gates: exact equivariance with any parity, and what it refuses."""

import pytest
import torch
from e3nn.o3 import Irreps

from mlip.core.errors import ConfigError
from mlip.nn.activations import SiLU
from mlip.nn.nonlinearity.base import Nonlinearity
from mlip.nn.nonlinearity.gate import Gate
from mlip.nn.nonlinearity.shared_gate import SharedGate
from mlip.testing.wigner import random_rotation, transform


@pytest.mark.parametrize(
    ("kind", "irreps"),
    [
        (SharedGate, "4x0e"),
        (SharedGate, "3x1o+4x0e+2x0o"),
        (SharedGate, "4x0e+3x0o+2x1e+2x1o+1x2e"),
        (Gate, "4x0e"),
        (Gate, "4x0e+3x0o+2x1e+2x1o+1x2e"),
    ],
)
@pytest.mark.parametrize("invert", [False, True])
def test_commutes_with_rotations_and_inversion(kind: type[Nonlinearity], irreps: str, invert: bool) -> None:
    torch.manual_seed(0)
    gate = kind(Irreps(irreps), SiLU()).double()
    x = torch.randn(5, gate.irreps_in.dim, dtype=torch.float64)
    rotation = random_rotation(0)
    expected = transform(gate(x), gate.irreps_out, rotation, invert)
    assert torch.allclose(gate(transform(x, gate.irreps_in, rotation, invert)), expected, atol=1e-12)


def test_zero_stays_zero_and_the_rest_depends_on_the_scalars() -> None:
    torch.manual_seed(0)
    gate = SharedGate("4x0e+2x1o", SiLU()).double()
    assert not gate(torch.zeros(1, 10, dtype=torch.float64)).any()
    x = torch.randn(1, 10, dtype=torch.float64)
    only_vectors = torch.cat([torch.zeros(1, 4), x[:, 4:]], dim=1)
    assert torch.equal(gate(only_vectors), only_vectors)
    assert not torch.allclose(gate(x)[:, 4:], x[:, 4:])


@pytest.mark.parametrize("irreps", ["2x1o", "2x0o", "2x0e+1x1o+3x1o"])
def test_mistakes(irreps: str) -> None:
    with pytest.raises(ConfigError, match="scalars 0e and each irrep once"):
        SharedGate(irreps, SiLU())
