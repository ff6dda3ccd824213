"""Charge, spin, magnetic moments and direct forces on the command line, from data to MD."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.calculator import PropertyNotImplementedError
from ase.io import read, write
from typer.testing import CliRunner

from mlip.calculators.ase import MLIPCalculator
from mlip.cli.main import app
from mlip.data.sample import Sample
from mlip.models.model_file import load_model
from tests.data.ase_files import row_of, write_aselmdb
from tests.training.setup import samples

pytestmark = pytest.mark.slow

SMALL = (
    "model.irreps_hidden=8x0e+4x1o", "model.num_layers=2", "model.lmax_edge=1", "model.nonlinearity.resolution=[4,7]",
    "model.norm.initial_scale=0.5", "cutoff=3.0", "max_epochs=8",
)  # fmt: skip

Call = Callable[..., str]


def ions() -> list[Sample]:
    """Molecules with a charge that shifts their energies by 2 eV, and the lowest multiplicity that fits."""
    found = samples(20, 0)
    for number, sample in enumerate(found):
        charge = number % 3 - 1
        electrons = int(sample.atoms.numbers.sum()) - charge
        sample.labels["energy"] = sample.labels["energy"] - 2.0 * charge
        sample.labels |= {"charge": np.array(charge), "spin": np.array(1 + electrons % 2)}
        sample.labels["magmoms"] = np.where(sample.atoms.numbers == 1, -0.5, 1.5)
    return found


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("MLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    frames = []
    for number, sample in enumerate(ions()):
        atoms = sample.atoms.copy()
        values = sample.labels
        atoms.info |= {
            "REF_energy": float(values["energy"]),
            "charge": int(values["charge"]),
            "spin": int(values["spin"]),
        }
        atoms.arrays |= {"REF_forces": values["forces"]}
        # Every second frame has magnetic moments.
        if number % 2:
            atoms.arrays["magmoms"] = values["magmoms"]
        frames.append(atoms)
    write("ions.xyz", frames, format="extxyz", columns=None)
    write("one.xyz", frames[1])
    del frames[1].info["charge"], frames[1].info["spin"]
    write("none.xyz", frames[1])
    for part, rows in (("train", ions()[:14]), ("val", ions()[14:])):
        write_aselmdb(Path(part) / "data0000.aselmdb", {k + 1: row_of(sample) for k, sample in enumerate(rows)})
        np.savez(Path(part) / "metadata.npz", natoms=np.array([len(sample.atoms) for sample in rows]))

    def run(*words: str, status: int = 0) -> str:
        result = CliRunner().invoke(app, words, env={"COLUMNS": "240"})
        assert result.exit_code == status, result.output
        return " ".join(result.output.split())

    return run


def test_omol25_with_charge_and_spin(call: Call, tmp_path: Path) -> None:
    """Train, evaluate, relax, MD and its restart, doctor: the state of a structure gets everywhere."""
    conditioned = ("model/conditioning=[charge,spin]", "data=omol25", "data.path=train", "data.valid_path=val")
    call("train", *conditioned, *SMALL, "name=q")
    model = load_model("runs/q/model.safetensors")
    assert dict(model.inputs) == {"charge": (-1, 0, 1), "spin": (1, 2)}
    assert model.config["conditioning"]["charge"]["values"] == [-1, 0, 1]
    file = "runs/q/model.safetensors"
    call("evaluate", file, "data=omol25", "data.path=val")
    written = read("evaluate_val/predictions.xyz", 0)
    assert MLIPCalculator(file).get_potential_energy(written) == pytest.approx(written.get_potential_energy(), abs=1e-4)
    assert "trained with the total charge" in call("relax", "none.xyz", "-m", file, status=1)
    assert "charge 0; this structure" not in call("relax", "one.xyz", "-m", file, "--steps", "2")
    assert "asked for with charge 1" in call("relax", "one.xyz", "-m", file, "--charge", "1", "--output", "x", status=1)
    assert not (tmp_path / "x").exists()
    common = ("none.xyz", "-m", file, "--output", "md")
    call("md", *common, "--charge", "-1", "--spin", "1", "--steps", "4")
    call("md", *common, "--restart", "--steps", "8")
    final = read("md/final.xyz")
    assert (final.info["charge"], final.info["spin"]) == (-1, 1)
    assert MLIPCalculator(file).get_potential_energy(final) == pytest.approx(final.get_potential_energy(), abs=1e-4)
    assert "and this structure has none" in call("doctor", file, "none.xyz", status=1)


def test_extxyz_with_charge_and_what_is_missing(call: Call) -> None:
    conditioned = (
        "model/conditioning=[charge]",
        "data.path=ions.xyz",
        *SMALL,
        "data.split.valid=0.3",
        "data.split.train=0.7",
    )
    text = call("train", *conditioned, "name=a", status=1)
    assert "The training data state no charge" in text
    assert not Path("runs/a").exists()
    labels = "data.dataset.labels=[energy,forces,charge,spin]"
    call("train", *conditioned, labels, "name=b")
    file = "runs/b/model.safetensors"
    assert "has no charge, which the model needs" in call("evaluate", file, "data=ions.xyz", status=1)
    call("evaluate", file, "data=extxyz", "data.path=ions.xyz", labels, "--output", "e")
    text = call("train", "data.path=ions.xyz", labels, f"finetune.model={file}", "max_epochs=1", "name=tuned")
    assert "Reference energies of the elements: " in text
    assert load_model("runs/tuned/model.safetensors").inputs == {"charge": (-1, 0, 1)}
    unknown = ("data.dataset.labels=[energy,forces,charge]", "statistics.charge=[0]")
    assert "trained with charge 0; this structure has" in call("train", *conditioned, *unknown, "name=c", status=1)


def test_magnetic_moments_of_some_structures(call: Call) -> None:
    head = ("model/head=[energy,magmoms]", "data.path=ions.xyz", *SMALL, "data.split.valid=0.3", "data.split.train=0.7")
    assert "predicts 'magmoms', which no loss trains" in call("train", *head, "name=a", status=1)
    call("train", *head, "loss=[energy,forces,magmoms]", "loss.magmoms.weight=100", "max_epochs=90", "name=b")
    text = call("evaluate", "runs/b/model.safetensors", "data=ions.xyz")
    assert "magmoms" in text
    assert "values have no label and were skipped" in text
    errors = json.loads(Path("evaluate_ions/metrics.json").read_text())["errors"]
    # The sizes are 0.5 for H and 1.5 for C, whose labels have other signs: the mean alone would leave 0.5.
    assert errors["magmoms_mae_muB"] < 0.2
    tuned = ("finetune.model=runs/b/model.safetensors", "data.path=ions.xyz", "max_epochs=1")
    assert "no loss trains 'magmoms', which this model predicts" in call("train", *tuned, "name=c")
    assert "no loss trains" not in call("train", *tuned, "loss=[energy,forces,magmoms]", "name=d")


def test_direct_forces_are_trained_and_doctored(call: Call) -> None:
    split = ("data=extxyz", "data.path=ions.xyz", "data.split.valid=0.3", "data.split.train=0.7")
    call("train", "model/head=[energy,direct_forces]", *split, *SMALL, "max_epochs=60", "name=d")
    file = "runs/d/model.safetensors"
    text = call("doctor", file, status=1)
    assert "a head of this model gives forces by itself" in text
    call("evaluate", file, *split, "--subset", "train", "--output", "e")
    errors = json.loads(Path("e/metrics.json").read_text())["errors"]
    scale = float(np.sqrt(np.mean(np.concatenate([s.labels["forces"] for s in ions()]) ** 2)))
    # Few weights read the vectors of one small layer: that they learn is what is shown.
    assert errors["forces_rmse_meV_per_A"] < 0.8e3 * scale
    with pytest.raises(PropertyNotImplementedError):
        MLIPCalculator(file).get_property("magmoms", read("one.xyz"))
