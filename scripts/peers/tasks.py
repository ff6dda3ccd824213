"""What the workers of all packages do alike: steps of MD and training, and the tensors of a convolution.

Runs in the environments of other packages: torch, numpy and ASE only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.io import read
from ase.neighborlist import neighbor_list
from ase.optimize import FIRE
from torch import Tensor

from peers.protocol import Prepared, Step

DISPLACEMENT = 0.005
"""Å; root mean square of what a component of a position changes by in a step of MD."""


def dynamics(calculator: Any, task: dict[str, Any], facts: dict[str, Any]) -> Prepared:
    """Return the MD step: new positions, then stress, forces and energy through ASE.

    Energy (eV) and forces (eV/Å) of the structure as given are among the facts.
    """
    atoms = read(task["structure"], index=0)
    atoms.calc = calculator
    rng = np.random.default_rng(0)

    def move() -> None:
        # From where they are, as in MD: the neighbour list has to follow.
        atoms.positions += rng.normal(scale=DISPLACEMENT, size=atoms.positions.shape)

    def evaluate() -> tuple[float, np.ndarray]:
        atoms.get_stress()
        return atoms.get_potential_energy(), atoms.get_forces()

    energy, forces = evaluate()
    results = {"atoms": len(atoms), "energy": float(energy), "forces": np.asarray(forces, dtype=float).tolist()}
    return Prepared({"MD step": Step(evaluate, move)}, {**facts, **results})


def calculating(calculator: Any, facts: dict[str, Any]) -> Prepared:
    """Return what answers structures (``numbers``, ``positions``, ``cell``, ``pbc``) by energy, forces and stress."""

    def answer(order: dict[str, Any]) -> dict[str, Any]:
        atoms = Atoms(order["numbers"], order["positions"], cell=order["cell"], pbc=order["pbc"])
        atoms.calc = calculator
        arrays = {"forces": atoms.get_forces(), "stress": atoms.get_stress()}
        numbers = {name: np.asarray(array, dtype=float).tolist() for name, array in arrays.items()}
        return {"energy": float(atoms.get_potential_energy()), **numbers}

    return Prepared({}, facts, answer)


Relaxed = tuple[float, float, int]
"""Energy (eV) and volume (Å³) in the end, and the number of steps."""


def relaxing(relax: Callable[[list[Atoms]], list[Relaxed]], task: dict[str, Any], facts: dict[str, Any]) -> Prepared:
    """Return the step that relaxes a group of structures with their cells, the next group every time.

    The groups are every so-manieth structure of a file. What became of the first group is among the facts.
    """
    structures = [
        Atoms(a.numbers, a.positions, cell=a.cell, pbc=a.pbc) for a in read(task["structures"], index=":")
    ]  # fmt: skip
    groups = [structures[start :: task["groups"]] for start in range(task["groups"])]
    place = 0

    def advance() -> None:
        nonlocal place
        place = (place + 1) % len(groups)

    found = relax(groups[0])
    counts = {"structures": len(structures), "atoms": sum(map(len, structures))}
    return Prepared({"relaxation": Step(lambda: relax(groups[place]), advance)}, {**facts, **counts, "relaxed": found})


def relax_one_by_one(calculator: Any, task: dict[str, Any]) -> Callable[[list[Atoms]], list[Relaxed]]:
    """Return what relaxes structures as a script for ASE does: FIRE with a Frechet cell filter, one after the other."""

    def relax(structures: list[Atoms]) -> list[Relaxed]:
        found = []
        for atoms in structures:
            own = atoms.copy()
            own.calc = calculator
            optimizer = FIRE(FrechetCellFilter(own), logfile=None)
            optimizer.run(fmax=task["fmax"], steps=task["max_steps"])
            found.append((float(own.get_potential_energy()), float(own.get_volume()), optimizer.nsteps))
        return found

    return relax


@dataclass
class Labels:
    """Energies (structures,) eV, numbers of atoms (structures,), and forces (atoms, 3) eV/Å of a batch."""

    energy: Tensor
    sizes: Tensor
    forces: Tensor

    def loss(self, energy: Tensor, forces: Tensor) -> Tensor:
        """Return the mean squares of the errors of the energies an atom and of the forces, added."""
        of_energy = (energy.flatten() - self.energy) / self.sizes
        return of_energy.square().mean() + (forces - self.forces).square().mean()


def labelled(task: dict[str, Any], dtype: torch.dtype) -> tuple[list[Atoms], Labels]:
    """Return the structures of a training step without calculators, and their labels."""
    structures = read(task["structures"], index=":")
    energy = torch.tensor([atoms.get_potential_energy() for atoms in structures], dtype=dtype)
    forces = torch.tensor(np.concatenate([atoms.get_forces() for atoms in structures]), dtype=dtype)
    sizes = torch.tensor([len(atoms) for atoms in structures], dtype=dtype)
    plain = [Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc) for atoms in structures]
    return plain, Labels(energy, sizes, forces)


def training(
    model: torch.nn.Module, predict: Callable[[], tuple[Tensor, Tensor]], labels: Labels, facts: dict[str, Any]
) -> Prepared:
    """Return the training step: energies and forces, their loss, backward, Adam.

    Args:
        model: all its parameters that require a gradient are trained.
        predict: gives energies (structures,) and forces (atoms, 3) of the batch, ready to be differentiated again.
        labels: of the batch.
        facts: to which the number of parameters is added.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        labels.loss(*predict()).backward()
        optimizer.step()

    size = sum(parameter.numel() for parameter in parameters)
    return Prepared({"training step": Step(step)}, {**facts, "parameters": size})


@dataclass
class Convolution:
    """A message-passing convolution with a weight for each path and channel, and what goes into it.

    Attributes:
        paths: (l1, l2, l3) of equal parity, all degrees up to the highest.
        x: features (atoms, components, channels), degrees one after the other.
        harmonics: (edges, components).
        weights: (edges, paths, channels).
        senders, receivers: (edges,), receivers ascending.
        cotangent: of the output, (atoms, components of all paths, channels).
    """

    paths: list[tuple[int, int, int]]
    x: Tensor
    harmonics: Tensor
    weights: Tensor
    senders: Tensor
    receivers: Tensor
    cotangent: Tensor


def convolution(task: dict[str, Any]) -> Convolution:
    """Return the same random tensors to everyone, on the edges of a structure."""
    atoms, lmax, channels = read(task["structure"], index=0), task["lmax"], task["channels"]
    degrees = range(lmax + 1)
    paths = [
        (a, b, c) for a in degrees for b in degrees for c in degrees if abs(a - b) <= c <= a + b and not (a + b + c) % 2
    ]
    receivers, senders = (torch.tensor(index) for index in neighbor_list("ij", atoms, task["cutoff"]))
    generator, dtype = torch.Generator().manual_seed(0), getattr(torch, task["dtype"])

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    components, edges = (lmax + 1) ** 2, len(senders)
    wide = sum(2 * c + 1 for _, _, c in paths)
    tensors = random(len(atoms), components, channels), random(edges, components), random(edges, len(paths), channels)
    return Convolution(paths, *tensors, senders, receivers, random(len(atoms), wide, channels))


def convolving(
    convolve: Callable[[Tensor, Tensor, Tensor], Tensor],
    inputs: tuple[Tensor, Tensor, Tensor],
    cotangent: Tensor,
    unpack: Callable[[Tensor], Tensor],
    facts: dict[str, Any],
) -> Prepared:
    """Return the forward pass and the one with all three gradients.

    Args:
        convolve: of features, harmonics and weights.
        inputs: these, as the package lays them out.
        cotangent: of the result, likewise.
        unpack: brings a result into the layout of :class:`Convolution`.
        facts: to which a digest is added: a projection of each component of the result, and the root mean squares of
            the gradients, all of about the same size.
    """
    inputs = tuple(tensor.detach().clone().requires_grad_() for tensor in inputs)

    def forward() -> Tensor:
        with torch.no_grad():
            return convolve(*inputs)

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(convolve(*inputs), inputs, cotangent)

    result = unpack(forward()).double()
    along = torch.randn(len(result), result.shape[2], generator=torch.Generator().manual_seed(1), dtype=result.dtype)
    digest = (torch.einsum("akc,ac->k", result, along) / along.norm()).tolist()
    digest += [float(gradient.double().square().mean().sqrt()) for gradient in both()]
    steps = {"forward": Step(forward), "forward + backward": Step(both)}
    return Prepared(steps, {**facts, "edges": len(inputs[1]), "digest": digest})
