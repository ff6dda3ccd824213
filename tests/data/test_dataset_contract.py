"""What every data set has to do, for each that has a yaml in configs/data: nobody has to add it here."""

from __future__ import annotations

import importlib.util
import json
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mlip.cli.config_dir import config_dir
from mlip.core.build import build
from mlip.core.errors import DataError
from mlip.core.fields import DATA_FIELDS, FIELDS
from mlip.data.datasets.base import Chunk, Dataset
from mlip.data.sample import Sample
from mlip.data.store.prepare import prepare
from tests.data.fixtures.case import Case

NAMES = sorted(path.stem for path in (config_dir() / "data").glob("*.yaml"))
FIXTURES = Path(__file__).parent / "fixtures"
TOLERANCE = 1e-12
DTYPES = {"float": np.floating, "int": np.integer, "bool": np.bool_}
CUTS = 6
"""Places where each file is cut, and bytes that are changed."""


def write(name: str, folder: Path) -> Case:
    """Let the fixture of a data set write its files."""
    path = FIXTURES / f"{name}.py"
    assert path.is_file(), f"configs/data/{name}.yaml needs a fixture {path}, see docs/extending.md"
    spec = importlib.util.spec_from_file_location(f"fixture_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write(folder)


def options(name: str) -> dict[str, Any]:
    """The constructor options that the yaml sets, without references to other settings."""
    config = yaml.safe_load((config_dir() / "data" / f"{name}.yaml").read_text(encoding="utf-8"))
    base = {}
    for entry in config.get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            base = options(entry)
    found = base | config.get("dataset", {})
    return {
        key: value for key, value in found.items() if not (isinstance(value, str) and value.startswith(("${", "??")))
    }


def open_case(name: str, case: Case) -> Dataset:
    return build(options(name) | case.options)


@pytest.fixture(scope="module", params=NAMES)
def named(request, tmp_path_factory) -> tuple[str, Case]:
    # A folder that not every library can spell.
    folder = tmp_path_factory.mktemp(request.param) / "größe"
    folder.mkdir()
    return request.param, write(request.param, folder)


@pytest.fixture(scope="module")
def dataset(named) -> Dataset:
    return open_case(*named)


def assert_same(found: Sequence[Sample], expected: Sequence[Sample], exact: bool) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected):
        where = ours.source
        assert np.array_equal(ours.atoms.numbers, theirs.atoms.numbers), where
        assert np.array_equal(ours.atoms.pbc, theirs.atoms.pbc), where
        assert ours.labels.keys() == theirs.labels.keys(), where
        pairs = [(ours.atoms.positions, theirs.atoms.positions), (ours.atoms.cell.array, theirs.atoms.cell.array)]
        pairs += [(ours.labels[name], theirs.labels[name]) for name in theirs.labels]
        for one, other in pairs:
            assert np.shape(one) == np.shape(other), where
            if exact:
                assert np.array_equal(one, other), where
            else:
                np.testing.assert_allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE, err_msg=where)
        for key, value in theirs.info.items():
            assert ours.info.get(key) == value, (where, key)


def test_samples_are_what_the_files_hold(named, dataset) -> None:
    _, case = named
    assert_same(list(dataset), case.samples, case.exact)
    isolated = dataset.isolated_atom_energies()
    assert isolated.keys() == case.isolated.keys()
    for symbol, energy in case.isolated.items():
        assert isolated[symbol] == pytest.approx(energy, rel=TOLERANCE)


def test_fields_have_the_shape_and_kind_of_the_table(dataset) -> None:
    samples = list(dataset)
    for sample in samples:
        assert sample.atoms.calc is None
        assert not sample.atoms.constraints
        assert json.loads(json.dumps(sample.info, allow_nan=False)) == sample.info, "info holds plain JSON values"
        assert sample.source != "an unnamed structure"
        for name, value in sample.labels.items():
            assert name in DATA_FIELDS
            field = FIELDS[name]
            shape = np.shape(value)
            lead = {"atom": (len(sample.atoms),), "graph": (), "orbital_pair": shape[:1] * 2}[field.level]
            assert shape[: len(lead)] == lead, name
            assert field.fits(shape[len(lead) :]), name
            assert np.issubdtype(np.asarray(value).dtype, DTYPES[field.kind]), name
            assert np.isfinite(value).all(), name
        if "stress" in sample.labels:
            np.testing.assert_allclose(sample.labels["stress"], sample.labels["stress"].T, atol=1e-12)
    everywhere = set.intersection(*(set(sample.labels) for sample in samples))
    assert set(dataset.provides) == everywhere
    known = dataset.fields()
    assert known is None or known == set().union(*(sample.labels for sample in samples))


def test_it_says_what_it_is(dataset) -> None:
    for text in (dataset.licence, dataset.citation):
        assert isinstance(text, str)
        assert text
    assert isinstance(dict(dataset.units), dict)
    assert json.loads(json.dumps(dict(dataset.level_of_theory))) is not None
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_it_pickles_after_use(dataset) -> None:
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(copy) == len(dataset)
    assert_same([copy[0], copy[len(copy) - 1]], [dataset[0], dataset[len(dataset) - 1]], exact=True)


def read_all(dataset: Dataset, chunks: Sequence[Chunk]) -> list[Sample]:
    samples = []
    for chunk in chunks:
        items = list(dataset.read(pickle.loads(pickle.dumps(chunk))))
        assert all(isinstance(item, Sample) for item in items)
        assert chunk.num_samples in (None, len(items))
        samples += items
    return samples


def test_chunks_are_the_sequence_and_always_the_same(named, dataset) -> None:
    name, case = named
    fresh = pickle.loads(pickle.dumps(open_case(name, case)))
    chunks = list(fresh.chunks())
    assert [chunk.key for chunk in chunks] == [chunk.key for chunk in dataset.chunks()]
    assert len({chunk.key for chunk in chunks}) == len(chunks)
    samples = [sample for sample in read_all(fresh, chunks) if not sample.isolated]
    assert_same(samples, list(dataset), exact=True)
    assert [sample.info for sample in samples] == [sample.info for sample in dataset]


def test_the_store_gives_back_exactly_the_same(named, tmp_path) -> None:
    name, case = named
    original = open_case(name, case)
    prepare(original, {"name": name}, tmp_path / "store", workers=1)
    stored = build({"_target_": "mlip.data.datasets.store.StoreDataset", "path": str(tmp_path / "store")})
    assert_same(list(stored), list(original), exact=True)
    assert [sample.info for sample in stored] == [sample.info for sample in original]
    assert stored.isolated_atom_energies() == original.isolated_atom_energies()
    assert set(stored.provides) == set(original.provides)
    indices = range(len(original))
    assert np.array_equal(stored.digests(indices), original.digests(indices))
    assert np.array_equal(stored.geometry_digests(indices), original.geometry_digests(indices))
    assert stored.groups() == original.groups()


def damaged(name: str, case: Case) -> list[Sample] | None:
    """Read a damaged set: its samples, None for a DataError; anything else is a failure."""
    try:
        dataset = open_case(name, case)
        return list(dataset)
    except DataError:
        return None


@pytest.mark.parametrize("kind", ["cut", "changed"])
def test_damage_is_an_error_and_never_a_crash(named, tmp_path, kind) -> None:
    name, case = named
    if not case.files:
        pytest.skip("reads no files")
    rng = np.random.default_rng(5)
    for number, file in enumerate(case.files):
        backup = tmp_path / str(number)
        shutil.copy(file, backup)
        content = backup.read_bytes()
        try:
            for place in rng.integers(0, len(content), CUTS).tolist():
                bad = bytearray(content)
                if kind == "cut":
                    del bad[place:]
                else:
                    bad[place] ^= int(rng.integers(1, 256))
                file.write_bytes(bad)
                found = damaged(name, case)
                if found is None or (kind == "changed" and not case.checked):
                    continue
                if kind == "cut" and case.cuttable:
                    found += case.samples[len(found) :]
                assert_same(found, case.samples, case.exact)
        finally:
            shutil.copy(backup, file)


def test_nothing_there_is_an_error(named, tmp_path) -> None:
    name, case = named
    if "path" not in case.options:
        pytest.skip("reads no files")
    with pytest.raises(DataError):
        list(build(options(name) | case.options | {"path": str(tmp_path / "nothing")}))
