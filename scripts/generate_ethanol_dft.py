"""Generate the ethanol DFT data set (``data/ethanol_dft/ethanol.xyz``).

What it makes
    An extended-xyz file with single-atom reference frames (H, C, O) followed by
    ethanol geometries drawn from Langevin molecular dynamics at 300 K and 600 K.
    The dynamics run on the GFN2-xTB surface (tblite), started from both the trans
    and the gauche conformer. GFN2-xTB puts trans too high, so free runs soon turn
    gauche; further runs add a torsional bias that holds the molecule near trans.
    Every kept snapshot is then labelled with energy and forces from
    B3LYP/def2-SVP with density fitting (PySCF).

How to run
    pip install pyscf tblite ase
    OMP_NUM_THREADS=1 python scripts/generate_ethanol_dft.py \
        --out data/ethanol_dft/ethanol.xyz --frames 300 --held 80 --seed 7

    An interrupted run continues where it stopped: the sampled geometries are kept
    beside the output (``*.geometries.xyz``) until the run is complete, and labelled
    frames already in the output are not computed again.

    python scripts/generate_ethanol_dft.py --out data/ethanol_dft/ethanol.xyz --check 4

    does no sampling; it compares stored forces of a few frames with central
    differences of the energy and prints the largest deviation.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.geometry import get_dihedrals, get_dihedrals_derivatives
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import BFGS

FUNCTIONAL = "b3lyp"  # PySCF >= 2.3: B3LYP with VWN_RPA (VWN3), as in Gaussian
BASIS = "def2-svp"
AUXBASIS = "def2-universal-jkfit"
GRID_LEVEL = 3
TEMPERATURES = (300, 600)
CONFORMERS = {"trans": 180.0, "gauche": 60.0, "trans_held": 180.0}
HOLD_EV = 0.1  # bias HOLD_EV * (1 + cos(C-C-O-H dihedral)) of the trans_held runs
ATOM_SPINS = {"H": 1, "C": 2, "O": 2}  # number of unpaired electrons
TIMESTEP_FS = 0.5
FRICTION_PER_FS = 0.01


def mean_field(atoms: Atoms, spin: int = 0, conv_tol: float = 1e-9) -> Any:
    """Return a converged PySCF Kohn-Sham object for ``atoms``."""
    from pyscf import dft, gto

    geometry = list(zip(atoms.get_chemical_symbols(), atoms.positions.tolist()))
    mol = gto.M(atom=geometry, unit="Angstrom", basis=BASIS, spin=spin, verbose=0)
    method = dft.UKS(mol) if spin else dft.RKS(mol)
    method.xc = FUNCTIONAL
    method = method.density_fit(auxbasis=AUXBASIS)
    method.grids.level = GRID_LEVEL
    method.conv_tol = conv_tol
    method.max_cycle = 100
    method.kernel()
    if not method.converged:
        density = method.make_rdm1()
        method = method.newton()
        method.kernel(density)
    if not method.converged:
        raise RuntimeError(f"SCF did not converge for {atoms.get_chemical_formula()}")
    return method


def label(atoms: Atoms) -> Atoms:
    """Return a copy of ``atoms`` with B3LYP energy (eV) and forces (eV/A)."""
    method = mean_field(atoms)
    gradient = method.nuc_grad_method()
    gradient.grid_response = True
    forces = -np.asarray(gradient.kernel()) * units.Hartree / units.Bohr
    labelled = atoms.copy()
    labelled.calc = SinglePointCalculator(labelled, energy=float(method.e_tot * units.Hartree), forces=forces)
    return labelled


def isolated_atom(symbol: str) -> Atoms:
    """Return the spin-polarised free atom with its energy and zero forces."""
    atom = Atoms(symbol, positions=[[0.0, 0.0, 0.0]])
    energy = mean_field(atom, spin=ATOM_SPINS[symbol]).e_tot * units.Hartree
    atom.calc = SinglePointCalculator(atom, energy=float(energy), forces=np.zeros((1, 3)))
    atom.info["config_type"] = "IsolatedAtom"
    return atom


def hydroxyl_dihedral(atoms: Atoms) -> float:
    """Return the C-C-O-H dihedral in degrees, in the interval [0, 180]."""
    angle = float(atoms.get_dihedral(*dihedral_indices(atoms)))
    return min(angle, 360.0 - angle)


def dihedral_indices(atoms: Atoms) -> tuple[int, int, int, int]:
    """Find methyl C, hydroxyl-bearing C, O and hydroxyl H by distance."""
    symbols = atoms.get_chemical_symbols()
    oxygen = symbols.index("O")
    distances = atoms.get_all_distances()[oxygen]
    carbons = sorted((i for i, s in enumerate(symbols) if s == "C"), key=lambda i: distances[i])
    hydrogens = [i for i, s in enumerate(symbols) if s == "H"]
    return carbons[1], carbons[0], oxygen, min(hydrogens, key=lambda i: distances[i])


class Held(Calculator):
    """A calculator plus a torsional bias that favours the trans hydroxyl."""

    implemented_properties = ("energy", "forces")

    def __init__(self, base: Calculator, indices: tuple[int, int, int, int]) -> None:
        """Wrap ``base``; ``indices`` are the four atoms of the dihedral."""
        super().__init__()
        self.base, self.indices = base, list(indices)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Store the sum of both energies and forces."""
        super().calculate(atoms, properties, system_changes)
        bare = atoms.copy()
        bare.calc = self.base
        bonds = np.diff(atoms.positions[self.indices], axis=0)[:, None]
        angle = np.radians(get_dihedrals(*bonds)[0])
        forces = bare.get_forces()
        slope = np.radians(get_dihedrals_derivatives(*bonds)[0])
        forces[self.indices] += HOLD_EV * np.sin(angle) * slope
        energy = bare.get_potential_energy() + HOLD_EV * (1 + np.cos(angle))
        self.results = {"energy": energy, "forces": forces}


def conformer(name: str) -> Atoms:
    """Return ethanol in the named conformer, relaxed with GFN2-xTB."""
    from tblite.ase import TBLite

    atoms = molecule("CH3CH2OH")
    indices = dihedral_indices(atoms)
    atoms.set_dihedral(*indices, CONFORMERS[name], indices=[indices[3]])
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    if name == "trans_held":
        atoms.calc = Held(atoms.calc, indices)
    BFGS(atoms, logfile=None).run(fmax=0.01, steps=300)
    return atoms


def run_md(name: str, temperature: int, frames: int, interval: int, equilibration: int, seed: int) -> list[Atoms]:
    """Sample ``frames`` snapshots every ``interval`` steps after equilibration."""
    if frames < 1:
        return []
    rng = np.random.default_rng([seed, temperature, list(CONFORMERS).index(name)])
    atoms = conformer(name)
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    dynamics = Langevin(
        atoms,
        timestep=TIMESTEP_FS * units.fs,
        temperature_K=temperature,
        friction=FRICTION_PER_FS / units.fs,
        rng=rng,
    )
    dynamics.run(equilibration)
    snapshots: list[Atoms] = []
    for index in range(frames):
        dynamics.run(interval)
        snapshot = Atoms(atoms.get_chemical_symbols(), positions=atoms.positions)
        snapshot.positions -= snapshot.get_center_of_mass()
        snapshot.positions = np.round(snapshot.positions, 8)  # as written to the file
        snapshot.info.update(
            config_type=f"md_{temperature}K",
            temperature=temperature,
            start_conformer=name,
            snapshot=index,
        )
        snapshots.append(snapshot)
    return snapshots


def sample(names: tuple[str, ...], frames: int, interval: int, equilibration: int, seed: int) -> list[Atoms]:
    """Sample the trajectories of ``names`` and interleave them, so prefixes are balanced."""
    runs = [(name, temperature) for temperature in TEMPERATURES for name in names]
    counts = [frames // len(runs) + (i < frames % len(runs)) for i in range(len(runs))]
    trajectories = []
    for (name, temperature), count in zip(runs, counts):
        trajectories.append(run_md(name, temperature, count, interval, equilibration, seed))
        print(f"sampled {count} snapshots: {name}, {temperature} K", flush=True)
    longest = max(counts)
    return [t[i] for i in range(longest) for t in trajectories if i < len(t)]


def save(path: Path, frames: list[Atoms]) -> None:
    """Write ``frames`` atomically."""
    temporary = path.with_name(path.name + ".tmp")
    write(temporary, frames, format="extxyz")
    os.replace(temporary, path)


def load(path: Path) -> list[Atoms]:
    """Read all frames of ``path``, or nothing if it does not exist."""
    return list(read(path, index=":", format="extxyz")) if path.exists() else []


def generate(args: argparse.Namespace) -> None:
    """Sample (or reload) the geometries and label those not labelled yet."""
    out: Path = args.out
    out.parent.mkdir(parents=True, exist_ok=True)
    stem = f"{out.stem}.{args.frames}-{args.held}-{args.interval}-{args.equilibration}-{args.seed}"
    sidecar = out.with_name(f"{stem}.geometries.xyz")
    done = load(out)
    labels = args.frames + args.held
    total = labels + len(ATOM_SPINS)
    if len(done) >= total and not sidecar.exists():
        print(f"{out} already holds {len(done)} frames; nothing to do")
        return
    geometries = load(sidecar)
    if not geometries:
        if done:
            raise SystemExit(f"{out} comes from a run with other settings; move it away first")
        settings = (args.interval, args.equilibration, args.seed)
        geometries = sample(("trans", "gauche"), args.frames, *settings)
        geometries += sample(("trans_held",), args.held, *settings)
        save(sidecar, geometries)
    if len(done) < len(ATOM_SPINS):
        done = [isolated_atom(symbol) for symbol in ATOM_SPINS]
        save(out, done)
    start = time.time()
    for index in range(len(done) - len(ATOM_SPINS), labels):
        frame = label(geometries[index])
        done.append(frame)
        if (index + 1) % args.flush == 0:
            save(out, done)
        print(
            f"{index + 1}/{labels} E = {frame.get_potential_energy():.6f} eV "
            f"max|F| = {np.abs(frame.get_forces()).max():.3f} eV/A {time.time() - start:.0f} s",
            flush=True,
        )
    save(out, done)
    sidecar.unlink()


def check(path: Path, frames: int, seed: int, components: int = 6, step: float = 2e-3) -> None:
    """Compare stored forces with central energy differences; print the deviations."""
    rng = np.random.default_rng(seed)
    molecules = [a for a in load(path) if len(a) > 1]
    net = max(float(np.abs(a.get_forces().sum(axis=0)).max()) for a in molecules)
    print(f"largest net-force component over {len(molecules)} frames: {net:.1e} eV/A")
    worst = 0.0
    for index in sorted(rng.choice(len(molecules), size=frames, replace=False)):
        atoms = molecules[index]
        chosen = rng.choice(3 * len(atoms), size=components, replace=False)
        for flat in chosen:
            atom, axis = divmod(int(flat), 3)
            energies = []
            for sign in (1, -1):
                moved = atoms.copy()
                moved.positions[atom, axis] += sign * step
                energies.append(mean_field(moved, conv_tol=1e-11).e_tot * units.Hartree)
            numeric = -(energies[0] - energies[1]) / (2 * step)
            error = abs(numeric - atoms.get_forces()[atom, axis])
            worst = max(worst, error)
            print(f"frame {index} atom {atom} axis {axis}: {numeric:.5f} error {error:.1e}")
    print(f"largest force error against finite differences: {worst:.1e} eV/A")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("data/ethanol_dft/ethanol.xyz"))
    parser.add_argument("--frames", type=int, default=300, help="number of free MD snapshots")
    parser.add_argument("--held", type=int, default=80, help="number of held-trans snapshots")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--interval", type=int, default=200, help="MD steps between snapshots")
    parser.add_argument("--equilibration", type=int, default=4000, help="MD steps discarded")
    parser.add_argument("--flush", type=int, default=10, help="frames between writes")
    parser.add_argument("--check", type=int, default=0, metavar="N", help="check N frames only")
    args = parser.parse_args()
    if args.check:
        check(args.out, args.check, args.seed)
    else:
        generate(args)


if __name__ == "__main__":
    main()
