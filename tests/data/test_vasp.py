"""VASP's results against ASE's own readers and numbers known by hand; unconverged, killed and hostile files."""

import bz2
import gzip
import lzma
import pickle

import numpy as np
import pytest
from ase.io import read

from mlip.core.errors import ConfigError, DataError
from mlip.data.datasets.vasp import VaspDataset
from tests.data.vasp_files import Step, outcar, vasprun

EV_PER_KB = 1 / 1602.1766208
RELAXATION = [
    Step(),
    Step(
        free=-11.5,
        sigma0=-11.0,
        cell=[[4.25, 0, 0], [-0.5, 4, 0], [0, -0.25, 5]],
        fractional=[[0.125, 0, 0], [0.5, 0.25, -0.625]],
        forces=[[-123.25, -234.5, 3], [1, 2, -300.5]],
        stress=[[-12345.25, 1, -2000.5], [1, -12345.5, 3.25], [-2000.5, 3.25, -12345.75]],
    ),
]


def opened(path, energy="sigma0", **options) -> VaspDataset:
    return VaspDataset(path, energy, **options)


def errors_of(data: VaspDataset) -> list[str]:
    return [str(item) for chunk in data.chunks() for item in data.read(chunk) if isinstance(item, DataError)]


@pytest.mark.parametrize("pstress", [0.0, 50.0])
@pytest.mark.parametrize("name", ["vasprun.xml", "OUTCAR"])
@pytest.mark.parametrize(("energy", "key"), [("sigma0", "energy"), ("free", "free_energy")])
def test_as_ase_reads_it(file, name, energy, key, pstress):
    RELAXATION[1].magmoms = [1.25, -0.5]
    text = vasprun(RELAXATION, fixed=[True, False], pstress=pstress) if name.endswith("xml") else outcar(RELAXATION)
    path = file(text, name)
    data = opened(path, energy, max_force=1e4)
    frames = read(path, ":")
    assert len(data) == len(frames) == 2
    for sample, frame in zip(data, frames):
        results = frame.calc.results
        assert np.array_equal(sample.atoms.numbers, frame.numbers)
        assert sample.atoms.pbc.all()
        np.testing.assert_allclose(sample.atoms.positions, frame.positions, atol=1e-9)
        np.testing.assert_allclose(sample.atoms.cell.array, frame.cell.array, atol=1e-9)
        np.testing.assert_allclose(float(sample.labels["energy"]), results[key], atol=1e-9)
        assert np.array_equal(sample.labels["forces"], results["forces"])
        np.testing.assert_allclose(sample.labels["stress"], frame.get_stress(voigt=False), rtol=1e-14)
        if "magmoms" in results:
            assert np.array_equal(sample.labels["magmoms"], results["magmoms"])


def test_known_numbers(file):
    """Energies without pressure times volume; a compressed crystal has a negative stress in ASE's sign."""
    for path in (file(vasprun(RELAXATION, pstress=20.0), "vasprun.xml"), file(outcar(RELAXATION), "OUTCAR")):
        for energy, expected in (("sigma0", (-10.25, -11.0)), ("free", (-10.5, -11.5))):
            found = [float(sample.labels["energy"]) for sample in opened(path, energy, max_force=1e4)]
            assert found == pytest.approx(expected, abs=1e-6)
        stress = opened(path, max_force=1e4)[0].labels["stress"]
        np.testing.assert_allclose(stress, -EV_PER_KB * np.array([[10, 1, 3], [1, 20, 2], [3, 2, 30]]), rtol=1e-7)
        positions = opened(path, max_force=1e4)[0].atoms.positions
        np.testing.assert_allclose(positions[1], [0.5 * 4 + 0.25 * 0.5, 0.25 * 4 + 0.5 * 0.25, 2.5], atol=1e-12)


def test_the_choice_of_energy_has_no_default():
    with pytest.raises(TypeError):
        VaspDataset("x")  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"energy must be one of sigma0, free, got 'sigma'\. Did you mean 'sigma0'"):
        opened("x", "sigma")
    with pytest.raises(ConfigError, match="steps must be one of all, last"):
        opened("x", steps="first")


def test_steps(file):
    path = file(vasprun(RELAXATION), "vasprun.xml")
    (last,) = opened(path, steps="last", max_force=1e4)
    assert float(last.labels["energy"]) == -11.0
    assert last.source == f"{path}:1"
    assert last.info["group"] == str(path.parent)


@pytest.mark.parametrize("name", ["vasprun.xml", "OUTCAR"])
def test_unconverged_steps(file, name):
    steps = [Step(), Step(scf=60, converged=False), Step(scf=5)]
    path = file(vasprun(steps) if name.endswith("xml") else outcar(steps), name)
    (message,) = errors_of(opened(path))
    assert f"{name}:1: the electrons are not converged after 60 steps" in message
    skipping = opened(path, unconverged="skip")
    assert [sample.source for sample in skipping] == [f"{path}:0", f"{path}:2"]
    assert skipping.num_skipped == 1
    kept = opened(path, unconverged="keep")
    assert [sample.info.get("converged") for sample in kept] == [None, False, None]


def test_a_file_that_does_not_say_whether_it_converged(file):
    path = file(vasprun([Step()], nelm=""), "vasprun.xml")
    assert "may not be converged: the file does not say" in errors_of(opened(path))[0]


@pytest.mark.parametrize("name", ["vasprun.xml", "OUTCAR"])
def test_killed_runs(file, name):
    whole = vasprun(RELAXATION[:1] * 3) if name.endswith("xml") else outcar(RELAXATION[:1] * 3)
    expected = float(RELAXATION[0].sigma0)
    end = whole.index("</modeling>" if name.endswith("xml") else " General timing")
    for place in np.linspace(1, end, 60).astype(int):
        path = file(whole[:place], name)
        (message,) = errors_of(opened(path))
        assert "is incomplete: the run was killed" in message
        kept = opened(path, incomplete="keep")
        items = [item for chunk in kept.chunks() for item in kept.read(chunk)]
        samples = [item for item in items if not isinstance(item, DataError)]
        assert len(samples) <= 3
        for sample in samples:
            assert float(sample.labels["energy"]) == expected
            assert np.array_equal(sample.labels["forces"], RELAXATION[0].forces)
    assert len(samples) == 3, "the last cut is behind the last step"


def test_trees_of_calculations(tmp_path):
    for name, content in {
        "b/vasprun.xml.relax2.gz": gzip.compress(vasprun([Step(sigma0=-1.0)]).encode()),  # As custodian names it.
        "b/OUTCAR": outcar([Step(sigma0=-1.0)]),
        "a/run 1/OUTCAR": outcar([Step(sigma0=-2.0)]),
        "a/run 2/vasprun.relax1.xml.gz": gzip.compress(vasprun([Step(sigma0=-3.0)]).encode()),
        "a/run 2/vasprun.relax2.xml.xz": lzma.compress(vasprun([Step(sigma0=-4.0)]).encode()),
        "a/run 2/vasprun.relax2.xml": vasprun([Step(sigma0=-4.0)]),
        "c/OUTCAR.bz2": bz2.compress(outcar([Step(sigma0=-5.0)]).encode()),
        "c/OUTCAR.bak": "old",
        "c/POSCAR": "x",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    data = opened(tmp_path)
    assert [float(sample.labels["energy"]) for sample in data] == pytest.approx([-2, -3, -4, -1, -5])
    assert data.groups() == [str(tmp_path / name) for name in ("a/run 1", "a/run 2", "a/run 2", "b", "c")]
    assert [float(sample.labels["energy"]) for sample in opened(tmp_path, files="outcar")] == pytest.approx(
        [-2, -1, -5]
    )
    assert len(opened(str(tmp_path / "a" / "run *"))) == 3
    assert len(opened([tmp_path / "b", tmp_path / "c" / "OUTCAR.bz2"])) == 2
    assert len(pickle.loads(pickle.dumps(data))) == 5
    assert VaspDataset.recognise(tmp_path).certainty == 3
    assert VaspDataset.recognise(tmp_path / "c" / "OUTCAR.bz2").certainty == 3
    assert VaspDataset.recognise(tmp_path / "c" / "POSCAR") is None
    (tmp_path / "d").mkdir()
    with pytest.raises(DataError, match=r"No vasprun\.xml or OUTCAR in"):
        opened(tmp_path / "d")
    with pytest.raises(DataError, match="repeated"):
        opened([tmp_path / "b" / "OUTCAR", tmp_path / "b" / "OUTCAR"])


BOMB = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>\n'


@pytest.mark.parametrize("head", [BOMB, '<!DOCTYPE x SYSTEM "file:///etc/passwd">\n'])
@pytest.mark.parametrize("incomplete", ["error", "keep"])
def test_document_types_are_refused(file, head, incomplete):
    (message, *_) = errors_of(opened(file(vasprun([Step()], head=head), "vasprun.xml"), incomplete=incomplete))
    assert "declares a document type" in message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.12500000 -0.25000000 0.50000000", "******** -0.25000000 0.50000000", "forces: numbers were expected"),
        ("0.12500000 -0.25000000 0.50000000", "-0.25000000 0.50000000", "forces must have 2 rows of 3 numbers, got 5"),
        ("0.12500000 -0.25000000 0.50000000", "nan 0.0 0.0", "not finite"),
        ("0.12500000 -0.25000000 0.50000000", "2000.0 0.0 0.0", "above max_force"),
        ('"e_0_energy"', '"e_none"', "has no e_0_energy"),
        ("<c>Si</c>", "<c>Qq</c>", "'Qq' is no chemical element"),
        ("scstep", "mlstep", "no electronic steps: it is not from DFT"),
        ("</calculation>", "</calc>", "no whole vasprun.xml"),
        ("calculation>", "calculus>", "no whole ionic step"),
        ("ISO-8859-1", "ISO-88w9-1", "no whole vasprun.xml"),
        ("ISO-8859-1", "UTF-7", "no whole vasprun.xml"),
    ],
)
def test_damaged_vasprun(file, old, new, message):
    text = vasprun([Step()])
    assert old in text
    messages = errors_of(opened(file(text.replace(old, new), "vasprun.xml")))
    assert message in messages[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("-0.250000000  0.500000000", "************  0.500000000", "positions and forces: numbers were expected"),
        ("TOTEN  =       -10.50000000", "TOTEN  =    ********", "numbers were expected"),
        ("ions per type =            1 1", "ions per type =            1", "2 potentials and 1 counts"),
        ("TITEL  = PAW_PBE Si_pv", "TITEL  = PAW_PBE 7i_pv", "no element in the name of the potential"),
        ("-- Iteration", "-- Nothing", "no electronic steps"),
        ("direct lattice vectors", "direct vectors", "has no cell"),
        ("in kB     10.00000", "in kB     ********", "stress: numbers were expected"),
        ("FREE ENERGIE", "FREE LUNCH", "no whole ionic step"),
    ],
)
def test_damaged_outcar(file, old, new, message):
    text = outcar([Step()])
    assert old in text
    assert message in errors_of(opened(file(text.replace(old, new), "OUTCAR")))[0]


def test_numbers_of_one_step_are_not_taken_for_the_next(file):
    """A step without magnetic moments has none, whatever stood in the step before."""
    path = file(outcar([Step(magmoms=[1.0, 2.0]), Step()]), "OUTCAR")
    assert ["magmoms" in sample.labels for sample in opened(path)] == [True, False]
    without = outcar([Step(), Step(free=-9.0)])
    place = without.rindex("  in kB ")
    path = file(without[:place] + without[without.index("\n", place) + 1 :], "OUTCAR")
    assert ["stress" in sample.labels for sample in opened(path)] == [True, False]
