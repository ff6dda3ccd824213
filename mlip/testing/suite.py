"""All checks of a model on generated and given structures: the rows of ``mlip doctor``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from itertools import product

import numpy as np
import torch
from ase import Atoms

from mlip.models.base import AtomisticModel
from mlip.models.build import build_model
from mlip.testing import finite_differences, smoothness, symmetry
from mlip.testing.evaluate import evaluate, force_scale, largest, rms
from mlip.testing.measurement import Measurement, worst
from mlip.testing.structures import isolated_atom, molecule

EXACT = 1e-9
"""Relative error that rounding in float64 explains, with a margin of a hundred."""
ALIASING = 1e-3
"""Largest equivariance error over the RMS force of a model that is equivariant up to a grid."""
_LATTICE = "forces depend on how the crystal is written down"


def double(model: AtomisticModel) -> AtomisticModel:
    """Return a copy in float64."""
    return deepcopy(model).to(torch.float64).eval()


def equivariance_rows(model: AtomisticModel, name: str, atoms: Atoms) -> Iterator[Measurement]:
    """Rotations and inversion; ``model`` in float64."""
    tolerance = EXACT if model.exactly_equivariant else ALIASING
    found = symmetry.equivariance_errors(model, atoms)
    scale = force_scale(evaluate(model, atoms)["forces"])
    group = "rotation" if model.symmetry == "SO3" else "rotation and inversion"
    meaning = "turning the structure changes the physics: spurious torques, wrong phonons and MD"
    # An energy has no RMS of its own: it is compared with the RMS force times 1 Å.
    yield Measurement(
        f"{group}: energy ({name})", found["energy"] / scale, tolerance, "RMS force · 1 Å / atom", meaning
    )
    yield Measurement(f"{group}: forces ({name})", found["forces"], tolerance, "RMS force", meaning)
    if atoms.pbc.any():
        # A stress that is small by cancellation has a large relative error where the grid aliases.
        bar = tolerance if model.exactly_equivariant else 10 * tolerance
        yield Measurement(f"{group}: stress ({name})", found["stress"], bar, "RMS stress", meaning)


def symmetry_rows(model: AtomisticModel, name: str, atoms: Atoms) -> Iterator[Measurement]:
    """Everything else that must not change a prediction; ``model`` in float64."""
    yield Measurement(
        f"translation ({name})",
        symmetry.translation_error(model, atoms),
        EXACT,
        "RMS force",
        "momentum is not conserved",
    )
    yield Measurement(
        f"permutation ({name})",
        symmetry.permutation_error(model, atoms),
        EXACT,
        "RMS force",
        "the order of the atoms in the file changes the result",
    )
    if atoms.pbc.any():
        yield Measurement(f"wrapping ({name})", symmetry.wrapping_error(model, atoms), EXACT, "RMS force", _LATTICE)
        yield Measurement(f"supercell ({name})", symmetry.supercell_error(model, atoms), EXACT, "RMS force", _LATTICE)
    else:
        yield Measurement(
            f"far copies ({name})",
            symmetry.separation_error(model, atoms),
            EXACT,
            "RMS force",
            "the energy is not extensive: distant molecules feel each other",
        )
    yield Measurement(
        f"input unchanged ({name})",
        float(symmetry.changed_inputs(model, atoms)),
        0.0,
        "fields",
        "a second evaluation of the same graph gives another result",
    )


def derivative_rows(model: AtomisticModel, name: str, atoms: Atoms) -> Iterator[Measurement]:
    """Forces and stress against finite differences; ``model`` in float64."""
    atoms = finite_differences.settle(atoms, model.cutoff)
    direct = (
        "a head of this model gives forces by itself (model/head=[direct_forces]), not as the slope of its energy: "
    )
    yield Measurement(
        f"forces = -dE/dr ({name})",
        finite_differences.force_error(model, atoms),
        1e-6,
        "RMS force",
        (direct if "forces" in model.fields else "") + "energy drifts in MD, relaxations do not converge",
    )
    if atoms.pbc.any() and atoms.get_volume() > 0:
        yield Measurement(
            f"stress = dE/dε / V ({name})",
            finite_differences.stress_error(model, atoms),
            1e-6,
            "largest stress",
            "cells relax to the wrong volume, NPT has the wrong pressure",
        )


def cutoff_rows(model: AtomisticModel) -> Iterator[Measurement]:
    """Atoms that cross the cutoff, or the end of an envelope within it; ``model`` in float64."""
    scenes = {"pairs": smoothness.leaving_pairs(model), "molecule": [smoothness.leaving_atom(model)]}
    scale = force_scale(evaluate(model, molecule(model.elements))["forces"])
    for (place, distances), (name, functions) in product(smoothness.crossings(model).items(), scenes.items()):
        meaning = f"atoms that cross {place} get a kick: MD heats up"
        cases = list(product(functions, distances))
        jumps = [smoothness.jumps_at(model, at, distance) for at, distance in cases]
        yield Measurement(
            f"energy at {place} ({name})",
            worst(*(jump[0] for jump in jumps)) / scale,
            1e-6,
            "RMS force · 1 Å",
            meaning,
        )
        yield Measurement(
            f"forces at {place} ({name})",
            worst(*(jump[1] for jump in jumps)) / scale,
            1e-5,
            "RMS force",
            meaning,
        )
        yield Measurement(
            f"stiffness at {place} ({name})",
            worst(*(smoothness.stiffest_near(model, at, distance) for at, distance in cases)) / scale,
            5.0,
            "RMS force / Å",
            "an almost-step that MD with a usual time step cannot resolve",
        )


def precision_rows(model: AtomisticModel, name: str, atoms: Atoms) -> Iterator[Measurement]:
    """The same weights in float32 and float64; ``model`` in any dtype."""
    exact = evaluate(double(model), atoms)
    single = evaluate(deepcopy(model).to(torch.float32), atoms)
    scale = force_scale(exact["forces"])
    yield Measurement(
        f"float32 energy ({name})",
        abs(float(single["energy"] - exact["energy"])) / len(atoms),
        1e-5,
        "eV/atom",
        "float32 loses digits of the energy: use float64",
    )
    yield Measurement(
        f"float32 forces ({name})",
        rms(single["forces"] - exact["forces"]) / scale,
        1e-4,
        "RMS force",
        "float32 loses digits of the forces: use float64",
    )


def edge_case_rows(model: AtomisticModel, structures: Mapping[str, Atoms]) -> Iterator[Measurement]:
    """Single atoms, mixed batches, a model that predicts nothing; ``model`` in float64."""
    alone = [evaluate(model, isolated_atom(symbol), ("energy", "forces", "stress")) for symbol in model.elements]
    finite = all(np.isfinite(one["energy"]) for one in alone)
    yield Measurement(
        "one atom, no edges",
        worst(*(largest(one["forces"]) + largest(one["stress"]) for one in alone)) if finite else float("nan"),
        # A head's vectors of a lonely atom are zero up to the rounding of a grid, a gradient is without.
        EXACT if "forces" in model.fields else 0.0,
        "eV/Å",
        "an isolated atom has a force, or no finite energy",
    )
    batch = [*structures.values(), isolated_atom(model.elements[0])]
    yield Measurement(
        "batch = single",
        symmetry.batch_error(model, batch),
        EXACT,
        "RMS force",
        "structures in a batch see each other",
    )
    yield Measurement(
        "a molecule without any force",
        float(not evaluate(model, molecule(model.elements))["forces"].any()),
        0.0,
        "molecules",
        "the model is untrained, or the atoms do not see each other: the other rows prove nothing",
    )


def resolution_errors(model: AtomisticModel, atoms: Atoms) -> dict[str, float]:
    """Measure the aliasing of the mixers' grids: equivariance error of the forces over their RMS.

    Args:
        model: in float64, built from a configuration.
        atoms: any structure.

    Returns:
        The error by grid, ``latitudes x longitudes``: coarser, the model's own, finer. Empty for models that
        are exactly equivariant or have no such grid.
    """
    grids = [tuple(part.resolution) for part in model.modules() if hasattr(part, "resolution")]
    one_network = "nonlinearity" in model.config
    if "energy" not in model.fields or model.exactly_equivariant or not grids or not one_network:
        return {}
    own, block = grids[0], model.config["nonlinearity"]
    errors = {}
    for factor in (0.6, 1.0, 1.6):
        resolution = own if factor == 1.0 else tuple(max(1, round(factor * n)) for n in own)
        changed = {**block, "resolution": list(resolution)}
        variant = build_model({**model.config, "nonlinearity": changed}, dtype=torch.float64)
        variant.load_state_dict(model.state_dict())
        variant.to(model.device).eval()
        errors[f"{resolution[0]}x{resolution[1]}"] = symmetry.equivariance_errors(variant, atoms)["forces"]
    return errors
