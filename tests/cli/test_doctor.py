"""The doctor passes a sound model, and names what is wrong with a broken one, with its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from ase.build import bulk
from ase.io import write
from torch import Tensor
from typer.testing import CliRunner

from mlip.cli.doctor import doctor
from mlip.core.errors import MlipError, ModelFileError, StructureError
from mlip.models.convolution_network import ConvolutionNetwork
from mlip.models.model_file import save_model
from mlip.nn.derivatives import predict
from mlip.nn.layer_norm import EquivariantLayerNorm
from mlip.ops.envelope.polynomial import Polynomial
from mlip.testing.structures import molecule, standard_structures
from tests.components import SMALL, compose_model, random_model, small_facet

APP = typer.Typer()
APP.command()(doctor)
STRUCTURES = "mlip.testing.report.standard_structures"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("doctor") / "model.safetensors"
    # Three layers: with two, features of degree 1 and more never come back to the energy without an envelope.
    size = ("model.elements=[H,C]", "model.irreps_hidden=4x0e+4x1o", "model.lmax_edge=1", "model.num_layers=3")
    save_model(target, small_facet(*size).to(torch.float32), {})
    return target


@pytest.fixture
def only_a_molecule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the generated structures one, which is enough and quick."""
    monkeypatch.setattr(STRUCTURES, lambda elements, seed: {"molecule": molecule(elements, seed)})


def examine(*arguments: object, expect: int) -> dict[str, Any]:
    """Run the command and return its JSON report with the failed rows' names under ``failed``."""
    report = Path(arguments[0]).with_name("report.json")
    result = CliRunner().invoke(APP, [*map(str, arguments), "--json", str(report)], catch_exceptions=False)
    assert result.exit_code == expect, result.output
    found = json.loads(report.read_text(encoding="utf-8"))
    found["output"] = result.output
    found["failed"] = [row["name"] for row in found["checks"] if not row["passed"]]
    return found


def test_sound_model_passes(path: Path) -> None:
    report = examine(path, expect=0)
    assert report["passed"]
    assert not report["failed"]
    assert f"All {len(report['checks'])} checks passed" in report["output"]
    assert report["aliasing_by_grid"] == {}
    names = " ".join(row["name"] for row in report["checks"])
    promised = (
        *("rotation", "translation", "permutation", "supercell", "far copies", "forces = -dE/dr"),
        *("stress = dE/dε / V", "cutoff", "float32", "batch = single", "one atom", "slab", "molecule"),
    )
    assert all(word in names for word in promised)
    assert all(row["meaning"] and row["unit"] for row in report["checks"])


@pytest.mark.usefixtures("only_a_molecule")
def test_structure_of_the_user_is_examined(path: Path, tmp_path: Path) -> None:
    # Perfect: all forces vanish by symmetry, which must not turn rounding into an error.
    atoms = bulk("C", "diamond", a=3.57, cubic=True)
    write(tmp_path / "diamond.cif", atoms)
    report = examine(path, tmp_path / "diamond.cif", expect=0)
    assert sum("your structure" in row["name"] for row in report["checks"]) >= 10


ALIASING = ("model/activation=silu", "model.nonlinearity.resolution=[10,19]")


@pytest.mark.usefixtures("only_a_molecule")
def test_grids_are_compared_for_an_approximate_model(tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", random_model(compose_model("facet", *SMALL, *ALIASING)))
    result = CliRunner().invoke(APP, [str(tmp_path / "m.safetensors"), "--json", str(tmp_path / "r.json")])
    grids = json.loads((tmp_path / "r.json").read_text())["aliasing_by_grid"]
    assert list(grids) == ["6x11", "10x19", "16x30"]
    assert list(grids.values()) == sorted(grids.values(), reverse=True)
    assert "16x30" in result.output


def break_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The energy sees which way x points."""
    change_energy(monkeypatch, lambda graph, energies: 1e-3 * edge_sum(graph, 0) + energies)


def break_inversion(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pseudoscalar of the whole structure: invariant under rotations, odd under inversion."""

    def chiral(graph: Any, energies: Tensor) -> Tensor:
        positions = graph.positions
        a, b, c = (positions[(k + 1) % len(positions)] - positions[0] for k in range(3))
        return energies + 1e-2 * torch.dot(a, torch.linalg.cross(b, c)) * torch.ones_like(energies)

    change_energy(monkeypatch, chiral)


def break_translation(monkeypatch: pytest.MonkeyPatch) -> None:
    """An external field."""
    change_energy(monkeypatch, lambda graph, energies: energies + 1e-3 * graph.positions.sin().sum(dim=1))


def break_extensivity(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean over the atoms instead of the sum."""
    change_energy(monkeypatch, lambda graph, energies: energies / len(energies))


def break_permutation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Atoms have names."""
    change_energy(monkeypatch, lambda graph, energies: energies * torch.linspace(0.9, 1.1, len(energies)).double())


def break_sign_of_forces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlip.testing.evaluate.predict", changed_prediction("forces", lambda x: -x))


def break_forces_by_a_thousandth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlip.testing.evaluate.predict", changed_prediction("forces", lambda x: 1.001 * x))


def break_units_of_stress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlip.testing.evaluate.predict", changed_prediction("stress", lambda x: x * 160.2))


def break_cutoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """No envelope: neighbours appear all at once."""
    monkeypatch.setattr(Polynomial, "forward", lambda self, r: (r < self.cutoff).to(r.dtype))


def break_slope_at_cutoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """A linear envelope: the energy is continuous, the forces are not."""
    monkeypatch.setattr(Polynomial, "forward", lambda self, r: (1 - r / self.cutoff).clamp(min=0))


def break_layer_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny eps: continuous on paper, a step within a hundredth of an Å."""
    original = EquivariantLayerNorm.__init__

    def build(self: EquivariantLayerNorm, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **{**options, "eps": 1e-14})

    monkeypatch.setattr(EquivariantLayerNorm, "__init__", build)


def break_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model centres the caller's positions."""
    original = ConvolutionNetwork.forward

    def forward(self: ConvolutionNetwork, graph: Any) -> dict[str, Tensor]:
        graph.pbc.logical_not_().logical_not_()
        graph.cell_shifts.add_(0)
        graph.atomic_numbers.data = graph.atomic_numbers.data.flip(0)
        return original(self, graph)

    monkeypatch.setattr(ConvolutionNetwork, "forward", forward)


def break_finiteness(monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN for atoms without neighbours."""

    def nan_alone(graph: Any, energies: Tensor) -> Tensor:
        return energies if graph.edge_index.shape[1] else energies * float("nan")

    change_energy(monkeypatch, nan_alone)


def change_energy(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any, Tensor], Tensor]) -> None:
    """Plant a defect in the energies of the atoms."""
    original = ConvolutionNetwork.forward

    def forward(self: ConvolutionNetwork, graph: Any) -> dict[str, Tensor]:
        energies = change(graph, original(self, graph)["energies"])
        index = graph.get("batch")
        index = torch.zeros(len(energies), dtype=torch.long) if index is None else index
        total = torch.zeros(graph.cell.shape[0], dtype=torch.float64).index_add(0, index, energies)
        return {"energies": energies, "energy": total}

    monkeypatch.setattr(ConvolutionNetwork, "forward", forward)


def edge_sum(graph: Any, axis: int) -> Tensor:
    """Sum of the squared components of all edges, to their receivers; smooth enough."""
    senders, receivers = graph.edge_index
    index = graph.get("batch")
    index = torch.zeros(len(graph.positions), dtype=torch.long) if index is None else index
    shifts = torch.einsum("ea,eab->eb", graph.cell_shifts.double(), graph.cell[index[receivers]])
    vectors = graph.positions[senders] - graph.positions[receivers] + shifts
    return torch.zeros(len(graph.positions), dtype=torch.float64).index_add(0, receivers, vectors[:, axis] ** 2)


def changed_prediction(field: str, change: Callable[[Tensor], Tensor]) -> Callable[..., dict[str, Tensor]]:
    """Return a ``predict`` with one field changed."""

    def changed(*arguments: Any, **options: Any) -> dict[str, Tensor]:
        found = predict(*arguments, **options)
        return {name: change(value) if name == field else value for name, value in found.items()}

    return changed


@pytest.mark.parametrize(
    ("plant", "row"),
    [
        (break_rotation, "rotation and inversion: forces (molecule)"),
        (break_inversion, "rotation and inversion: forces (molecule)"),
        (break_translation, "translation (molecule)"),
        (break_extensivity, "far copies (molecule)"),
        (break_permutation, "permutation (molecule)"),
        (break_sign_of_forces, "forces = -dE/dr (molecule)"),
        (break_forces_by_a_thousandth, "forces = -dE/dr (slab)"),
        (break_units_of_stress, "stress = dE/dε / V (slab)"),
        (break_cutoff, "energy at the cutoff (pairs)"),
        (break_slope_at_cutoff, "forces at the cutoff (molecule)"),
        (break_layer_norm, "stiffness at the cutoff (pairs)"),
        (break_input, "input unchanged (molecule)"),
        (break_finiteness, "one atom, no edges"),
    ],
    ids=lambda value: getattr(value, "__name__", "row"),
)
def test_broken_model_fails_in_the_right_row(
    path: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None], row: str
) -> None:
    plant(monkeypatch)
    # One structure is enough to show it, and quick.
    kind = row.rpartition("(")[2].rstrip(")")
    few = {name: atoms for name, atoms in standard_structures(["H", "C"]).items() if name == kind}
    few = few or {"molecule": molecule(["H", "C"])}
    monkeypatch.setattr(STRUCTURES, lambda elements, seed: few)
    report = examine(path, expect=1)
    assert not report["passed"]
    assert row in report["failed"]
    assert "do not trust this model" in report["output"]


@pytest.mark.usefixtures("only_a_molecule")
def test_untrained_model_is_not_called_sound(tmp_path: Path) -> None:
    """Without any forces all errors are zero; that must not look like a pass."""
    model = random_model(compose_model("facet", *SMALL, "model.norm.initial_scale=0.0"), size=0.0)
    save_model(tmp_path / "m.safetensors", model)
    assert "a molecule without any force" in examine(tmp_path / "m.safetensors", expect=1)["failed"]


def test_bad_input_is_one_sentence(path: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(path.read_bytes()[:500])
    write(tmp_path / "gold.xyz", bulk("Au"), format="extxyz")
    cases: list[tuple[list[Path], type[MlipError], str]] = [
        ([tmp_path / "none.safetensors"], ModelFileError, "no model file"),
        ([tmp_path / "broken.safetensors"], ModelFileError, "truncated"),
        ([path, tmp_path / "none.xyz"], StructureError, "no structure file"),
        ([path, tmp_path / "gold.xyz"], StructureError, "contains Au"),
    ]
    for arguments, kind, words in cases:
        with pytest.raises(kind, match=words):
            CliRunner().invoke(APP, list(map(str, arguments)), catch_exceptions=False)


@pytest.mark.slow
def test_in_a_process_of_its_own(path: Path, tmp_path: Path) -> None:
    write(tmp_path / "molecule.xyz", molecule(["H", "C"], seed=5), format="extxyz")
    code = "import typer; from mlip.cli.doctor import doctor; typer.run(doctor)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(path), str(tmp_path / "molecule.xyz")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "checks passed" in done.stdout
    assert "FAIL" not in done.stdout
