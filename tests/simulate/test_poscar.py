"""Constraints in POSCAR: flags along lattice vectors where they say the same, and none where they do not."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import (
    FixAtoms,
    FixBondLengths,
    FixCartesian,
    FixConstraint,
    FixedLine,
    FixedPlane,
    FixScaled,
    Hookean,
)
from ase.io import read

from mlip.data.formats.pymatgen_structure import read_held, read_structure
from mlip.simulate.ensembles import NVE
from mlip.simulate.inputs import read_inputs
from mlip.simulate.md import run_md
from mlip.simulate.poscar import with_selective_dynamics
from mlip.simulate.relax import relax
from mlip.simulate.relax_records import Record, Records
from mlip.simulate.relax_table import RelaxedRow
from mlip.simulate.structures import write_final_structure

HEXAGONAL = [[3, 0, 0], [-1.5, 1.5 * 3**0.5, 0], [0, 0, 5]]


def crystal(*constraints: FixConstraint, cell: object = None) -> Atoms:
    atoms = bulk("Cu", cubic=True, a=3.6)
    atoms.symbols = "AuCuAgCu"
    atoms.rattle(0.05, seed=2)
    if cell is not None:
        atoms.set_cell(cell, scale_atoms=True)
    atoms.set_constraint(list(constraints))
    return atoms


def held(atoms: Atoms) -> list[str]:
    """Which lattice vectors are held, by atom."""
    flags = np.zeros((len(atoms), 3), dtype=bool)
    for constraint in atoms.constraints:
        flags[constraint.index] |= constraint.mask if isinstance(constraint, FixScaled) else True
    return ["".join("abc"[k] for k in np.flatnonzero(row)) for row in flags]


@pytest.mark.parametrize(
    ("constraint", "cell", "expected"),
    [
        (FixAtoms([0]), HEXAGONAL, "abc"),
        (FixScaled(0, (True, False, True)), HEXAGONAL, "ac"),
        (FixedPlane(0, (1, 1, 0)), None, ""),
        (FixedLine(0, (1, 1, 0)), None, ""),
        (FixedPlane(0, (0, 0, 2)), HEXAGONAL, "c"),
        (FixedLine(0, (0, 0, -1)), HEXAGONAL, "ab"),
        # b is not at right angles to a, so moves along b leave the plane; ASE would write that they do not.
        (FixedPlane(0, (1, 0, 0)), HEXAGONAL, ""),
        (FixedLine(0, HEXAGONAL[1]), HEXAGONAL, "ac"),
        # ASE leaves these out.
        (FixCartesian(0, (True, False, False)), None, "a"),
        (FixCartesian(0, (True, True, False)), HEXAGONAL, "ab"),
        (FixCartesian(0, (False, True, False)), HEXAGONAL, "b"),
        (FixCartesian(0, (True, False, False)), HEXAGONAL, ""),
        (FixCartesian(0, (False, True, False)), [[0, 3, 0], [0, 0, 4], [5, 0, 0]], "a"),
        (FixBondLengths([[0, 1]]), None, ""),
        (Hookean(0, 1, 1.0, 2.0), None, ""),
    ],
)
def test_flags(constraint: FixConstraint, cell: object, expected: str, tmp_path: Path) -> None:
    atoms = crystal(constraint, FixScaled(3, (False, True, False)), FixAtoms([2]), cell=cell)
    assert held(with_selective_dynamics(atoms)) == [expected, "", "abc", "b"]
    write_final_structure(tmp_path, atoms)
    found = read(tmp_path / "final.vasp")
    # In the order of the symbols.
    assert str(found.symbols) == "AgAuCu2"
    assert held(found) == ["abc", expected, "", "b"]
    order = np.argsort(atoms.symbols)
    np.testing.assert_allclose(found.positions, atoms.positions[order], atol=1e-9)
    assert {path.name for path in tmp_path.iterdir()} == {"final.xyz", "final.cif", "final.vasp"}


def test_several_constraints_on_an_atom() -> None:
    atoms = crystal(FixedPlane(0, (1, 0, 0)), FixedPlane([0, 1], (0, 0, 1)), FixedPlane(1, (0, 1, 1)))
    # The second one is left with oblique planes.
    assert held(with_selective_dynamics(atoms)) == ["ac", "", "", ""]


def test_runs_of_an_oblique_plane_end_with_their_files(tmp_path: Path) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.set_constraint(FixedPlane(0, (1, 1, 0)))
    write_final_structure(tmp_path / "md", run_md(atoms, EMT(), NVE(300), 1).atoms)
    write_final_structure(tmp_path / "relax", relax(atoms, EMT(), max_steps=1).atoms)
    for folder in ("md", "relax"):
        assert not read(tmp_path / folder / "final.vasp").constraints


def pymatgen_dict(*flags: object) -> dict:
    matrix = np.array(HEXAGONAL) * 2
    sites = [
        {
            "species": [{"element": "Cu", "occu": 1}],
            "abc": [0.3 * k, 0.13 * k**2 % 1, 0.2 * k],
            "properties": {"selective_dynamics": one},
        }
        for k, one in enumerate(flags)
    ]
    return {"lattice": {"matrix": matrix.tolist()}, "sites": sites}


def test_selective_dynamics_of_pymatgen(tmp_path: Path) -> None:
    array = {"@module": "numpy", "@class": "array", "dtype": "bool", "data": [True, True, False]}
    content = pymatgen_dict([False] * 3, [True] * 3, [False, True, True], None, array)
    del content["sites"][1]["properties"]
    (tmp_path / "sd.json").write_text(json.dumps(content))
    (one,) = read_inputs([tmp_path / "sd.json"])
    assert held(one.atoms) == ["abc", "", "a", "", "c"]
    before = one.atoms.get_scaled_positions()
    result = relax(one.atoms, EMT(), max_steps=3, relax_cell=True)
    moved = np.abs(result.atoms.get_scaled_positions() - before) > 1e-9
    assert moved.tolist() == [[False] * 3, [True] * 3, [False, True, True], [True] * 3, [True, True, False]]
    # They come back from the journal, and through POSCAR.
    with Records(tmp_path, {"a": "b"}) as records:
        records.add(Record(RelaxedRow(0, "a", "converged"), result.atoms))
    with Records(tmp_path, {"a": "b"}, restart=True) as records:
        assert held(records.done[0].atoms) == held(one.atoms)
    write_final_structure(tmp_path, result.atoms)
    assert held(read(tmp_path / "final.vasp")) == held(one.atoms)


@pytest.mark.parametrize("flags", [[True, True], "TTF", [1, 0, 1], {"data": [None] * 3}, 5])
def test_flags_that_are_none(flags: object, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([pymatgen_dict([True] * 3, flags), pymatgen_dict([True] * 3)]))
    bad, good = read_inputs([tmp_path / "a.json"])
    assert "a.json#0: the selective_dynamics of site 1 must be three truth values" in bad.error
    assert good.atoms.constraints == []


def test_data_sets_have_no_constraints() -> None:
    content = pymatgen_dict([False] * 3)
    assert read_structure(content, "it").constraints == []
    assert read_held(content, "it").all()


def test_forces_along_lattice_vectors_of_a_skewed_cell() -> None:
    """The energy has no slope along any free fractional coordinate in the end; with ASE's forces there is one."""
    atoms = crystal(cell=HEXAGONAL)
    atoms.set_cell(atoms.cell * (2.7 / 3), scale_atoms=True)
    atoms.set_constraint([FixScaled([0, 1], (True, False, False)), FixAtoms([2])])
    result = relax(atoms, EMT(), fmax=1e-3, max_steps=300)
    assert result.converged
    slopes = result.atoms.get_forces(apply_constraint=False) @ result.atoms.cell.array.T
    assert np.abs(slopes[:2, 1:]).max() < 1e-2
    assert np.abs(slopes[3]).max() < 1e-2
    assert np.abs(slopes[:2, 0]).max() > 0.1
    assert [type(one) for one in result.atoms.constraints] == [FixScaled, FixAtoms]


@pytest.mark.slow
def test_selective_dynamics_as_pymatgen_writes_them(tmp_path: Path) -> None:
    from monty.json import MontyEncoder
    from pymatgen.io.vasp import Poscar

    atoms = crystal(FixScaled(0, (True, False, True)), FixAtoms([2]), cell=HEXAGONAL)
    write_final_structure(tmp_path, atoms)
    structure = Poscar.from_file(tmp_path / "final.vasp").structure
    (tmp_path / "a.json").write_text(json.dumps(structure.as_dict(), cls=MontyEncoder))
    (one,) = read_inputs([tmp_path / "a.json"])
    assert held(one.atoms) == held(read(tmp_path / "final.vasp")) == ["abc", "ac", "", ""]
