"""ZBL against a plain formula and published numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import covalent_radii

from mlip.nn.pair_repulsion import ZBL


def zbl(z1: int, z2: int, r: float, end: float) -> float:
    """The universal potential in eV, written down once more from the book, with DimeNet's switch."""
    a = 0.46850 / (z1**0.23 + z2**0.23)
    phi = sum(c * np.exp(-d * r / a) for c, d in ((0.1818, 3.2), (0.5099, 0.9423), (0.2802, 0.4029), (0.02817, 0.2016)))
    x = min(r / end, 1.0)
    return 14.399645 * z1 * z2 / r * phi * (1 - 28 * x**6 + 48 * x**7 - 21 * x**8)


def energies(z: list[int], species: list[int], vector: list[float], cutoff: float = 5.0) -> torch.Tensor:
    edges = torch.tensor([vector, [-v for v in vector]], dtype=torch.float64)
    return ZBL(z, cutoff).double()(edges, torch.tensor(species), torch.tensor([1, 0]), torch.tensor([0, 1]))


@pytest.mark.parametrize("r", [0.05, 0.3, 0.8, 1.05, 1.3])
def test_pair_against_the_formula(r: float) -> None:
    end = 0.8 * (covalent_radii[8] + covalent_radii[14])
    found = energies([8, 14], [0, 1], [0.6 * r, 0.0, 0.8 * r])
    assert float(found.sum()) == pytest.approx(zbl(8, 14, r, end), rel=1e-7)
    assert float(found[0]) == pytest.approx(float(found[1]), rel=1e-14)


def test_short_range_is_coulomb() -> None:
    """At 10⁻⁴ Å the screening is one: k Z Z' / r, with the published amplitudes summing to 1.00007."""
    assert float(energies([6], [0, 0], [1e-4, 0, 0]).sum()) == pytest.approx(14.399645 * 36 / 1e-4, rel=1e-3)


def test_zero_from_the_end_on() -> None:
    end = 1.6 * covalent_radii[14]
    assert float(energies([14], [0, 0], [end, 0, 0]).abs().sum()) == 0.0
    assert float(energies([14], [0, 0], [3.0, 0, 0]).abs().sum()) == 0.0


def test_never_reaches_beyond_the_graph() -> None:
    """Two caesium atoms touch at 3.9 Å; with edges up to 3 Å the repulsion must have ended there."""
    inside = float(energies([55], [0, 0], [3.0 - 1e-6, 0, 0], cutoff=3.0).sum())
    assert inside < 1e-9
    assert float(energies([55], [0, 0], [2.0, 0, 0], cutoff=3.0).sum()) > 0.1


def test_lattice_of_many_pairs_adds_up() -> None:
    atoms = Atoms("SiOSi", positions=[[0, 0, 0], [1.1, 0, 0], [0, 1.2, 0]])
    senders, receivers = (torch.tensor(x) for x in ([1, 2, 0, 2, 0, 1], [0, 0, 1, 1, 2, 2]))
    positions = torch.from_numpy(atoms.positions)
    found = ZBL([8, 14], 5.0).double()(
        positions[senders] - positions[receivers], torch.tensor([1, 0, 1]), senders, receivers
    )
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = sum(
        zbl(
            int(atoms.numbers[i]),
            int(atoms.numbers[j]),
            atoms.get_distance(i, j),
            0.8 * (covalent_radii[atoms.numbers[i]] + covalent_radii[atoms.numbers[j]]),
        )
        for i, j in pairs
    )
    assert float(found.sum()) == pytest.approx(expected, rel=1e-7)
