"""Nonlinearities: one contract for every yaml, and NequIP's gate against e3nn's."""

from __future__ import annotations

import pytest
import torch
from e3nn.nn import Gate as E3nnGate
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.nn.activations import Quadratic, SiLU
from mlip.nn.nonlinearity.base import Nonlinearity
from mlip.nn.nonlinearity.gate import Gate
from mlip.nn.nonlinearity.sphere_mixer import SphereMixer
from mlip.ops.layout import from_e3nn, split_blocks
from mlip.testing.wigner import random_rotation, transform
from tests.components import component_names, factory

NAMES = component_names("nonlinearity")
IRREPS = ["6x0e+4x1o+2x2e+2x3o", "6x0e+4x1e+2x2e+2x3e", "5x0e"]


def make(name: str, irreps: str) -> Nonlinearity:
    torch.manual_seed(0)
    return factory("nonlinearity", name)(Irreps(irreps), Quadratic()).double()


def features(irreps: Irreps, rows: int = 5) -> Tensor:
    return torch.randn(rows, irreps.dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("irreps", IRREPS)
@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str, irreps: str) -> None:
    """Natural or even labels, ragged multiplicities: equivariant, the irreps wanted, and nothing from nothing."""
    block = make(name, irreps)
    assert isinstance(block, Nonlinearity)
    assert block.exact
    assert block.irreps_out == Irreps(irreps)
    assert {ir for _, ir in block.irreps_in} == {ir for _, ir in block.irreps_out}
    x = features(block.irreps_in)
    plain = block(x).detach()
    assert plain.shape == (5, block.irreps_out.dim)
    for seed in range(2):
        for invert in (False, True):
            rotation = random_rotation(seed)
            expected = transform(plain, block.irreps_out, rotation, invert)
            found = block(transform(x, block.irreps_in, rotation, invert))
            assert torch.allclose(found, expected, atol=1e-10 * float(plain.abs().max()))
    assert not block(torch.zeros_like(x)).any()
    # Row by row: an atom sees itself only.
    assert torch.allclose(block(x[2:3]), plain[2:3], rtol=0, atol=1e-12 * float(plain.abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_irreps_of_zeros_become_nonzero_only_where_that_is_declared(name: str) -> None:
    block = make(name, IRREPS[0])
    x = features(block.irreps_in)
    parts = split_blocks(x, block.irreps_in)
    parts[-1].zero_()
    created = bool(split_blocks(block(x), block.irreps_out)[-1].any())
    assert created == block.creates_irreps


@pytest.mark.parametrize("irreps", ["5x0e+3x0o+2x1e+4x1o+1x2e+2x2o", "7x0e"])
def test_gate_against_e3nn(irreps: str) -> None:
    """e3nn's with the functions of NequIP: SiLU for 0e and gates, tanh for 0o, each of unit second moment."""
    wanted = Irreps(irreps)
    ours = Gate(wanted, SiLU()).double()
    scalars = Irreps([(mul, ir) for mul, ir in wanted if ir.l == 0])
    gated = Irreps([(mul, ir) for mul, ir in wanted if ir.l > 0])
    functions = {1: torch.nn.functional.silu, -1: torch.tanh}
    gates = Irreps([(gated.num_irreps, "0e")] if len(gated) else [])
    reference = E3nnGate(
        scalars, [functions[ir.p] for _, ir in scalars], gates, [functions[1]] * len(gates), gated
    ).double()
    x = features(ours.irreps_in, 9)
    # e3nn takes scalars, gates and gated irreps, sorted; our gates are further channels of 0e, behind the scalars.
    blocks = split_blocks(x, ours.irreps_in)
    number = wanted[0].mul
    first, rest = blocks[0], list(zip(blocks[1:], wanted[1:]))
    parts = [first[:, :, :number], *(b for b, (_, ir) in rest if ir.l == 0)]
    parts += [first[:, :, number:]] * len(gates) + [b for b, (_, ir) in rest if ir.l > 0]
    order = (scalars + gates + gated).sort().inv
    expected = reference(torch.cat([parts[k].transpose(1, 2).flatten(1) for k in order], dim=1))
    assert reference.irreps_out == scalars + gated
    # e3nn estimates second moments by sampling: about three digits.
    assert torch.allclose(ours(x), from_e3nn(expected, reference.irreps_out), rtol=2e-3, atol=2e-3)


def test_gates_are_taken_in_order() -> None:
    """Each channel of each irrep has the gate of its own place among the scalars."""
    gate = Gate(Irreps("2x0e+2x1o+1x2e"), SiLU()).double()
    assert gate.irreps_in == Irreps("5x0e+2x1o+1x2e")
    x = torch.zeros(1, gate.irreps_in.dim, dtype=torch.float64)
    x[:, 3] = 2.0
    x[:, 5:] = 1.0
    vectors, tensor = split_blocks(gate(x), gate.irreps_out)[1:]
    assert not vectors[:, :, 0].any()
    assert torch.allclose(vectors[:, :, 1], SiLU()(torch.full((1, 3), 2.0, dtype=torch.float64)))
    assert not tensor.any()


@pytest.mark.parametrize("irreps", ["4x1o+2x0e", "2x0o", "2x0e+1x1o+3x1o"])
def test_gate_refuses(irreps: str) -> None:
    with pytest.raises(ConfigError, match="scalars 0e first and each irrep once"):
        Gate(Irreps(irreps), SiLU())


@pytest.mark.parametrize("irreps", ["4x0e+4x1e+4x1o", "4x0e+4x0o+4x1o"])
def test_mixer_refuses_two_parities_and_says_who_takes_them(irreps: str) -> None:
    with pytest.raises(ConfigError, match="model/nonlinearity=gate takes any"):
        SphereMixer(Irreps(irreps), SiLU())


def test_mixer_of_the_published_size() -> None:
    """Two heads of 16 on an 18 x 17 grid: 28,672 parameters."""
    mixer = SphereMixer(Irreps("128x0e+32x1e+16x2e+8x3e"), SiLU(), num_heads=2, resolution=[18, 17])
    assert mixer.mixer.hidden.shape == mixer.mixer.output.shape == (16, 16)
    assert sum(p.numel() for p in mixer.parameters()) == 28672
    assert not mixer.exact
