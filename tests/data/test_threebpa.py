"""3BPA as published, and the shipped data configurations."""

from pathlib import Path

import numpy as np
import pytest

from mlip.core.build import locate
from mlip.core.errors import DataError
from mlip.data.datasets.base import Dataset
from mlip.data.datasets.threebpa import ThreeBPADataset
from mlip.data.leakage import check_duplicates
from mlip.data.loading import GraphDataset
from mlip.data.splits import split_indices
from mlip.data.statistics import compute_statistics

ISOLATED = "".join(
    f'1\nProperties=species:S:1:pos:R:3 energy={e} pbc="F F F"\n{s} 0 0 0\n' for s, e in [("H", -13), ("O", -2000)]
)
FRAME = (
    '2\nLattice="50 0 0 0 50 0 0 0 50" Properties=species:S:1:pos:R:3:forces:R:3 energy=-2014.5 pbc="F F F"\n'
    "H 0 0 0 0.5 0 0\nO 0.9 0 0 -0.5 0 0\n"
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "iso_atoms.xyz").write_text(ISOLATED)
    (tmp_path / "train_300K.xyz").write_text(FRAME * 2)
    return tmp_path


def test_subset_and_isolated_atoms(folder):
    data = ThreeBPADataset(folder)
    assert isinstance(data, Dataset)
    assert len(data) == 2
    assert data.isolated_atom_energies() == {"H": -13.0, "O": -2000.0}
    assert not data[0].atoms.pbc.any()
    assert "1021/acs.jctc" in data.citation
    assert "MIT" in data.licence


def test_the_folder_is_recognised(folder):
    assert ThreeBPADataset.recognise(folder).certainty == 3
    assert ThreeBPADataset.recognise(folder / "train_300K.xyz") is None
    (folder / "iso_atoms.xyz").unlink()
    assert ThreeBPADataset.recognise(folder) is None


def test_bad_folders_are_refused(folder, tmp_path):
    with pytest.raises(DataError, match=r"no subset 'train_300'\. Did you mean 'train_300K'\?"):
        ThreeBPADataset(folder, "train_300")
    with pytest.raises(DataError, match=r"Set data\.path"):
        ThreeBPADataset(folder / "nowhere")
    (folder / "iso_atoms.xyz").unlink()
    with pytest.raises(DataError, match=r"lacks iso_atoms\.xyz"):
        ThreeBPADataset(folder)


@pytest.mark.reference
def test_published_files(reference_data):
    folder = reference_data / "3bpa"
    if not folder.is_dir():
        pytest.skip(f"no 3BPA in {reference_data}")
    cold, mixed = ThreeBPADataset(folder), ThreeBPADataset(folder, "train_mixedT")
    assert len(cold) == len(mixed) == 500
    energies = [float(sample.labels["energy"]) for sample in cold]
    assert min(energies) == pytest.approx(-17660.81, abs=0.006)
    assert max(energies) == pytest.approx(-17659.77, abs=0.006)
    assert max(np.linalg.norm(s.labels["forces"], axis=1).max() for s in mixed) == pytest.approx(10.85, abs=1.5)
    assert check_duplicates({"cold": list(cold), "mixed": list(mixed)}, allow=True) == 31
    split = split_indices(len(cold), 450, 50)
    check_duplicates({name: [cold[index] for index in part] for name, part in split.items()})
    training = [cold[index] for index in split["train"]]
    statistics = compute_statistics(training[:50], 5.0, cold.isolated_atom_energies())
    assert statistics["elements"] == ["H", "C", "N", "O"]
    assert -10 < statistics["energy_per_atom_mean"] < -2, "bound against its isolated atoms"
    assert sum(GraphDataset(training[:50], 5.0).num_edges) == statistics["num_edges"]


@pytest.mark.parametrize("name", ["extxyz", "3bpa"])
def test_shipped_configurations_name_real_options(name, folder):
    omegaconf = pytest.importorskip("omegaconf")
    root = Path(__file__).resolve().parents[2] / "configs" / "data"
    config = omegaconf.OmegaConf.create({"data": omegaconf.OmegaConf.load(root / f"{name}.yaml")})
    config.data.path = str(folder if name == "3bpa" else folder / "train_300K.xyz")
    options = omegaconf.OmegaConf.to_container(config, resolve=True)["data"]
    dataset = options["dataset"]
    built = locate(dataset.pop("_target_"))(**dataset)
    assert len(built) == 2
    assert set(options["split"]) - {"by"} == {"train", "valid", "test", "seed", "allow_duplicates"}
