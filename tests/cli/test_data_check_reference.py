"""``mlip data check`` on real data: no error, and no warning that is not known to be true."""

import json

import pytest
from typer.testing import CliRunner

from mlip.cli.main import app

UNCORRECTED = "data.dataset.energy=uncorrected"
QUIET = [
    (["{}/3bpa"], set()),
    (["{}/rmd17/ethanol/train_01.xyz"], set()),
    (["{}/rmd17/rmd17_ethanol_sample.npz"], set()),
    (["{}/mlearn/Si"], set()),
    (["{}/mlearn/Ni"], set()),
    (["{}/monbtaw/NbMo_Test.json"], set()),
    # Pr next to Cu at 1.97 Å, and a cell with an atom of its own 5 Å away from everything.
    (["data=mptrj", "{}/mptrj/mptrj-random-sharedpart.xyz", UNCORRECTED], {"distances", "neighbours"}),
    # Ten frames of five compositions.
    (["{}/mptrj/mp-trj-sample.extxyz.zip", UNCORRECTED], {"reference energies"}),
    # Two of the frames come from files in which ASE had zeroed the forces; Rb is 5.2 Å from Rb.
    (["{}/oc20/s2ef_sample", "data.dataset.energy=total"], {"zero forces", "neighbours", "reference energies"}),
    # MO2 throughout.
    (["{}/oc20/oxides/oxides.db"], {"reference energies"}),
    (["{}/qh9/QH9Stable_sample.db"], set()),
]


@pytest.mark.reference
@pytest.mark.slow
@pytest.mark.parametrize(("words", "known"), QUIET, ids=lambda value: value[-1] if isinstance(value, list) else "")
def test_real_data_are_quiet(reference_data, tmp_path, words, known):
    report = tmp_path / "report.json"
    arguments = ["data", "check", *(word.format(reference_data) for word in words), "--json", str(report)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    content = json.loads(report.read_text())
    assert content["errors"] == 0
    assert {finding["check"] for finding in content["findings"] if finding["level"] == "warning"} == known
