"""What tables of properties say is what was found."""

import csv
from pathlib import Path

import numpy as np

from mlip.simulate.properties.files import write_table


def test_differences_of_large_energies_stay(tmp_path: Path) -> None:
    energies = np.array([-12345678.9012345, -12345678.9011111])
    write_table(tmp_path / "t.csv", {"name": ["a", "b"], "energy_eV": energies, "length_A": [0.1, 1 / 3]})
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    np.testing.assert_allclose([float(row["energy_eV"]) for row in rows], energies, rtol=0, atol=1e-7)
    assert rows[0]["length_A"] == "0.1"
