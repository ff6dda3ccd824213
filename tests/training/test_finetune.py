"""Frozen parts, learning rates of parts, replayed structures and shifted energies; all of it resumed exactly."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from mlip.core.errors import ConfigError, DataError, TrainingInterrupted
from mlip.data.joined import Joined, ShiftedEnergies
from mlip.data.loading import GraphDataset, ResumableLoader
from mlip.data.sample import Sample
from mlip.data.sampling import EdgeBudgetSampler, Reservoir
from mlip.data.subset import Subset, as_subset
from mlip.evaluation.predict import predict_dataset
from mlip.models.build import build_model
from mlip.models.grow import add_elements, shift_energies
from mlip.models.model_file import load_model
from mlip.training.checkpoints import MODEL
from mlip.training.energy_shifts import fit_energy_shifts
from mlip.training.optimizers import adamw
from mlip.training.parameter_groups import OTHERS, freeze, parameter_groups
from mlip.training.run import Run, train
from mlip.training.schedules import Plateau, WarmupCosine
from tests.training.setup import CUTOFF, make_model, make_run, model_config, samples
from tests.training.test_resume import StopAt, assert_same, log_rows

FROZEN = ["embedding", "layers.0", "heads.energy.readouts"]


def joined() -> Subset:
    return as_subset(Joined([as_subset(samples(10, 0)), as_subset(samples(12, 5))]))


def run_replay(run: Run) -> torch.nn.Module:
    model = make_model()
    freeze(model, FROZEN)
    sets = [GraphDataset(part, CUTOFF) for part in (joined(), samples(4, 1), samples(3, 2))]
    train(model, sets[0], sets[1], run, Console(quiet=True), {"replay": sets[2]})
    return model


def replay_run(folder: Path, penalty: object = None, **changes: object) -> Run:
    optimizer = partial(adamw, lr=0.01, lr_factors={"heads": 0.5, "layers.1": 0.1})
    return make_run(folder, penalty, optimizer=optimizer, reservoir=Reservoir(12, 5), **changes)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    return folder, run_replay(replay_run(folder))


def test_frozen_parts_keep_every_bit_in_the_model_and_in_its_average(straight):
    folder, model = straight
    start, exported = make_model(), load_model(folder / MODEL)
    names = [name for name, _ in start.named_parameters() if any(name.startswith(part) for part in FROZEN)]
    assert names
    for name, value in start.state_dict().items():
        same = [torch.equal(value, other.state_dict()[name]) for other in (model, exported)]
        assert same == [name in names] * 2, name


@pytest.mark.slow
@pytest.mark.parametrize("stop", [2, 7])
def test_a_run_with_replay_and_groups_is_resumed_exactly(straight, tmp_path, stop):
    folder, model = straight
    with pytest.raises(TrainingInterrupted):
        run_replay(replay_run(tmp_path, StopAt(stop)))
    resumed = run_replay(replay_run(tmp_path, resume=True))
    assert_same(resumed, model)
    assert_same(load_model(tmp_path / MODEL), load_model(folder / MODEL))
    rows = log_rows(folder)
    assert [{k: v for k, v in row.items() if "seconds" not in k} for row in log_rows(tmp_path)] == [
        {k: v for k, v in row.items() if "seconds" not in k} for row in rows
    ]
    # Errors of both sets are there; those of the new structures decide.
    assert float(rows[-1]["replay/forces_rmse_meV_per_A"]) > 0
    assert "replay/score" not in rows[-1]


def test_rates_of_parts_follow_the_schedules():
    model = make_model()
    groups = parameter_groups(model, 0.01, 0.3, {"layers": 0.1, "layers.1": 1.0, "embedding": 0.5})
    assert [(g["part"], round(g["lr"], 6), g["weight_decay"]) for g in groups] == [
        ("layers", 0.001, 0.3), ("layers", 0.001, 0.0), ("layers.1", 0.01, 0.3), ("layers.1", 0.01, 0.0),
        ("embedding", 0.005, 0.3), (OTHERS, 0.01, 0.3), (OTHERS, 0.01, 0.0),
    ]  # fmt: skip
    assert sum(p.numel() for g in groups for p in g["params"]) == model.num_parameters
    for schedule in (WarmupCosine, Plateau):
        optimizer = adamw(model, lr=0.01, lr_factors={"layers": 0.1})
        made = schedule(optimizer, total_steps=100)
        for step in (0, 1, 50, 99):
            made.before_step(step)
            rates = {g["part"]: g["lr"] for g in optimizer.param_groups}
            assert rates["layers"] == pytest.approx(0.1 * rates[OTHERS], rel=1e-12)


def test_the_first_step_of_a_part_is_as_long_as_its_factor():
    """Adam's first step is lr times the sign of the gradient: an oracle for every single weight."""
    model = make_model().double()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = adamw(model, lr=0.01, weight_decay=0.0, lr_factors={"layers.0": 0.25})
    sum((p * torch.linspace(1, 2, p.numel(), dtype=p.dtype).view_as(p)).sum() for p in model.parameters()).backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        step = 0.01 * (0.25 if name.startswith("layers.0.") else 1.0)
        torch.testing.assert_close(start[name] - parameter, torch.full_like(parameter, step), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: freeze(m, ["layer.0"]), r"finetune.freeze names 'layer.0'.*Did you mean 'layers.0'"),
        (lambda m: freeze(m, ["layers", "embedding", "heads"]), "nothing is left to learn"),
        (lambda m: parameter_groups(m, 1, 0, {"head": 1.0}), r"lr_factors names 'head'.*Did you mean 'heads'"),
        (lambda m: parameter_groups(m, 1, 0, {"heads": 0}), "needs a positive number for 'heads', got 0"),
        (lambda m: parameter_groups(m, 1, 0, {"heads": "fast"}), "needs a positive number for 'heads', got 'fast'"),
    ],
)
def test_mistakes_are_sentences(call, message):
    with pytest.raises(ConfigError, match=message):
        call(make_model())


class TestReservoir:
    def test_all_have_their_turn_before_one_comes_again(self):
        reservoir = Reservoir(size=10, drawn=4)
        drawn = np.concatenate([reservoir.members(3, epoch) for epoch in range(10)])
        assert drawn.shape == (40,)
        for start in range(0, 40, 10):
            assert sorted(drawn[start : start + 10].tolist()) == list(range(10))
        assert not np.array_equal(drawn[:10], drawn[10:20])

    def test_more_than_there_are(self):
        drawn = Reservoir(size=3, drawn=7).members(0, 1)
        assert np.bincount(drawn, minlength=3).sum() == 7
        assert np.bincount(drawn, minlength=3).min() >= 1

    def test_a_pass_has_all_new_structures_and_so_many_others(self):
        sampler = EdgeBudgetSampler([1] * 16, None, max_graphs=4, seed=1, reservoir=Reservoir(6, 3))
        for epoch in range(3):
            members = sorted(k for batch in sampler.batches(epoch) for k in batch)
            assert members[:10] == list(range(10))
            assert len(members) == 13
            assert len(set(members)) == 13
        plain = EdgeBudgetSampler([1] * 16, None, max_graphs=4, seed=1)
        assert plain.fingerprint != sampler.fingerprint

    def test_batches_know_their_members(self):
        graphs = GraphDataset(joined(), CUTOFF)
        for batch in ResumableLoader(graphs, 60, 3, seed=1, reservoir=Reservoir(12, 5)):
            expected = torch.cat([graphs[k].positions for k in batch.members])
            assert torch.equal(batch.positions, expected)


class TestJoinedSamples:
    def test_they_are_what_they_were(self):
        first, second = samples(3, 0), samples(4, 5)
        whole = as_subset(Joined([as_subset(first), Subset(as_subset(second).dataset, [2, 0])]))
        assert [s.source for s in whole] == [s.source for s in (*first, second[2], second[0])]
        assert whole.content_hash == as_subset([*first, second[2], second[0]]).content_hash
        assert (whole.geometry_digests == as_subset([*first, second[2], second[0]]).geometry_digests).all()
        part = Subset(whole.dataset, [4, 1])
        assert part.content_hash == as_subset([second[0], first[1]]).content_hash

    def test_labels_that_some_lack_are_missing_not_zero(self):
        bare = [replace(s, labels={"forces": s.labels["forces"]}) for s in samples(2, 5)]
        graphs = GraphDataset(as_subset(Joined([as_subset(samples(2, 0)), as_subset(bare)])), CUTOFF)
        assert [bool(torch.isnan(graph.energy).all()) for graph in graphs] == [False, False, True, True]

    def test_energies_move_by_the_sum_over_the_atoms(self):
        plain = as_subset(samples(3, 0))
        moved = as_subset(ShiftedEnergies(plain, {"H": 1.5, "C": -100.0}))
        for before, after in zip(plain, moved):
            symbols = list(before.atoms.symbols)
            expected = float(before.labels["energy"]) + 1.5 * symbols.count("H") - 100.0 * symbols.count("C")
            assert float(after.labels["energy"]) == pytest.approx(expected, abs=1e-12)
            assert after.labels["forces"] is before.labels["forces"]
        assert moved.content_hash != plain.content_hash
        assert (moved.geometry_digests == plain.geometry_digests).all()


def labelled(model: torch.nn.Module, offsets: dict[str, float], noise: float = 0.0) -> Subset:
    """Return samples whose energies are the model's own, moved for every atom."""
    found = samples(30, 4)
    graphs = GraphDataset(found, model.graph_builder)
    rng = np.random.default_rng(0)
    moved = []
    for sample, prediction in zip(found, predict_dataset(model, graphs, ("energy",))):
        energy = prediction["energy"] + sum(offsets.get(s, 0.0) for s in sample.atoms.symbols) + noise * rng.normal()
        moved.append(replace(sample, labels={"energy": np.array(energy)}))
    return as_subset(moved)


class TestEnergyShifts:
    def test_a_constant_for_each_element_is_found_exactly(self):
        model = make_model().double()
        data = labelled(model, {"H": -13.6, "C": -1029.4})
        fit = fit_energy_shifts(model, data)
        assert fit.shifts == pytest.approx({"H": -13.6, "C": -1029.4}, abs=1e-8)
        assert fit.before > 100
        assert fit.after < 1e-8
        again = fit_energy_shifts(shift_energies(model, fit.shifts), data)
        assert again.shifts == {}
        assert again.note == "kept"

    def test_keep_refit_and_what_auto_makes_of_it(self):
        model = make_model().double()
        far, near = labelled(model, {"H": 1.0, "C": 1.0}), labelled(model, {"H": 0.05, "C": 0.05})
        assert fit_energy_shifts(model, far, choice="keep").shifts == {}
        assert set(fit_energy_shifts(model, far).shifts) == {"H", "C"}
        assert fit_energy_shifts(model, near).shifts == {}
        assert fit_energy_shifts(model, near, choice="refit").shifts == pytest.approx({"H": 0.05, "C": 0.05})
        with pytest.raises(ConfigError, match="Did you mean 'refit'"):
            fit_energy_shifts(model, near, choice="refits")

    def test_a_new_element_is_always_fitted_and_leaves_the_others_alone(self):
        model, _ = add_elements(make_model().double(), ["O"])
        found = [replace_symbol(sample, k) for k, sample in enumerate(samples(30, 4))]
        graphs = GraphDataset(found, model.graph_builder)
        energies = [p["energy"] for p in predict_dataset(model, graphs, ("energy",))]
        data = as_subset(
            [
                replace(s, labels={"energy": e - 2041.8 * list(s.atoms.symbols).count("O")})
                for s, e in zip(found, energies)
            ]
        )
        new = {"O": [k for k, s in enumerate(found) if "O" in s.atoms.symbols]}
        for choice in ("auto", "keep"):
            assert fit_energy_shifts(model, data, new, choice).shifts == pytest.approx({"O": -2041.8}, abs=1e-6)

    def test_a_wrong_label_does_not_bend_the_fit(self):
        model = make_model().double()
        data = labelled(model, {"H": -13.6, "C": -1029.4})
        wrong = [*data]
        wrong[4] = replace(wrong[4], labels={"energy": np.array(5e5)})
        fit = fit_energy_shifts(model, as_subset(wrong))
        assert fit.shifts == pytest.approx({"H": -13.6, "C": -1029.4}, abs=1e-8)
        assert fit.outliers == ("made up:4",)
        wrong[4] = replace(wrong[4], labels={"energy": np.array(1e200)})
        with pytest.raises(DataError, match=r"made up:4: an energy of 1e\+200 eV for \d atoms cannot be right"):
            fit_energy_shifts(model, as_subset(wrong))

    def test_a_model_that_reads_the_charge(self):
        """The fit must see the vector of the charge: a shift of all atoms would take its place."""
        table = {"_target_": "mlip.nn.conditioning.table.Table", "_partial_": True, "field": "charge", "values": [0, 1]}
        model = build_model({**model_config(), "conditioning": {"charge": table}}, seed=0).double().eval()
        with torch.no_grad():
            model.conditioning["charge"].table.normal_(generator=torch.Generator().manual_seed(0))
        charged = [replace(s, labels=s.labels | {"charge": np.array(k % 2)}) for k, s in enumerate(samples(30, 4))]
        graphs = GraphDataset(charged, model.graph_builder, labels=("charge",))
        found = predict_dataset(model, graphs, ("energy",))
        moved = [
            replace(s, labels=s.labels | {"energy": p["energy"] + 3.0 * len(s.atoms)}) for s, p in zip(charged, found)
        ]
        assert fit_energy_shifts(model, as_subset(moved)).shifts == pytest.approx({"H": 3.0, "C": 3.0}, abs=1e-8)

    def test_without_energies_nothing_is_fitted(self):
        bare = as_subset([replace(s, labels={"forces": s.labels["forces"]}) for s in samples(2, 5)])
        assert fit_energy_shifts(make_model(), bare).shifts == {}


def replace_symbol(sample: Sample, number: int) -> Sample:
    atoms = sample.atoms.copy()
    if number % 3:
        atoms.symbols[0] = "O"
    return Sample(atoms, sample.labels, sample.info)
