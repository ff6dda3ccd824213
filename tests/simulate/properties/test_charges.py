"""Charge and multiplicity of what is put together or repeated: added up, or refused."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from typer.testing import CliRunner

from mlip.calculators import committee
from mlip.calculators.ase import MLIPCalculator
from mlip.cli.main import app
from mlip.core.errors import SimulationError
from mlip.simulate.properties.adsorption import adsorption_energies
from mlip.simulate.properties.phonons import phonons
from mlip.simulate.properties.surfaces import surface_energies
from mlip.simulate.properties.vacancies import vacancies
from tests.simulate.pair_model import PairModel


class Charged(PairModel):
    """Reads charge and multiplicity: a charge costs 3 eV, an unpaired electron 0.1 eV."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = {"charge": [-2, -1, 0, 1, 2], "spin": [1, 2, 3, 4]}
        self.use_kernels("off")

    def forward(self, graph):
        found = super().forward(graph)
        return found | {"energy": found["energy"] + 3 * graph.charge + 0.1 * (graph.spin - 1)}


def slab(**info: int) -> Atoms:
    atoms = fcc111("Cu", (2, 2, 1), a=3.41, vacuum=8, periodic=True)
    atoms.info = info
    return atoms


def molecule(**info: int) -> Atoms:
    return Atoms("H", info=info, magmoms=[1.0], tags=[4])


def adsorbed(slab_atoms: Atoms, guest: Atoms, **options):
    return adsorption_energies(slab_atoms, guest, MLIPCalculator(Charged()), [(0, 0)], max_steps=1, **options)


def test_charges_add_up_and_a_single_open_shell_stays() -> None:
    result = adsorbed(slab(charge=1, spin=1), molecule(charge=-2, spin=2))
    assert result.structures[0].info["charge"] == -1
    assert result.structures[0].info["spin"] == 2
    neutral = adsorbed(slab(charge=0, spin=1), molecule(charge=0, spin=1))
    # Charges are linear here, and the unpaired electron is on both sides.
    assert result.energies[0] == pytest.approx(neutral.energies[0], abs=1e-7)
    assert result.energy_molecule == pytest.approx(neutral.energy_molecule - 6 + 0.1, abs=1e-7)
    assert result.energy_slab == pytest.approx(neutral.energy_slab + 3, abs=1e-7)
    (both,) = result.structures
    assert both.get_tags().tolist() == [1, 1, 1, 1, 0]
    assert both.get_initial_magnetic_moments().tolist() == [0, 0, 0, 0, 1]


def test_two_open_shells_need_a_word() -> None:
    parts = slab(charge=0, spin=2), molecule(charge=0, spin=2)
    with pytest.raises(SimulationError, match=r"Slab \(spin 2\) and molecule \(spin 2\) have open shells"):
        adsorbed(*parts)
    for spin in (1, 3):
        assert adsorbed(*parts, spin=spin).structures[0].info["spin"] == spin


def test_nothing_stated_nothing_added() -> None:
    result = adsorption_energies(slab(), molecule(), EMT(), [(0, 0)], max_steps=1)
    assert not {"charge", "spin"} & result.structures[0].info.keys()


def test_a_charge_for_all_is_refused() -> None:
    calculator = MLIPCalculator(Charged(), charge=1, spin=1)
    with pytest.raises(SimulationError, match="cannot both have the charge 1"):
        adsorption_energies(slab(), molecule(), calculator, [(0, 0)])
    with pytest.raises(SimulationError, match=r"says charge 0\.5"):
        adsorbed(slab(charge=0.5, spin=1), molecule(charge=0, spin=1))


class TestCommand:
    @pytest.fixture(autouse=True)
    def here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("m").touch()
        slab().write("slab.xyz")
        molecule().write("h.xyz", columns=["symbols", "positions"])

    def call(self, *words: str) -> tuple[int, str]:
        files = ["defects", "adsorption", "slab.xyz", "h.xyz", "--model", "m", "--output", "out"]
        result = CliRunner().invoke(app, [*files, "--at", "0,0", "--steps", "1", "--overwrite", *words])
        return result.exit_code, " ".join(result.output.split())

    def test_each_gets_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(committee, "load_model", lambda path, device, dtype: Charged())
        status, output = self.call("--charge", "1", "-1", "--spin", "2", "2", "1")
        assert status == 0, output
        text = Path("out/adsorption.xyz").read_text()
        assert "charge=0" in text
        assert "spin=1" in text
        Path("h.xyz").write_text("1\nProperties=species:S:1:pos:R:3 charge=0 spin=2\nH 0 0 0\n")
        status, output = self.call("--charge", "1", "-1", "--spin", "2", "2", "1")
        assert status == 1
        assert "H says charge 0 in its file, and --charge -1: give one of them." in output

    def test_a_model_that_does_not_read_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(committee, "load_model", lambda path, device, dtype: PairModel())
        status, output = self.call("--charge", "1", "-1")
        assert status == 1
        assert "does not read the charge" in output


@pytest.mark.parametrize("compute", [vacancies, phonons, lambda *both: surface_energies(*both, [(1, 1, 1)])])
@pytest.mark.parametrize(
    ("info", "given", "match"),
    [
        ({"charge": 1, "spin": 2}, {}, "neutral crystals only; this one has charge 1"),
        ({"spin": 3}, {}, r"closed-shell \(spin 1\) crystals only; this one has spin 3"),
        ({}, {"charge": -1, "spin": 2}, "this one has charge -1"),
    ],
)
def test_what_is_repeated_is_neutral(compute, info, given, match: str) -> None:
    if compute is phonons:
        pytest.importorskip("phonopy")
        pytest.importorskip("seekpath")
    crystal = bulk("Cu", a=3.41)
    crystal.info = info
    with pytest.raises(SimulationError, match=match):
        compute(crystal, MLIPCalculator(Charged(), **given))


def test_neutral_crystals_are_computed_and_odd_holes_refused() -> None:
    crystal = bulk("Cu", a=3.41)
    crystal.info = {"charge": np.int64(0), "spin": 1}
    with pytest.raises(SimulationError, match="Cu7 with its vacancy has an odd number of electrons"):
        vacancies(crystal, MLIPCalculator(Charged()), supercell=(2, 2, 2), relax_first=True)
    result = vacancies(crystal, MLIPCalculator(Charged()), supercell=(3, 3, 3), relax_first=True, fmax=0.1)
    assert len(result.vacancies[0].structure) == 26
