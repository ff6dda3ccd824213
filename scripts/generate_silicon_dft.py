"""Generate the silicon DFT data set (``data/silicon_dft/silicon.xyz``).

What it makes
    An extended-xyz file with silicon cells of 1 to 16 atoms (strained and rattled
    diamond, beta-tin, fcc, bcc, simple cubic, a vacancy) and the isolated atom,
    each with PBE energy, forces and stress from GPAW in plane-wave mode. The stored
    energy is the electronic free energy (Fermi-Dirac smearing), the quantity whose
    derivatives are the stored forces and stress.

How to run (GPAW with its PAW data sets and ASE)
    OMP_NUM_THREADS=1 python scripts/generate_silicon_dft.py \
        --out data/silicon_dft/silicon.xyz --seed 11

    An interrupted run continues after the last frame already in the output. Other
    modes: ``--convergence`` prints cutoff and k-point tables, ``--check NAME ...``
    compares stored forces and stresses with central differences of the energy.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.dft.kpoints import monkhorst_pack
from ase.io import read, write

CUTOFF_EV = 300.0
SMEARING_EV = 0.1
KPOINT_LENGTH = {"insulator": 20.7, "metal": 40.0}  # divisions times vector length, A
INSULATING = ("diamond_strained", "diamond_rattled", "vacancy")
ATOM_BOX = (9.0, 9.5, 10.0)
A_DIAMOND = 5.47  # PBE lattice constant of diamond silicon, A
METALS = {"fcc": 3.871, "bcc": 3.080, "sc": 2.525}  # lattice constants, A


def kpoint_size(atoms: Atoms, length: float | None = None) -> tuple[int, ...]:
    """Return the divisions n_i >= length / |a_i|; ``length`` defaults by config_type."""
    if length is None:
        insulating = atoms.info["config_type"] in INSULATING
        length = KPOINT_LENGTH["insulator" if insulating else "metal"]
    return tuple(int(np.ceil(length / x - 1e-6)) for x in atoms.cell.lengths())


def kpoint_grid(size: tuple[int, ...]) -> np.ndarray:
    """Return scaled k-points of a grid shifted half a step off Gamma on every axis."""
    n = np.array(size)
    return monkhorst_pack(size) + 0.5 * (n % 2) / n


def calculator(atoms: Atoms, size: tuple[int, ...], cutoff: float = CUTOFF_EV) -> object:
    """Return the GPAW calculator used for every periodic cell."""
    from gpaw import GPAW, PW, Davidson, FermiDirac

    return GPAW(
        mode=PW(cutoff, dedecut="estimate"),
        xc="PBE",
        kpts=kpoint_grid(size),
        occupations=FermiDirac(SMEARING_EV),
        nbands=max(2 * len(atoms) + 4, int(2.5 * len(atoms))),
        eigensolver=Davidson(2),
        convergence={"density": 1e-5},
        txt=None,
    )


def free_energy(atoms: Atoms, size: tuple[int, ...], cutoff: float = CUTOFF_EV) -> float:
    """Return the electronic free energy of ``atoms`` in eV."""
    atoms = atoms.copy()
    atoms.calc = calculator(atoms, size, cutoff)
    return float(atoms.get_potential_energy(force_consistent=True))


def label(atoms: Atoms) -> Atoms:
    """Return a copy of ``atoms`` with free energy, forces and stress attached."""
    if atoms.info["config_type"] == "IsolatedAtom":
        return isolated_atom(atoms)
    work = atoms.copy()
    work.calc = calculator(work, kpoint_size(atoms))
    energy = float(work.get_potential_energy(force_consistent=True))
    labelled = atoms.copy()
    results = {"energy": energy, "forces": work.get_forces(), "stress": work.get_stress()}
    labelled.calc = SinglePointCalculator(labelled, **results)
    return labelled


def isolated_atom(atom: Atoms) -> Atoms:
    """Return a copy of the free atom with its triplet energy, from a large box."""
    from gpaw import GPAW, PW, FermiDirac, MixerDif

    box = Atoms("Si", cell=ATOM_BOX, pbc=True, magmoms=[2.0])
    box.center()
    box.calc = GPAW(
        mode=PW(CUTOFF_EV),
        xc="PBE",
        nbands=8,
        occupations=FermiDirac(0.01, fixmagmom=True),
        mixer=MixerDif(0.1, 5, 1),
        txt=None,
    )
    energy = float(box.get_potential_energy(force_consistent=True))
    labelled = atom.copy()
    labelled.calc = SinglePointCalculator(labelled, energy=energy, forces=np.zeros((1, 3)))
    return labelled


def strained(atoms: Atoms, voigt: Sequence[float]) -> Atoms:
    """Return a copy under the symmetric strain (xx, yy, zz, yz, xz, xy)."""
    xx, yy, zz, yz, xz, xy = voigt
    strain = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    copy = atoms.copy()
    copy.set_cell(copy.cell[:] @ (np.eye(3) + strain), scale_atoms=True)
    return copy


def rattled(atoms: Atoms, rng: np.random.Generator, move: float, strain: float) -> Atoms:
    """Return a copy with Gaussian displacements (A) and a Gaussian strain."""
    copy = strained(atoms, rng.normal(0.0, strain, 6).tolist())
    copy.positions += rng.normal(0.0, move, (len(copy), 3))
    return copy


def beta_tin(volume: float, c_over_a: float) -> Atoms:
    """Return primitive two-atom beta-tin at ``volume`` (A^3 per atom)."""
    a = (4 * volume / c_over_a) ** (1 / 3)
    c = c_over_a * a
    cell = 0.5 * np.array([[-a, a, c], [a, -a, c], [a, a, -c]])
    return Atoms("Si2", cell=cell, pbc=True, positions=[[0, 0, 0], [0, a / 2, c / 4]])


def vacancy(breathing: float, pairing: float = 0.0) -> Atoms:
    """Return a 15-atom vacancy cell with its four neighbours moved by hand.

    ``breathing`` moves them outward (A); ``pairing`` moves them pairwise together.
    """
    cell = bulk("Si", "diamond", A_DIAMOND) * (2, 2, 2)
    vectors = cell.get_distances(0, range(1, len(cell)), mic=True, vector=True)
    del cell[0]
    for index in np.argsort(np.linalg.norm(vectors, axis=1))[:4]:
        unit = vectors[index] / np.linalg.norm(vectors[index])
        cell.positions[index] += breathing * unit
        cell.positions[index, :2] -= pairing * np.sign(unit[:2])
    return cell


def symmetric_structures() -> list[tuple[str, Atoms]]:
    """Return strained diamond and the metallic phases over volume and strain."""
    primitive = bulk("Si", "diamond", A_DIAMOND)
    cubic = bulk("Si", "diamond", A_DIAMOND, cubic=True)
    cells: list[tuple[str, Atoms]] = []
    for e in (-0.06, -0.045, -0.03, -0.015, 0.0, 0.015, 0.03, 0.045, 0.06):
        cells.append(("diamond_strained", strained(primitive, (e, e, e, 0, 0, 0))))
    for e in (-0.06, -0.03, 0.03, 0.06):
        cells.append(("diamond_strained", strained(primitive, (0, 0, e, 0, 0, 0))))
        cells.append(("diamond_strained", strained(primitive, (0, 0, 0, e, 0, 0))))
        cells.append(("diamond_strained", strained(primitive, (0, 0, 0, e / 2, e / 2, e / 2))))
    for voigt in ((0.04, 0.04, -0.05, 0, 0, 0), (-0.05, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0.04)):
        cells.append(("diamond_strained", strained(cubic, voigt)))
    for volume in (12.0, 13.0, 14.0, 15.0, 16.0, 17.5):
        cells.append(("beta_tin", beta_tin(volume, 0.55)))
    for volume, ratio in ((14.0, 0.50), (15.5, 0.50), (14.0, 0.60), (15.5, 0.60)):
        cells.append(("beta_tin", beta_tin(volume, ratio)))
    for phase in METALS:
        cell = bulk("Si", phase, METALS[phase])
        for e in (-0.08, -0.05, -0.025, 0.0, 0.025, 0.05, 0.08, 0.12):
            cells.append((phase, strained(cell, (e, e, e, 0, 0, 0))))
        for voigt in ((0, 0, 0.05, 0, 0, 0), (0, 0, 0, 0, 0, 0.04)):
            cells.append((phase, strained(cell, voigt)))
    return cells


def random_structures(rng: np.random.Generator) -> list[tuple[str, Atoms]]:
    """Return rattled cells and the vacancy (the slow ones)."""
    primitive = bulk("Si", "diamond", A_DIAMOND)
    cubic = bulk("Si", "diamond", A_DIAMOND, cubic=True)
    moves = (0.05 + 0.01 * index for index in range(12))
    cells = [("diamond_rattled", rattled(primitive, rng, move, 0.02)) for move in moves]
    for distortion in ((0.0, 0.0), (-0.15, 0.0), (-0.3, 0.0), (0.15, 0.0), (-0.1, 0.15)):
        cells.append(("vacancy", vacancy(*distortion)))
    for index in range(6):
        cells.append(("diamond_rattled", rattled(cubic, rng, 0.05 + 0.03 * index, 0.015)))
    for move in (0.06, 0.10, 0.15):
        cells.append(("diamond_rattled", rattled(primitive * (2, 2, 2), rng, move, 0.01)))
        cells.append(("vacancy", rattled(vacancy(-0.15), rng, move, 0.01)))
    for phase in ("sc", "fcc", "bcc", "sc"):
        cells.append((phase, rattled(bulk("Si", phase, METALS[phase]) * (1, 1, 2), rng, 0.1, 0.015)))
    for _ in range(2):
        cells.append(("beta_tin", rattled(beta_tin(15.0, 0.55), rng, 0.08, 0.02)))
    return cells


def structures(seed: int) -> list[Atoms]:
    """Return every structure in file order, named and rounded; the free atom is first."""
    info = {"config_type": "IsolatedAtom", "name": "isolated_atom"}
    frames = [Atoms("Si", positions=[[0.0, 0.0, 0.0]], info=info)]
    counts: dict[str, int] = {}
    for config_type, atoms in symmetric_structures() + random_structures(np.random.default_rng(seed)):
        number = counts.get(config_type, 0)
        counts[config_type] = number + 1
        atoms.set_cell(np.round(atoms.cell[:], 8))
        atoms.positions = np.round(atoms.positions, 8)
        atoms.info.update(config_type=config_type, name=f"{config_type}_{number:02d}")
        frames.append(atoms)
    return frames


def save(path: Path, frames: list[Atoms]) -> None:
    """Write ``frames`` atomically."""
    temporary = path.with_name(path.name + ".tmp")
    write(str(temporary), frames, format="extxyz")
    os.replace(temporary, path)


def generate(out: Path, seed: int, limit: int | None) -> None:
    """Label all structures that the output does not hold yet."""
    out.parent.mkdir(parents=True, exist_ok=True)
    wanted = structures(seed)[:limit]
    done = list(read(str(out), index=":", format="extxyz")) if out.exists() else []
    for old, new in zip(done, wanted):
        if len(old) != len(new) or not np.allclose(old.positions, new.positions, atol=1e-6):
            raise SystemExit(f"{out} comes from a run with other settings; move it away first")
    start = time.time()
    for index in range(len(done), len(wanted)):
        frame = label(wanted[index])
        done.append(frame)
        save(out, done)
        energy = frame.get_potential_energy() / len(frame)
        progress = f"{index + 1}/{len(wanted)} {frame.info['name']}"
        print(f"{progress} {energy:.5f} eV/atom {time.time() - start:.0f} s", flush=True)


def slope(atoms: Atoms, move: np.ndarray, strain: np.ndarray, step: float = 0.005) -> float:
    """Return dE/dt for positions + t * move and cell @ (1 + t * strain), centrally."""
    energies = []
    for t in (step, -step):
        moved = atoms.copy()
        moved.set_cell(moved.cell[:] @ (np.eye(3) + t * strain), scale_atoms=True)
        moved.positions += t * move
        energies.append(free_energy(moved, kpoint_size(atoms)))
    return (energies[0] - energies[1]) / (2 * step)


def check(path: Path, names: list[str], seed: int) -> None:
    """Print the error of forces and stresses against finite differences (fixed k-grid)."""
    frames = {a.info["name"]: a for a in read(str(path), index=":", format="extxyz")}
    still = np.zeros((3, 3))
    for name in names:
        atoms = frames[name]
        if len(atoms) > 1:
            move = np.random.default_rng(seed).normal(size=(len(atoms), 3))
            move /= np.linalg.norm(move)
            stored = float(np.sum(atoms.get_forces() * move))
            error = stored + slope(atoms, move, still)
            print(f"{name} force on a random unit vector {stored:.4f} error {error:.1e} eV/A")
        for kind, strain in (("trace/3", np.eye(3) / 3), ("zz-xx", np.diag([-1.0, 0.0, 1.0]))):
            stored = float(np.sum(atoms.get_stress(voigt=False) * strain))
            error = stored - slope(atoms, 0 * atoms.positions, strain) / atoms.get_volume()
            print(f"{name} stress {kind} {stored:.5f} error {error:.1e} eV/A^3", flush=True)


def convergence(seed: int) -> None:
    """Print free energies per atom against cutoff and k-point length."""
    names = ("diamond_strained_04", "beta_tin_02", "fcc_03", "bcc_03", "sc_03")
    for atoms in (a for a in structures(seed) if a.info["name"] in names):
        row = f"| {atoms.info['name']} |"
        for cutoff in (250.0, 300.0, 400.0, 600.0):
            energy = free_energy(atoms, kpoint_size(atoms, 20.7), cutoff) / len(atoms)
            print(f"{row} cutoff {cutoff:.0f} eV | {energy:.4f} |", flush=True)
        for length in (15.0, 20.7, 25.0, 30.0, 35.0, 40.0, 45.0, 55.0):
            size = kpoint_size(atoms, length)
            energy = free_energy(atoms, size) / len(atoms)
            print(f"{row} length {length} A {size} | {energy:.4f} |", flush=True)


def main() -> None:
    """Parse the command line and run."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--out", type=Path, default=Path("data/silicon_dft/silicon.xyz"))
    parser.add_argument("--frames", type=int, default=None, help="only the first N structures")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--convergence", action="store_true")
    parser.add_argument("--check", nargs="+", metavar="NAME", help="frames to check")
    args = parser.parse_args()
    if args.check:
        check(args.out, args.check, args.seed)
    elif args.convergence:
        convergence(args.seed)
    else:
        generate(args.out, args.seed, args.frames)


if __name__ == "__main__":
    main()
