"""Orbitals: shells, labels, orders and how they turn."""

from __future__ import annotations

import numpy as np
import pytest
from ase.data import atomic_numbers

from mlip.core.errors import DataError
from mlip.data import pyscf_extra
from mlip.data.orbital_rotation import orbital_rotation, shell_rotation
from mlip.data.orbitals import ORDERS, _shells_by_pyscf, num_orbitals, orbital_table, permutation, reorder, shells

WATER = [8, 1, 1]


def rotation(seed: int, determinant: int = 1) -> np.ndarray:
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return q * np.sign(np.linalg.det(q)) * determinant


def without_pyscf(monkeypatch):
    # What PySCF has been asked before is known.
    _shells_by_pyscf.cache_clear()
    monkeypatch.setattr(pyscf_extra, "find_spec", lambda name: None)


def test_def2_svp_is_known_without_pyscf(monkeypatch):
    without_pyscf(monkeypatch)
    assert shells("def2-SVP", 1) == (0, 0, 1)
    assert {shells("def2_svp", number) for number in (6, 7, 8, 9)} == {(0, 0, 0, 1, 1, 2)}
    assert num_orbitals([6, 8, 1, 1, 1, 1], "def2-svp") == 2 * 14 + 4 * 5
    with pytest.raises(DataError, match=r"PySCF is needed for knowing the orbitals of Cl .* 'mlip-kit\[qm\]'"):
        shells("def2-svp", 17)


@pytest.mark.parametrize("basis", ["def2-SVP", "def2-tzvp", "STO-3G", "cc-pVTZ", "6-31G*", "ano-rcc", "aug-cc-pvdz"])
def test_shells_are_those_of_pyscf(basis):
    """Against the labels that PySCF itself gives its orbitals; general contractions (ano-rcc) included."""
    gto = pytest.importorskip("pyscf.gto")
    for symbol in ("H", "C", "N", "O", "F", "Cl", "Fe"):
        molecule = gto.M(atom=f"{symbol} 0 0 0", basis=basis, spin=None, verbose=0)
        letters = ["spdfghi".index(label[2].lstrip("0123456789")[0]) for label in molecule.ao_labels(fmt=False)]
        expected = [degree for degree in shells(basis, atomic_numbers[symbol]) for _ in range(2 * degree + 1)]
        assert expected == letters
        assert num_orbitals([atomic_numbers[symbol]] * 2, basis) == 2 * molecule.nao


def test_unknown_bases_and_elements():
    pytest.importorskip("pyscf")
    with pytest.raises(DataError, match=r"no basis 'def2-svpp'\. Did you mean 'def2-svp'\?"):
        shells("def2-svpp", 6)
    with pytest.raises(DataError, match="The basis cc-pvtz has no orbitals for I"):
        shells("cc-pvtz", 53)
    for wrong in ("../def2-svp", "", 7):
        with pytest.raises(DataError, match="must be named"):
            shells(wrong, 6)
    with pytest.raises(DataError, match="1 to 118, got 0"):
        shells("def2-svp", 0)


def test_table_of_water():
    table = orbital_table(WATER, "def2-svp")
    assert len(table) == 24
    assert table.atom.tolist() == [0] * 14 + [1] * 5 + [2] * 5
    assert table.degree[:14].tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2]
    assert table.order[:14].tolist() == [0, 0, 0, -1, 0, 1, -1, 0, 1, -2, -1, 0, 1, 2]
    assert table.shell[:14].tolist() == [0, 1, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 5, 5]
    assert table.rank[:14].tolist() == [0, 1, 2, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0]
    assert table.rank[14:19].tolist() == [0, 1, 0, 0, 0]
    assert len(orbital_table([], "def2-svp")) == 0


def test_orders_of_one_atom():
    """Names of the orbitals of oxygen, written out."""
    p, d = ["y", "z", "x"], ["xy", "yz", "zz", "xz", "xx-yy"]
    names = {
        "mlip": ["1s", "2s", "3s", *p, *p, *d],
        "pyscf": ["1s", "2s", "3s", *["x", "y", "z"] * 2, *d],
        "orca": ["1s", "2s", "3s", *["z", "x", "y"] * 2, "zz", "xz", "yz", "xx-yy", "xy"],
    }
    for source in ORDERS:
        for target in ORDERS:
            index = permutation([8], "def2-svp", source, target)
            assert [names[source][k] for k in index] == names[target]


def test_labels_of_pyscf_are_in_the_stated_order():
    gto = pytest.importorskip("pyscf.gto")
    labels = gto.M(atom="O 0 0 0", basis="def2-svp", verbose=0).ao_labels(fmt=False)
    index = permutation([8], "def2-svp", "pyscf", "mlip")
    components = [labels[k][3] for k in index]
    assert components[3:] == ["y", "z", "x", "y", "z", "x", "xy", "yz", "z^2", "xz", "x2-y2"]


def test_orders_are_inverse_and_composable():
    numbers = [1, 6, 8, 1]
    matrix = np.random.default_rng(0).normal(size=(5, 38, 38))
    for source in ORDERS:
        for target in ORDERS:
            there = reorder(matrix, numbers, "def2-svp", source, target)
            assert np.array_equal(reorder(there, numbers, "def2-svp", target, source), matrix)
            between = reorder(matrix, numbers, "def2-svp", source, "mlip")
            assert np.array_equal(reorder(between, numbers, "def2-svp", "mlip", target), there)


def test_bad_orders_are_refused():
    with pytest.raises(DataError, match=r"got 'pyscff'\. Did you mean 'pyscf'\?"):
        permutation(WATER, "def2-svp", "pyscff", "mlip")
    with pytest.raises(DataError, match=r"must have shape \(24, 24\), got \(23, 23\)"):
        reorder(np.eye(23), WATER, "def2-svp", "pyscf", "mlip")
    pytest.importorskip("pyscf")
    with pytest.raises(DataError, match="a shell of degree 3, whose signs nobody has checked"):
        permutation([6], "def2-tzvp", "orca", "mlip")


def test_rotations_are_a_representation():
    first, second = rotation(1), rotation(2)
    for degree in range(7):
        product = shell_rotation(degree, first) @ shell_rotation(degree, second)
        assert np.allclose(product, shell_rotation(degree, first @ second), atol=1e-13)
        inversion = shell_rotation(degree, -np.eye(3))
        assert np.allclose(inversion, (-1) ** degree * np.eye(2 * degree + 1), atol=1e-13)


def test_p_shells_turn_as_y_z_x():
    turn = rotation(3)
    assert np.allclose(shell_rotation(1, turn), turn[[1, 2, 0]][:, [1, 2, 0]], atol=1e-14)


def test_quarter_turn_of_a_d_shell_about_z():
    """x -> y, y -> -x: xy -> -xy, yz -> -xz, zz stays, xz -> yz, xx-yy -> -(xx-yy)."""
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    turned = shell_rotation(2, quarter)
    expected = np.zeros((5, 5))
    expected[0, 0] = expected[4, 4] = -1
    expected[2, 2] = 1
    # Y_xz(R r) = x'z' with x' = -y, and Y_yz(R r) = y'z' with y' = x.
    expected[3, 1], expected[1, 3] = -1, 1
    assert np.allclose(turned, expected, atol=1e-14)


@pytest.mark.parametrize("determinant", [1, -1])
@pytest.mark.parametrize("basis", ["def2-svp", "def2-tzvp", "cc-pv5z"])
def test_overlaps_turn_with_the_molecule(basis, determinant):
    """Overlaps have no grid: their rotation is exact, up to h shells in cc-pV5Z."""
    pytest.importorskip("pyscf")
    from mlip.data.quantum import overlap

    numbers, positions = [8, 1, 6], np.array([[0, 0, 0], [0.9, 0.2, 0.1], [-0.5, 1.1, 0.7]])
    turn = rotation(4, determinant)
    before, after = overlap(numbers, positions, basis), overlap(numbers, positions @ turn.T, basis)
    matrix = orbital_rotation(numbers, basis, turn)
    assert np.abs(before - after).max() > 0.1
    assert np.abs(after - matrix @ before @ matrix.T).max() < 1e-12


def test_what_is_no_rotation_is_refused():
    for wrong in (np.eye(3) * 1.01, np.eye(2), np.full((3, 3), np.nan)):
        with pytest.raises(DataError, match="orthogonal 3x3"):
            orbital_rotation(WATER, "def2-svp", wrong)


@pytest.mark.reference
def test_rotation_pair(reference_data):
    """Fock matrices of methanol in two orientations, from a DFT code; the grid does not turn with the molecule."""
    pair = np.load(reference_data / "qh9" / "rotation_pair_CH3OH.npz")
    numbers, turn = pair["Z"], pair["R"]
    assert np.array_equal(pair["pos_B"], pair["pos_A"] @ turn.T)
    matrix = orbital_rotation(numbers, "def2-svp", turn)
    table = orbital_table(numbers, "def2-svp")
    errors = {}
    for name in ("overlap", "Ham"):
        first, second = (reorder(pair[f"{name}_{k}"], numbers, "def2-svp", "pyscf", "mlip") for k in "AB")
        errors[name] = np.abs(second - matrix @ first @ matrix.T)
    assert errors["overlap"].max() < 1e-13
    assert errors["Ham"].max() < 1e-5
    carbon_2p = np.flatnonzero((table.atom == 0) & (table.degree == 1) & (table.rank == 0))
    assert errors["Ham"][np.ix_(carbon_2p, carbon_2p)].max() < 6e-7
    # In any other order the pair does not match.
    wrong = pair["Ham_B"] - matrix @ pair["Ham_A"] @ matrix.T
    assert np.abs(wrong).max() > 0.1
