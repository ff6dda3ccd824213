"""The timing of Hamiltonian networks: its molecules, its variants, and how it tells parts apart."""

from __future__ import annotations

import csv
import importlib
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch_geometric.data import Batch

from mlip.data.build_graph import graph_of
from mlip.nn.orbitals.path_gate import PathGate

SMALL = Namespace(basis="def2-svp", cutoff=15.0, channels=8, lmax=2)


def test_alkanes_and_waters_have_their_bonds() -> None:
    molecules = importlib.import_module("timed_molecules")
    for carbons in (1, 2, 3, 13):
        atoms = molecules.alkane(carbons)
        assert atoms.get_chemical_formula() == f"C{carbons if carbons > 1 else ''}H{2 * carbons + 2}"
        distances = atoms.get_all_distances()
        carbon = atoms.numbers == 6
        bonded = (distances > 0) & (distances < 1.6)
        assert (bonded[carbon].sum(axis=1) == 4).all()
        assert (bonded[~carbon].sum(axis=1) == 1).all()
        for centre in np.flatnonzero(carbon):
            first, *others = np.flatnonzero(bonded[centre])
            assert [atoms.get_angle(first, centre, other) for other in others] == pytest.approx(
                [109.4712] * 3, abs=1e-3
            )
    lump = molecules.waters(20)
    assert len(lump) == 60
    apart = lump.get_all_distances() + 9.0 * (np.arange(60)[:, None] // 3 == np.arange(60) // 3)
    assert apart.min() > 1.5
    with pytest.raises(SystemExit, match="no molecule 'C3H9'"):
        molecules.named_molecule("C3H9")


def test_variants_differ_in_what_they_say() -> None:
    script = importlib.import_module("time_hamiltonians")
    atoms = script.named_molecule("ethanol")
    names = ("qhnet", "and pairs by element", "sphnet, no gates", "sphnet 0.7")
    networks = {name: script.configuration(atoms, script.VARIANTS[name], SMALL) for name in names}
    assert networks["qhnet"]["num_layers"] == 5
    assert networks["qhnet"]["pairs"] == "all"
    assert networks["and pairs by element"] == networks["qhnet"] | {"num_layers": 2, "pairs": "by_element"}
    ungated = networks["sphnet, no gates"]
    assert ungated["pair_gate"] is None
    assert ungated["path_gate"] is None
    model = script.timed_model(networks["sphnet 0.7"])
    gates = [module for module in model.modules() if isinstance(module, PathGate)]
    assert all(gate.is_fixed for gate in gates)
    # Random ones, not the first of the list.
    assert any(int(gate.fixed.nonzero().max()) >= gate.num_kept for gate in gates)
    batch = Batch.from_data_list([graph_of(atoms, model.graph_builder)])
    assert script.kept(model, batch).startswith("pairs 3")


@pytest.mark.slow
def test_backward_time_counts_for_the_part_that_caused_it() -> None:
    parts = importlib.import_module("timed_parts")

    class Sleep(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor, seconds: float) -> torch.Tensor:
            ctx.seconds = seconds
            return x.clone()

        @staticmethod
        def backward(ctx: object, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
            end = time.perf_counter() + ctx.seconds
            while time.perf_counter() < end:
                torch.zeros(1)
            return gradient.clone(), None

    x = nn.Parameter(torch.ones(3))
    with profile(activities=[ProfilerActivity.CPU]) as found:
        with record_function("part:pair products"):
            y = Sleep.apply(x * 2.0, 0.06)
        with record_function("part:expansion"):
            z = Sleep.apply(y * 2.0, 0.02)
        z.sum().backward()
    seconds = parts._by_part(found.events())
    assert seconds["pair products"] > 2 * seconds["expansion"] > 4 * seconds["rest"]


def test_wrong_options_are_refused_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    script = importlib.import_module("time_hamiltonians")
    for arguments, sentence in (
        (["--variants", "sphnet"], "there is no variant 'sphnet'"),
        (["--molecules", "ethanol:0"], "'ethanol:0' is not NAME:COPIES"),
        (["--channels", "12"], "a multiple of 8"),
    ):
        with pytest.raises(SystemExit):
            script.main(arguments)
        assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_quick_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = importlib.import_module("time_hamiltonians")
    script.main(["--quick", "--variants", "qhnet", "sphnet 0.7", "--output", str(tmp_path)])
    assert "| sphnet 0.7 |" in capsys.readouterr().out
    with open(tmp_path / "times.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["variant"], row["way"]) for row in rows] == [
        (variant, way) for way in ("training", "inference") for variant in ("qhnet", "sphnet 0.7")
    ]
    assert all(float(row["ms"]) > 0 and float(row["MB"]) > 0 for row in rows)
    with open(tmp_path / "shares.csv", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            assert sum(float(row[part]) for part in importlib.import_module("timed_parts").PARTS) == pytest.approx(
                1.0, abs=0.01
            )
    assert (tmp_path / "times.png").stat().st_size > 1000
