"""Errors against spreads: the accumulated numbers against numpy on all values at once."""

import numpy as np
import pytest

from mlip.data.build_graph import build_graph
from mlip.evaluation.calibration import Calibration
from tests.evaluation.labelled import structures


def test_against_numpy() -> None:
    rng = np.random.default_rng(0)
    calibration, kept = Calibration(), {"energy": [], "forces": []}
    for number, atoms in enumerate(structures(7)):
        size = len(atoms)
        energy, forces = rng.normal(-50), rng.normal(size=(size, 3))
        spread = rng.uniform(0.1, 1, size)
        labels = {"energy": np.array(energy - 0.2 * number), "forces": forces - 0.3 * spread[:, None] * rng.normal()}
        if number == 3:
            labels = {"energy": np.array(np.nan), "forces": np.full((size, 3), np.nan)}
        else:
            kept["energy"].append((abs(energy - labels["energy"]), 0.1 + 0.01 * number))
            kept["forces"] += zip(np.linalg.norm(forces - labels["forces"], axis=1), spread, strict=True)
        prediction = {
            "energy": np.array(energy),
            "forces": forces,
            "energy_std": np.array(0.1 + 0.01 * number),
            "forces_std": spread,
        }
        calibration.add(build_graph(atoms, 4.0, labels), prediction)
    found = calibration.result()
    for name, pairs in kept.items():
        error, spread = np.array(pairs, dtype=np.float64).T
        one = found[name]
        assert one.count == len(pairs)
        assert one.error == pytest.approx(1000 * np.sqrt(np.mean(error**2)), rel=1e-12)
        assert one.spread == pytest.approx(1000 * np.sqrt(np.mean(spread**2)), rel=1e-12)
        assert one.ratio == pytest.approx(one.error / one.spread, rel=1e-12)
        assert one.correlation == pytest.approx(np.corrcoef(error, spread)[0, 1], rel=1e-9)


def test_where_there_is_nothing_to_correlate() -> None:
    assert Calibration().result() == {}
    calibration = Calibration()
    atoms = structures(1)[0]
    graph = build_graph(atoms, 4.0, {"energy": np.array(1.0)})
    calibration.add(graph, {"energy": np.array(1.5)})
    assert calibration.result() == {}
    calibration.add(graph, {"energy": np.array(1.5), "energy_std": np.array(0.0)})
    found = calibration.result()["energy"]
    assert (found.count, found.error, found.spread) == (1, 500.0, 0.0)
    assert found.ratio is None
    assert found.correlation is None
