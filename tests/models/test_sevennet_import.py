"""SevenNet checkpoints: the numbers of the package itself, and files that are not what they claim."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.build import molecule as named_molecule
from ase.data import chemical_symbols
from ase.io import read

from mlip.calculators.ase import MLIPCalculator
from mlip.core.errors import ConfigError
from mlip.models.build import build_model
from mlip.models.foreign.published import PUBLISHED, read_published
from mlip.models.foreign.sevennet import read_sevennet
from mlip.models.header import read_header
from mlip.models.model_file import save_model
from tests.components import compose_model
from tests.models import sevennet_checkpoint as made

# Energy, forces on the first atom and stress (Voigt) of the two small structures, in float64, from sevenn 0.13.0
# with e3nn's 3j symbols in float64.
SMALL = {
    None: (
        (-31.03062882988542, [3.882670578824776, -1.9900586344262154, -2.643807999965779]),
        (-18.010275830861072, [-0.3707555398615661, -0.4246830067921977, -0.04566483944002126]),
        [
            0.4015002256906732,
            0.08166980738104213,
            0.38188904272829804,
            -0.3948649482404531,
            0.10696164884917844,
            -0.004728583870702055,
        ],
    ),
    "PBE": (
        (-4.439756257059946, [-0.021355560815614183, 0.020754903418789418, 0.04304521252834576]),
        (-3.0414389023668185, [0.023938334174050387, 0.027227921531234222, 0.0029277334979821747]),
        [
            -0.00215828301654823,
            -0.003259339792103998,
            -0.0041451200409669976,
            0.002791951139848167,
            -0.001461400554469051,
            -0.00028982599145802924,
        ],
    ),
    "R2SCAN": (
        (3.064926325886019, [-0.017561655768945143, 0.006704929260478779, 0.03893761203595009]),
        (2.523784162117707, [0.023371620471026356, 0.02685081056824903, 0.002887183932069788]),
        [
            -0.002138868781801087,
            -0.0023597589607884267,
            -0.003581657845982251,
            0.0025189620758033168,
            -0.0013715246484628679,
            -0.00029849357972192264,
        ],
    ),
}

# The same from the published potentials: a distorted NaCl crystal, and the energy and forces of methanol.
PUBLISHED_NUMBERS = {
    "sevennet-0": (
        (-26.9175558, [-0.2472389218, -0.1623398377, -0.0248573002]),
        (-29.95862788, [-0.1259639222, 0.097804606, -0.0084147641]),
        [-0.0025644563, -0.0023532344, 0.0055873786, 9.72655e-05, 2.40516e-05, 0.0010789638],
    ),
    "sevennet-0-22may2024": (
        (-26.90225151, [-0.2426558155, -0.1588178066, -0.0319674423]),
        (-30.09117452, [-0.2657757425, 0.5105807425, -0.001545317]),
        [-0.0025404506, -0.0023526145, 0.0053676826, 0.0001576743, 1.8534e-05, 0.0017302062],
    ),
    "sevennet-l3i5": (
        (-26.94258116, [-0.2491422334, -0.1600328012, -0.0216571016]),
        (-29.95771946, [-0.1747597696, 0.1844006605, -0.0028656077]),
        [-0.0025151476, -0.002278165, 0.0055364826, 9.14528e-05, 3.89978e-05, 0.0011714446],
    ),
    "sevennet-mf-0-pbe": (
        (-26.94122931, [-0.2491404743, -0.1664430148, -0.0194400543]),
        (-29.96543613, [-0.0580118195, 0.3745167514, 0.0041277812]),
        [-0.0026153978, -0.002393822, 0.0053753934, 0.0001053942, 3.39805e-05, 0.0012412877],
    ),
    "sevennet-mf-0-r2scan": (
        (-54.92990637, [-0.1907092102, -0.1307770914, -0.0157925632]),
        (-31.84232844, [-0.0225208918, -0.6799815575, 0.004430134]),
        [0.0059538071, 0.0061289172, 0.0123102297, 0.0001205238, -8.511e-07, 0.0011160339],
    ),
}


def compare(calculator: MLIPCalculator, structures: list[Atoms], numbers: Any, rel: float) -> None:
    """Compare a crystal and a molecule with stored numbers; ``rel`` of the energy, of the largest force and stress."""
    *values, stress = numbers
    for atoms, (energy, forces) in zip(structures, values, strict=True):
        atoms.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(energy, rel=rel)
        largest = np.abs(atoms.get_forces()).max()
        np.testing.assert_allclose(atoms.get_forces()[0], forces, rtol=0, atol=rel * largest)
    np.testing.assert_allclose(structures[0].get_stress(), stress, rtol=0, atol=rel * np.abs(stress).max())


@pytest.mark.parametrize("modality", SMALL)
def test_small_checkpoints(modality: str | None, tmp_path: Path) -> None:
    """Old and new names, orders, normalisations, signs of 3j symbols, levels of theory, biases, scales of elements."""
    path = made.write(tmp_path / "checkpoint.pth", made.OLD if modality is None else made.NEW)
    model = read_sevennet(path, modality, dtype=torch.float64)
    compare(MLIPCalculator(model), made.structures(), SMALL[modality], rel=1e-9)
    single = read_sevennet(path, modality)
    assert single.dtype == torch.float32
    compare(MLIPCalculator(single), made.structures(), SMALL[modality], rel=1e-5)


def test_a_written_file_is_the_same_model(tmp_path: Path) -> None:
    model = read_sevennet(made.write(tmp_path / "checkpoint.pth", made.OLD))
    save_model(tmp_path / "model.safetensors", model)
    compare(MLIPCalculator(tmp_path / "model.safetensors"), made.structures(), SMALL[None], rel=1e-5)


def test_parameters_that_count() -> None:
    """SevenNet-0 as published: 842,440 with 89 elements; fixed scales and shifts of the elements are none."""
    config = compose_model("sevennet")
    # The elements of MPtrj: all up to Pu, but Po, At, Rn, Fr, Ra.
    known = [symbol for symbol in chemical_symbols[1:95] if symbol not in ("Po", "At", "Rn", "Fr", "Ra")]
    config["elements"] = known
    config["head"]["energy_fixed"]["atomic_energies"] = dict.fromkeys(known, 0.0)
    assert len(known) == 89
    assert build_model(config).num_parameters == 842_440


@pytest.mark.parametrize(("name", "word"), [("so2", "SO2"), ("gaunt_so2", "GauntSO2")])
def test_solid_harmonics_need_a_product_that_takes_them(name: str, word: str) -> None:
    config = compose_model("facet", f"model/tensor_product={name}", "+model.solid_harmonics=true")
    with pytest.raises(ConfigError, match=f"^{word} reads .*take model/tensor_product=clebsch_gordan_dense"):
        build_model(config)


@pytest.fixture(scope="module")
def sevennet_package() -> Path:
    """The folder of the sevenn package: MLIP_SEVENNET, or where it is installed."""
    spec = find_spec("sevenn")
    found = os.environ.get("MLIP_SEVENNET") or (spec.submodule_search_locations[0] if spec else None)
    if not found or not Path(found, PUBLISHED["sevennet-0"].file).is_file():
        pytest.skip("no sevenn package; set MLIP_SEVENNET to its folder")
    return Path(found)


@pytest.mark.reference
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_potentials(name: str, sevennet_package: Path, tmp_path: Path) -> None:
    model, card = read_published(name, sevennet_package / PUBLISHED[name].file)
    save_model(tmp_path / "model.safetensors", model, card)
    counted = {"sevennet-0": 842_440, "sevennet-0-22may2024": 842_440, "sevennet-l3i5": 1_171_144}
    assert model.num_parameters == counted.get(name, 844_104)
    assert read_header(tmp_path / "model.safetensors")["metadata"]["provenance"]["sha256"] == PUBLISHED[name].sha256
    crystal = bulk("NaCl", "rocksalt", a=5.7, cubic=True)
    crystal.positions += 0.1 * np.cos(np.arange(24)).reshape(8, 3)
    crystal.set_cell(crystal.cell.array * [1, 1, 1.02], scale_atoms=False)
    structures = [crystal, named_molecule("CH3OH")]
    compare(MLIPCalculator(tmp_path / "model.safetensors"), structures, PUBLISHED_NUMBERS[name], rel=1e-5)
    exact = read_sevennet(sevennet_package / PUBLISHED[name].file, PUBLISHED[name].modality, torch.float64)
    compare(MLIPCalculator(exact), structures, PUBLISHED_NUMBERS[name], rel=1e-7)


@pytest.mark.slow
@pytest.mark.reference
def test_errors_on_mptrj(sevennet_package: Path, reference_data: Path) -> None:
    """Mean absolute errors of the package's own calculator on 695 frames, float32."""
    model, _ = read_published("sevennet-0", sevennet_package / PUBLISHED["sevennet-0"].file)
    calculator = MLIPCalculator(model)
    energy, forces, stress = [], [], []
    for atoms in read(reference_data / "mptrj" / "mptrj-random-sharedpart.xyz", ":"):
        labels, atoms.calc = atoms.calc, calculator
        stress.append(np.abs(atoms.get_stress() - labels.results["stress"]))
        forces.append(np.abs(atoms.get_forces() - labels.results["forces"]))
        energy.append(abs(atoms.get_potential_energy() - labels.results["energy"]) / len(atoms))
    assert len(energy) == 695
    assert 1e3 * np.mean(energy) == pytest.approx(10.67498, abs=2e-4)  # meV/atom
    assert 1e3 * np.concatenate(forces).mean() == pytest.approx(41.0258, abs=2e-3)  # meV/Å
    assert np.mean(stress) * 160.21766 == pytest.approx(0.287025, abs=2e-6)  # GPa
