"""Checks of the symmetries of a model: rotations, translations, permutations, copies, batches."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from torch_geometric.data import Batch

from mlip.models.base import AtomisticModel
from mlip.nn.derivatives import predict, predictable
from mlip.testing.evaluate import evaluate, force_scale, graph_for, largest, rms
from mlip.testing.measurement import worst


def random_orthogonal(seed: int, proper: bool) -> np.ndarray:
    """Return a random rotation (``proper``) or rotation times inversion, (3, 3)."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if (np.linalg.det(q) > 0) == proper else -q


def transformed(atoms: Atoms, matrix: np.ndarray) -> Atoms:
    """Return the structure with positions and cell multiplied by a matrix."""
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ matrix.T)
    turned.positions = atoms.positions @ matrix.T
    return turned


def equivariance_errors(model: AtomisticModel, atoms: Atoms, num_rotations: int = 4) -> dict[str, float]:
    """Compare the prediction for a turned structure with the turned prediction.

    Proper rotations and, if the model declares O(3), rotations times inversion, in turn.

    Returns:
        ``energy``: largest error in eV/atom; ``forces``: RMS error over RMS force; ``stress``: RMS error over
        RMS stress (0 for molecules).
    """
    fields = ("energy", "forces", "stress")
    plain = evaluate(model, atoms, fields)
    energy, forces, stress = [], [], []
    for seed in range(num_rotations):
        matrix = random_orthogonal(seed, proper=model.symmetry == "SO3" or seed % 2 == 0)
        turned = evaluate(model, transformed(atoms, matrix), fields)
        energy.append(abs(turned["energy"] - plain["energy"]) / len(atoms))
        forces.append(turned["forces"] @ matrix - plain["forces"])
        stress.append(matrix.T @ turned["stress"] @ matrix - plain["stress"])
    scale = rms(plain["stress"])
    return {
        "energy": worst(*energy),
        "forces": rms(np.array(forces)) / force_scale(plain["forces"]),
        "stress": rms(np.array(stress)) / scale if scale else largest(np.array(stress)),
    }


def translation_error(model: AtomisticModel, atoms: Atoms) -> float:
    """Shift all atoms, by more than a small cell; return the error of the forces over their RMS."""
    moved = atoms.copy()
    moved.positions += [7.3, -11.9, 23.1]
    plain = evaluate(model, atoms)
    return _difference(plain, evaluate(model, moved), plain["forces"])


def wrapping_error(model: AtomisticModel, atoms: Atoms) -> float:
    """Move atoms by lattice vectors along periodic axes; return the error of the forces over their RMS."""
    moved = atoms.copy()
    steps = np.random.default_rng(0).integers(-2, 3, size=(len(atoms), 3)) * atoms.pbc
    moved.positions += steps @ atoms.cell.array
    plain = evaluate(model, atoms)
    return _difference(plain, evaluate(model, moved), plain["forces"])


def permutation_error(model: AtomisticModel, atoms: Atoms) -> float:
    """Renumber the atoms; return the error of the forces over their RMS."""
    # A random permutation of few atoms may be the identity, and then proves nothing.
    order = np.arange(len(atoms))[::-1]
    plain, permuted = evaluate(model, atoms), evaluate(model, atoms[order])
    return _difference({**plain, "forces": plain["forces"][order]}, permuted, plain["forces"])


def supercell_error(model: AtomisticModel, atoms: Atoms) -> float:
    """Repeat along a periodic axis: twice the energy, the same forces, the same stress (relative error)."""
    axis = int(np.argmax(atoms.pbc))
    repeats = [2 if k == axis else 1 for k in range(3)]
    fields = ("energy", "forces", "stress")
    plain, double = evaluate(model, atoms, fields), evaluate(model, atoms.repeat(repeats), fields)
    expected = {"energy": 2 * plain["energy"], "forces": np.tile(plain["forces"], (2, 1))}
    stress = largest(double["stress"] - plain["stress"]) / (largest(plain["stress"]) or 1.0)
    return worst(stress, _difference(expected, double, plain["forces"]))


def separation_error(model: AtomisticModel, atoms: Atoms) -> float:
    """Put a turned copy of a molecule far away: energies add, forces stay (relative to the RMS force)."""
    # A copy without a turn would hide a model that mixes up which atom belongs to which copy.
    other = transformed(atoms, random_orthogonal(3, proper=True))
    plain, turned = evaluate(model, atoms), evaluate(model, other)
    extent = np.ptp(atoms.positions, axis=0).max() + np.ptp(other.positions, axis=0).max()
    other.positions += [extent + 2 * model.cutoff, 0.0, 0.0]
    both = atoms.copy()
    both.extend(other)
    expected = {
        "energy": plain["energy"] + turned["energy"],
        "forces": np.concatenate([plain["forces"], turned["forces"]]),
    }
    return _difference(expected, evaluate(model, both), plain["forces"])


def batch_error(model: AtomisticModel, structures: list[Atoms]) -> float:
    """Evaluate structures together and one by one; return the largest error over the RMS force and stress."""
    fields = ("energy", "forces", "stress")
    graphs = [graph_for(model, atoms) for atoms in structures]
    together = predict(model, Batch.from_data_list(graphs).to(model.device), fields)
    single = [evaluate(model, atoms, fields) for atoms in structures]
    expected = {
        "energy": np.array([one["energy"] for one in single]),
        "forces": np.concatenate([one["forces"] for one in single]),
    }
    found = {name: value.cpu().numpy() for name, value in together.items()}
    stress = np.array([one["stress"] for one in single])
    error = largest(found["stress"] - stress) / (largest(stress) or 1.0)
    return worst(error, _difference(expected, found, expected["forces"]))


def changed_inputs(model: AtomisticModel, atoms: Atoms) -> int:
    """Return how many fields of the graph an evaluation has added, removed or changed: 0 is right."""
    graph = graph_for(model, atoms).to(model.device)
    before = {name: value.clone() for name, value in graph.to_dict().items() if torch.is_tensor(value)}
    predict(model, graph, predictable(model))
    after = {name: value for name, value in graph.to_dict().items() if torch.is_tensor(value)}
    same = [name for name in before if name in after and torch.equal(before[name], after[name])]
    graph_kept = sum(value.requires_grad for value in after.values())
    return len(before.keys() | after.keys()) - len(same) + graph_kept


def _difference(expected: dict[str, np.ndarray], found: dict[str, np.ndarray], forces: np.ndarray) -> float:
    """Return the larger error of forces (over their RMS) and energy (eV/atom, over RMS force times 1 Å)."""
    scale = force_scale(forces)
    atoms = max(1, len(found["forces"]))
    # Total energies of 10⁵ eV carry rounding of 1e-11 eV, which is not the model's fault.
    rounding = 1e-14 * largest(expected["energy"])
    energy = worst(0.0, largest(found["energy"] - expected["energy"]) - rounding) / atoms
    return worst(largest(found["forces"] - expected["forces"]), energy) / scale
