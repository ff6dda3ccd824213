"""The checks of matrices over orbitals find what they are for: models that are broken in one way each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from mlip.cli.main import app
from mlip.data.graph import AtomGraph
from mlip.models.base import AtomisticModel
from mlip.models.model_file import save_model
from mlip.testing.report import examine
from tests.models.hamiltonian_cases import FIXED, hamiltonian_model

Damage = Callable[["Model", AtomGraph, list[Tensor]], None]


def nothing(model: Model, graph: AtomGraph, matrices: list[Tensor]) -> None:
    """No damage."""


class Model(AtomisticModel):
    """One s orbital of hydrogen, s and p of oxygen, and ``H_ij = e(r) u(r̂) u(-r̂)ᵀ``, ``u = (1, y, z, x)``.

    e is a smooth envelope; an atom has ``2 + Σ_j e u(r̂) u(r̂)ᵀ``. Then comes a damage.
    """

    fields = ("hamiltonian",)
    shells: ClassVar = {"H": (0,), "O": (0, 1)}

    def __init__(self, damage: Damage = nothing, continuous: bool = True) -> None:
        super().__init__(["H", "O"], 4.0)
        self.damage, self.continuous = damage, continuous
        self.weight = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    @property
    def exactly_equivariant(self) -> bool:
        return True

    def forward(self, graph: AtomGraph) -> dict[str, Tensor]:
        count = len(graph.positions)
        batch = graph.get("batch")
        batch = torch.zeros(count, dtype=torch.long) if batch is None else batch
        senders, receivers = graph.edge_index
        vectors = (graph.positions[senders] - graph.positions[receivers]).to(self.dtype)
        squares = vectors.square().sum(dim=1)
        unit = (vectors / squares.sqrt()[:, None])[:, [1, 2, 0]]
        envelope = (1 - squares / self.cutoff**2).clamp(min=0)[:, None, None] ** 3
        one = torch.ones_like(unit[:, :1])
        row, column = torch.cat([one, unit], dim=1), torch.cat([one, -unit], dim=1)
        full = torch.zeros(count, count, 4, 4, dtype=torch.float64)
        full[receivers, senders] = (envelope * row[:, :, None] * column[:, None]).double()
        atoms = torch.zeros(count, 4, 4, dtype=torch.float64)
        atoms.index_add_(0, receivers, (envelope * row[:, :, None] * row[:, None]).double())
        full[range(count), range(count)] = atoms + 2 * torch.eye(4)
        full = full.transpose(1, 2).flatten(2).flatten(0, 1)
        there = (torch.arange(4) == 0) | (graph.atomic_numbers[:, None] > 1)
        matrices = []
        for k in range(len(graph.cell)):
            kept = (there & (batch == k)[:, None]).flatten()
            # Exactly symmetric, not only to rounding.
            matrices.append(0.5 * (full[kept][:, kept] + full[kept][:, kept].T))
        self.damage(self, graph, matrices)
        sizes = torch.tensor([len(matrix) for matrix in matrices])
        return {"hamiltonian": torch.cat([m.flatten() for m in matrices]), "num_orbitals": sizes}


def of_orbitals(graph: AtomGraph, values: Tensor) -> list[Tensor]:
    """Return numbers of atoms, repeated for their orbitals, by molecule."""
    own = torch.where(graph.atomic_numbers > 1, 4, 1)
    batch = graph.get("batch")
    batch = torch.zeros_like(own) if batch is None else batch
    return [values[batch == k].repeat_interleave(own[batch == k]) for k in range(len(graph.cell))]


def sums_over_edges(graph: AtomGraph, values: Tensor) -> list[Tensor]:
    """Return the sums over the edges of every atom, for its orbitals, by molecule."""
    sums = torch.zeros(len(graph.positions), dtype=torch.float64).index_add_(0, graph.edge_index[1], values)
    return of_orbitals(graph, sums)


def not_equivariant(model: Model, graph: AtomGraph, matrices: list[Tensor]) -> None:
    for matrix in matrices:
        matrix[:, -1] += 1e-5
        matrix[-1] += 1e-5


def handed(model: Model, graph: AtomGraph, matrices: list[Tensor]) -> None:
    """The same after rotations, not after reflections."""
    for first, matrix in zip([0, *graph.get("ptr", [0])[1:]], matrices, strict=False):
        if len(graph.positions) > first + 3:
            a, b, c = graph.positions[first + 1 : first + 4] - graph.positions[first]
            matrix.diagonal().add_(1e-3 * torch.linalg.cross(a, b) @ c)


def not_symmetric(model: Model, graph: AtomGraph, matrices: list[Tensor]) -> None:
    for matrix in matrices:
        matrix[:1, 1:] += 1e-12


def placed(model: Model, graph: AtomGraph, matrices: list[Tensor]) -> None:
    for matrix in matrices:
        matrix.diagonal().add_(1e-6 * float(graph.positions.mean(dim=0).norm()))


def numbered(model: Model, graph: AtomGraph, matrices: list[Tensor]) -> None:
    for matrix, rank in zip(matrices, of_orbitals(graph, torch.arange(float(len(graph.positions)))), strict=True):
        matrix.diagonal().add_(1e-3 * (rank - rank[0]))


def feels_far(model: Model, graph: AtomGraph, matrices: list[Tensor]) -> None:
    for matrix in matrices:
        matrix.diagonal().add_(1e-6 * len(matrix))


def feels_the_batch(model: Model, graph: AtomGraph, matrices: list[Tensor]) -> None:
    for matrix in matrices:
        matrix.diagonal().add_(1e-6 * len(matrices))


def loses_digits(model: Model, graph: AtomGraph, matrices: list[Tensor]) -> None:
    for matrix in matrices:
        matrix.mul_(1.001 if model.dtype == torch.float32 else 1.0)


def jumps(model: Model, graph: AtomGraph, matrices: list[Tensor]) -> None:
    numbers = torch.ones(graph.edge_index.shape[1], dtype=torch.float64)
    for matrix, values in zip(matrices, sums_over_edges(graph, numbers), strict=True):
        matrix.diagonal().add_(1e-3 * values)


def has_a_kink(model: Model, graph: AtomGraph, matrices: list[Tensor]) -> None:
    distances = (graph.positions[graph.edge_index[0]] - graph.positions[graph.edge_index[1]]).norm(dim=1)
    for matrix, values in zip(matrices, sums_over_edges(graph, model.cutoff - distances), strict=True):
        matrix.diagonal().add_(1e-3 * values)


def no_sphere(model: Model, graph: AtomGraph, matrices: list[Tensor]) -> None:
    if not graph.edge_index.shape[1]:
        matrices[0][-1, -1] += 1e-3


def changes_its_input(model: Model, graph: AtomGraph, matrices: list[Tensor]) -> None:
    graph.positions += 1e-3


def knows_atoms_only(model: Model, graph: AtomGraph, matrices: list[Tensor]) -> None:
    for matrix, rank in zip(matrices, of_orbitals(graph, torch.arange(float(len(graph.positions)))), strict=True):
        matrix[rank[:, None] != rank] = 0.0


def not_finite(model: Model, graph: AtomGraph, matrices: list[Tensor]) -> None:
    matrices[-1][0, 0] = torch.nan


@pytest.mark.parametrize(
    ("damage", "row"),
    [
        (not_equivariant, "rotation and reflection: hamiltonian"),
        (handed, "rotation and reflection: hamiltonian"),
        (not_symmetric, "symmetric: hamiltonian"),
        (placed, "translation: hamiltonian"),
        (numbered, "permutation: hamiltonian"),
        (feels_far, "far copies: hamiltonian"),
        (feels_the_batch, "batch = single: hamiltonian"),
        (loses_digits, "float32: hamiltonian"),
        (jumps, "hamiltonian at the cutoff"),
        (has_a_kink, "slope of hamiltonian at the cutoff"),
        (no_sphere, "one atom, no edges: hamiltonian"),
        (changes_its_input, "input unchanged"),
        (knows_atoms_only, "signal: hamiltonian of pairs"),
        (not_finite, "one atom, no edges: hamiltonian"),
    ],
)
def test_broken_models_are_found(damage: Damage, row: str) -> None:
    failed = [measured.name for measured in examine(Model(damage)) if not measured.passed]
    assert any(name.startswith(row) for name in failed), failed


def test_a_good_model_passes_and_so_does_one_whose_jumps_are_meant() -> None:
    assert [row.name for row in examine(Model()) if not row.passed] == []
    rows = {row.name: row for row in examine(Model(jumps, continuous=False))}
    assert all(row.passed for row in rows.values())
    assert rows["hamiltonian at the cutoff, which jumps by design"].value > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qhnet", "sphnet"])
def test_doctor(name: str, tmp_path: Path) -> None:
    """The command, on a model file and with a molecule of the user's own; periodic ones are refused."""
    model = hamiltonian_model(name, "model.bottleneck=2", *(FIXED if name == "sphnet" else ()))
    save_model(tmp_path / "m.safetensors", model)
    (tmp_path / "water.xyz").write_text("3\n\nO 0 0 0.12\nH 0 0.76 -0.47\nH 0 -0.76 -0.47\n")
    command = ["doctor", str(tmp_path / "m.safetensors"), str(tmp_path / "water.xyz")]
    done = CliRunner().invoke(app, [*command, "--json", str(tmp_path / "d.json")])
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "d.json").read_text())["checks"]
    assert {"rotation and reflection: hamiltonian (your structure)", "float32: hamiltonian"} <= {
        r["name"] for r in rows
    }
    assert not [row for row in rows if "stress" in row["name"] or "forces" in row["name"]]
    free = [row["name"] for row in rows if row["tolerance"] is None]
    assert len(free) == (2 if name == "sphnet" else 0)
    (tmp_path / "ice.xyz").write_text('1\nLattice="9 0 0 0 9 0 0 0 9" pbc="T T T"\nO 0 0 0\n')
    done = CliRunner().invoke(app, [*command[:2], str(tmp_path / "ice.xyz")])
    assert done.exit_code == 1
    assert "molecules only: if it is a molecule in a box, set atoms.pbc = False" in " ".join(done.output.split())
