"""The pass over the data: what it keeps, how it samples, and what it does with damage."""

import json

import numpy as np
import pytest
from ase import Atoms

from mlip.core.errors import ConfigError, DataError
from mlip.data.checks.base import Settings
from mlip.data.checks.frame import Frame
from mlip.data.checks.geometry_index import GeometryIndex
from mlip.data.checks.plots import plot_check, plot_overview
from mlip.data.checks.residuals import robust_fit
from mlip.data.checks.run import all_checks, read_some, run_checks
from mlip.data.checks.table import FrameTable
from mlip.data.datasets.base import Chunk, Dataset
from mlip.data.datasets.extxyz import ExtxyzDataset
from mlip.data.sample import Sample
from mlip.data.subset import SampleList
from tests.data.checks.generated import check_frames, crystals, found, molecules


def sample(k, energy=-1.0, source=None, **labels):
    atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.7 + 1e-5 * k]])
    return Sample(atoms, {"energy": np.array(energy), **labels}, {"source": source or f"some file.xyz:{k}"})


class Chunked(Dataset):
    """Chunks of ten samples, of which some are damaged."""

    provides, units, licence, citation = ("energy",), {}, "CC0", "none"

    def __init__(self, number, damaged=(), broken_chunk=None):
        self._number, self._damaged, self._broken = number, damaged, broken_chunk

    def __len__(self):
        return self._number

    def __getitem__(self, index):
        if index in self._damaged:
            raise DataError(f"sample {index} is damaged")
        return sample(index)

    def chunks(self):
        for start in range(0, self._number, 10):
            yield Chunk(str(start), (start, min(start + 10, self._number)), min(10, self._number - start))

    def read(self, chunk):
        for item in super().read(chunk):
            yield item
            if chunk.key == self._broken:
                raise DataError("the file ends here")


def test_every_check_is_found_by_its_file():
    checks = all_checks()
    assert len(checks) >= 18
    assert {"stress sign", "duplicates", "leakage", "zero forces", "reference energies", "matrices"} <= set(checks)
    assert all(kind.__doc__ and name == kind.name for name, kind in checks.items())


def test_a_check_can_be_left_out_by_name(tmp_path):
    frames = crystals(10)
    check_frames(tmp_path, [*frames, frames[0]])
    dataset = ExtxyzDataset(tmp_path / "data.xyz", optional_labels=["stress"])
    settings = Settings()
    assert found(run_checks([dataset], settings), "duplicates")
    assert run_checks([dataset], settings, skip=["duplicates"]).findings == []
    with pytest.raises(ConfigError, match="Did you mean 'duplicates'"):
        run_checks([dataset], settings, skip=["duplicate"])


def test_damaged_samples_are_counted_and_the_rest_is_read():
    report = run_checks([Chunked(35, damaged=(3, 17), broken_chunk="20")], Settings())
    finding = found(report, "reading")
    assert finding.count == report.num_broken == 3
    assert "3 of 27 structures cannot be read: sample 3 is damaged" in finding.message
    assert finding.examples[-1] == "the file ends here"
    assert report.overview.num_structures == 24


def test_a_limit_is_spread_over_the_chunks():
    items = [item for _, item in read_some(Chunked(1000), 32)]
    numbers = sorted(int(item.source.rpartition(":")[2]) for item in items)
    assert 32 <= len(numbers) <= 64
    assert numbers[0] == 0
    assert numbers[-1] > 900
    assert len([item for _, item in read_some(Chunked(1000))]) == 1000
    assert len([item for _, item in read_some(Chunked(12), 500)]) == 12


def test_progress_goes_up_to_one():
    seen = []
    run_checks(
        [Chunked(95), None, Chunked(15)], Settings(), progress=lambda share, number: seen.append((share, number))
    )
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert 0 <= shares[0] < 0.05
    assert 0.9 < shares[-1] <= 1
    assert [number for _, number in seen] == list(range(110))


def test_rows_beyond_the_bound_are_a_random_part_of_all():
    table = FrameTable(max_rows=1000)
    for k in range(5000):
        table.add(Frame(sample(k, energy=-float(k)), 0, k, 5.0))
    assert 300 < len(table) <= 1000
    assert table.num_seen == 5000
    numbers = table["number"]
    np.testing.assert_array_equal(table["energy"], -numbers.astype(float))
    assert abs(numbers.mean() - 2500) < 250
    assert table.source(7) == f"some file.xyz:{numbers[7]}"
    assert table.name(0, int(numbers[9])) == f"some file.xyz:{numbers[9]}"


@pytest.mark.parametrize(
    "source", ["a:0", "a:12", "a:007", "mp-1-0-5", "no number", "ünï:3", "7", "x:12345678901234567890"]
)
def test_sources_come_back_as_they_were(source):
    table = FrameTable()
    table.add(Frame(sample(0, source=source), 0, 0, 5.0))
    assert table.source(0) == source


def test_copies_are_found_beyond_the_bound():
    index = GeometryIndex(max_entries=1000)
    for k in range(6000):
        index.add(Frame(sample(k % 3000), 0, k, 5.0))
    assert index.share < 0.5
    repeated = index.repeated()
    assert abs(len(repeated) - 3000 * index.share) < 5 * np.sqrt(3000 * index.share)
    assert all(len(run) == 2 and run["number"][1] == run["number"][0] + 3000 for run in repeated)


def test_charge_and_spin_make_another_system():
    def frame(**labels):
        return Frame(sample(0, **{name: np.array(value) for name, value in labels.items()}), 0, 0, 5.0)

    hashes = [frame(), frame(charge=0, spin=1), frame(charge=1, spin=2), frame(charge=0, spin=3)]
    assert len({f.geometry for f in hashes}) == 4
    assert frame(charge=0, spin=1).geometry == hashes[1].geometry


def test_robust_fit_ignores_a_fifth_of_wrong_values():
    rng = np.random.default_rng(0)
    matrix = rng.dirichlet(np.ones(4), size=500)
    right = np.array([-3.0, -1000.0, -7.0, -2.0])
    target = matrix @ right + 0.02 * rng.normal(size=500)
    target[:100] /= 27.2
    np.testing.assert_allclose(robust_fit(matrix, target), right, atol=0.05)
    assert np.abs(np.linalg.lstsq(matrix, target, rcond=None)[0] - right).max() > 10


def test_report_is_json_with_the_largest_values(tmp_path):
    frames = crystals()
    report = check_frames(tmp_path, frames)
    content = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    norms = [np.linalg.norm(atoms.calc.results["forces"], axis=1).max() for atoms in frames]
    worst = content["outliers"]["largest force"][0]
    assert worst["value"] == pytest.approx(max(norms), rel=1e-6)
    assert worst["typical"] == pytest.approx(np.median(norms), rel=1e-6)
    assert worst["source"].endswith(f"data.xyz:{int(np.argmax(norms))}")
    stress = max(np.abs(atoms.calc.results["stress"]).max() for atoms in frames)
    assert content["outliers"]["largest stress component"][0]["value"] == pytest.approx(stress, rel=1e-6)
    data = content["data"]
    assert data["atoms"] == 120
    assert data["elements"]["Au"]["atoms"] == sum((atoms.numbers == 79).sum() for atoms in frames)
    low = min(atoms.calc.results["energy"] / 4 for atoms in frames)
    assert data["labels"]["energy"]["range"][0] == pytest.approx(low)


@pytest.mark.parametrize("plot", [plot_check, plot_overview])
@pytest.mark.parametrize("make", [crystals, lambda: molecules(1), list])
def test_pictures_of_anything(tmp_path, plot, make):
    frames = make()
    table = check_frames(tmp_path, frames).table if frames else run_checks([SampleList([])], Settings()).table
    plot(tmp_path / "picture.png", table, "a title")
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"


def test_no_structures_is_an_error():
    assert found(run_checks([SampleList([])], Settings()), "labels").level == "error"
