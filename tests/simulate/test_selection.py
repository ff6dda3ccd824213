"""Selecting structures to label: which ones, in how much memory, and the same ones after a kill."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from ase.io import read, write
from typer.testing import CliRunner

from mlip.calculators.ase import MLIPCalculator
from mlip.cli.main import app
from mlip.core.errors import SimulationError, StructureError
from mlip.simulate.ensembles import LangevinNVT
from mlip.simulate.guards import Limits
from mlip.simulate.md import MDFiles, run_md
from mlip.simulate.md_replicas import replicas_in, run_replicas
from mlip.simulate.select_frames import merge_selections, select_frames
from mlip.simulate.selection import NEAREST, SELECTED, SURROUNDINGS, Selection, SelectOptions, surroundings
from tests.simulate.pair_model import PairModel

MODELS = [PairModel(distance=distance) for distance in (2.45, 2.5, 2.58)]
ANY = {"spacing": 0.0, "distance": 0.0}


def committee() -> MLIPCalculator:
    return MLIPCalculator(MODELS)


def crystal() -> Atoms:
    return bulk("Cu", "fcc", a=3.3, cubic=True)


def stretched(length: float, **info) -> Atoms:
    atoms = Atoms("Cu2", [[0, 0, 0], [length, 0, 0]])
    atoms.info = {"forces_std": np.array([0.0, info.pop("spread")]), **info}
    return atoms


def test_the_uncertainty_is_the_spread_of_the_members() -> None:
    """The definition, written again with the forces of every member alone."""
    atoms = crystal()
    atoms.rattle(0.2, seed=1)
    forces = []
    for model in MODELS:
        alone = atoms.copy()
        alone.calc = MLIPCalculator(model)
        forces.append(alone.get_forces())
    spread = np.sqrt(np.mean(np.sum((forces - np.mean(forces, axis=0)) ** 2, axis=2), axis=0))
    (found,) = select_frames([atoms], SelectOptions(1), committee())
    assert found.uncertainty == pytest.approx(spread.max(), rel=1e-10)
    assert found.atom == spread.argmax()


def test_the_most_uncertain_ones_are_kept() -> None:
    spreads = np.random.default_rng(0).uniform(size=200)
    frames = [stretched(2 + 0.001 * k, spread=spread) for k, spread in enumerate(spreads)]
    chosen = select_frames(iter(frames), SelectOptions(7, **ANY))
    assert [one.uncertainty for one in chosen] == sorted(spreads, reverse=True)[:7]
    assert [one.step for one in chosen] == np.argsort(-spreads)[:7].tolist()


def test_not_two_at_one_time_nor_of_one_event() -> None:
    frames = [
        stretched(2.5, spread=0.5, time_fs=0.0),
        stretched(3.5, spread=0.9, time_fs=40.0),  # Too close to the one before in time, and better.
        stretched(3.55, spread=0.8, time_fs=500.0),  # The same event as the one before.
        stretched(4.5, spread=0.1, time_fs=60.0),  # Too close, and worse.
        stretched(4.5, spread=0.2, time_fs=60.0, replica=1),  # Of another run.
        stretched(2.5, spread=0.4, time_fs=900.0),
    ]
    chosen = select_frames(frames, SelectOptions(10, spacing=50, distance=0.1))
    assert [one.uncertainty for one in chosen] == [0.9, 0.4, 0.2]


def test_files_are_runs_of_their_own() -> None:
    frames = [stretched(2.5, spread=0.5, time_fs=0.0), stretched(3.5, spread=0.9, time_fs=0.0)]
    options = SelectOptions(10, spacing=50, distance=0.1)
    assert len(select_frames(frames, options)) == 1
    assert len(select_frames(frames, options, runs=["a.traj", "b.traj"])) == 2


def test_those_chosen_are_apart_and_the_best_is_among_them() -> None:
    """Whatever comes in whatever order, and never more than asked for, nor remembered than there is room."""
    rng = np.random.default_rng(3)
    selection = Selection(SelectOptions(5, spacing=20, distance=0.15))
    best = 0.0
    for step in range(600):
        atoms, spread = Atoms("Cu2", [[0, 0, 0], [rng.uniform(2, 5), 0, 0]]), rng.uniform()
        best = max(best, spread)
        selection.consider(atoms, spread, 1, step, float(step))
        if step % 50 == 0:
            chosen = selection.ranked()
            assert chosen[0].uncertainty == best
            assert len(chosen) <= 5
            lengths = sorted(one.atoms.positions[1, 0] for one in chosen)
            assert all(np.diff(lengths) > 0.15)
            assert all(np.diff(sorted(one.time for one in chosen)) >= 20)
    assert len(selection.pool) == 25


def test_a_slow_rise_gives_many() -> None:
    """Not its end alone: every structure is more uncertain than those that it is too close to."""
    selection = Selection(SelectOptions(5, spacing=20, distance=0.0))
    for step in range(1000):
        selection.consider(Atoms("Cu"), 0.001 * step, 0, step, float(step))
    assert [one.time for one in selection.ranked()] == [999, 979, 959, 939, 919]


def test_what_is_no_use_is_left_out() -> None:
    frames = [
        stretched(2.5, spread=50.0),
        stretched(2.6, spread=0.01),
        stretched(0.9, spread=0.5),  # Atoms on top of each other.
        stretched(2.7, spread=math.nan),
        stretched(math.inf, spread=0.6),
        stretched(2.8, spread=0.3),
    ]
    chosen = select_frames(frames, SelectOptions(9, lowest=0.1, highest=10, **ANY))
    assert [one.uncertainty for one in chosen] == [0.3]


def test_surroundings() -> None:
    """In fcc the shells are at a/√2, a and a√1.5; turning, moving and exchanging atoms change nothing."""
    found = surroundings(crystal(), 0)
    assert found == pytest.approx(np.full((1, NEAREST), 3.3 / math.sqrt(2)))
    ethanol = molecule("CH3CH2OH")
    turned = ethanol.copy()
    turned.rotate(37, (1, 2, 3))
    turned.positions = turned.positions * [1, 1, -1] + 5
    order = [0, 1, 2, 3, *reversed(range(4, 9))]
    assert surroundings(turned[order], 0) == pytest.approx(surroundings(ethanol, 0))
    assert surroundings(ethanol, 0).shape == (3, NEAREST)
    assert surroundings(Atoms("Cu"), 0) == pytest.approx(np.full((1, NEAREST), SURROUNDINGS))


def files(folder: Path, restart: bool = False) -> MDFiles:
    return MDFiles(folder / "t.traj", folder / "t.csv", restart, folder / "c.npz", selected=folder / SELECTED)


class Killed(BaseException):
    """Nothing in the program catches it."""


def run(folder: Path, kills: tuple[int, ...] = (), atoms: Atoms | None = None) -> None:
    left = list(kills)

    def callback(progress) -> None:
        if left and progress.step == left[0]:
            left.pop(0)
            raise Killed

    options = {"timestep": 2.0, "log_interval": 2, "frame_interval": 50, "checkpoint_interval": 10, "seed": 5}
    select = SelectOptions(4, spacing=6, distance=0.001)
    for number in range(len(kills) + 1):
        try:
            run_md(
                atoms or crystal(), committee(), LangevinNVT(600), 30, files=files(folder, number > 0),
                callback=callback, select=select, **options,
            )  # fmt: skip
        except Killed:
            continue


def test_md_that_was_killed_selects_the_same(tmp_path: Path) -> None:
    atoms = crystal()
    atoms.set_constraint(FixAtoms([2]))
    run(tmp_path / "whole", atoms=atoms)
    run(tmp_path / "parts", (4, 17, 20), atoms=atoms)
    text = (tmp_path / "whole" / SELECTED).read_bytes()
    assert (tmp_path / "parts" / SELECTED).read_bytes() == text
    frames = read(tmp_path / "whole" / SELECTED, ":")
    assert len(frames) == 4
    uncertainties = [frame.info["uncertainty"] for frame in frames]
    assert uncertainties == sorted(uncertainties, reverse=True)
    for frame in frames:
        assert frame.calc is None
        assert set(frame.arrays) == {"numbers", "positions"}
        assert set(frame.info) == {"uncertainty", "uncertain_atom", "step", "time_fs"}
        assert frame.info["time_fs"] == 2 * frame.info["step"]
        assert frame.constraints[0].index.tolist() == [2]
        frame.calc = committee()
        assert frame.calc.get_property("forces_std", frame).max() == pytest.approx(frame.info["uncertainty"])


@pytest.mark.parametrize("lost", [True, False], ids=["checkpoint lost", "a part without selection"])
def test_what_was_selected_before_is_kept(tmp_path: Path, lost: bool) -> None:
    """Also where no checkpoint knows it, or a part of the run selected nothing."""

    def go(steps: int, number: int | None, restart: bool = True) -> None:
        select = None if number is None else SelectOptions(number, spacing=0, distance=0.0)
        run_md(
            crystal(), committee(), LangevinNVT(600), steps, timestep=2.0, files=files(tmp_path, restart),
            log_interval=2, frame_interval=10, checkpoint_interval=10, seed=5, select=select,
        )  # fmt: skip

    go(20, 2, restart=False)
    before = {(one.info["step"], one.info["uncertainty"]) for one in read(tmp_path / SELECTED, ":")}
    if lost:
        (tmp_path / "c.npz").unlink()
    else:
        go(30, None)
        assert {one.info["step"] for one in read(tmp_path / SELECTED, ":")} == {step for step, _ in before}
    # Enough room for all that is new.
    go(40, 20)
    after = {(one.info["step"], one.info["uncertainty"]) for one in read(tmp_path / SELECTED, ":")}
    assert {step for step, _ in before} < {step for step, _ in after}
    for step, uncertainty in before:
        assert min(abs(uncertainty - u) for s, u in after if s == step) < 1e-7


def test_the_trajectory_gives_the_same_selection(tmp_path: Path) -> None:
    """Frames of MD know their spreads; the committee finds them again in those that do not."""
    run(tmp_path)
    options = SelectOptions(4, spacing=6, distance=0.001)
    frames = read(tmp_path / "t.traj", ":")
    left = select_frames(frames, options)
    for frame in frames:
        frame.info.pop("forces_std")
    again = select_frames(frames, options, committee())
    assert [one.step for one in again] == [one.step for one in left]
    with pytest.raises(SimulationError, match="Frame 0 has no spreads of a committee"):
        select_frames(frames, options)


def test_what_came_before_an_explosion_is_kept(tmp_path: Path) -> None:
    atoms = Atoms("Cu2", [[0, 0, 0], [2.9, 0, 0]])
    atoms.set_velocities([[0.05, 0, 0], [-0.05, 0, 0]])
    with pytest.raises(SimulationError, match="MD stopped at step"):
        run_md(
            atoms, committee(), LangevinNVT(300), 500, timestep=1.0, files=files(tmp_path), keep_velocities=True,
            select=SelectOptions(3, spacing=0), log_interval=1, limits=Limits(closest=0.95),
        )  # fmt: skip
    assert read(tmp_path / SELECTED, ":")


@pytest.mark.slow
def test_replicas(tmp_path: Path) -> None:
    options = SelectOptions(3, spacing=4, distance=0.001)
    run_replicas(
        crystal(), committee(), LangevinNVT(600), 20, replicas_in(tmp_path, 2, 0), timestep=2.0, log_interval=2,
        select=options,
    )  # fmt: skip
    own = [tmp_path / f"replica_{k}" / SELECTED for k in range(2)]
    assert merge_selections(tmp_path, [*own, tmp_path / "missing"], options) == 3
    each = [frame for path in own for frame in read(path, ":")]
    assert {frame.info["replica"] for frame in each} == {0, 1}
    merged = read(tmp_path / SELECTED, ":")
    assert merged[0].info["uncertainty"] == max(frame.info["uncertainty"] for frame in each)
    assert {(f.info["replica"], f.info["step"]) for f in merged} <= {(f.info["replica"], f.info["step"]) for f in each}


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match="needs a committee"):
        run_md(crystal(), MLIPCalculator(MODELS[0]), LangevinNVT(), 5, files=files(tmp_path), select=SelectOptions())
    assert not list(tmp_path.iterdir())
    for options, message in (
        ({"number": 0}, "number must be a positive"),
        ({"spacing": -1.0}, "spacing of a selection"),
        ({"distance": math.nan}, "distance of a selection"),
        ({"lowest": 20.0}, "lowest uncertainty below the highest, got 20 and 10"),
    ):
        with pytest.raises(SimulationError, match=message):
            SelectOptions(**options)


def test_a_frame_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frames = [molecule("H2O"), molecule("CH4")]
    for frame in frames:
        frame.info = {"uncertainty": 1.0, "uncertain_atom": 0}
    write("good.extxyz", frames)
    Path("empty.xyz").touch()

    def call(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["select", *words])
        return result.exit_code, result.output + result.stderr

    status, output = call("empty.xyz", "good.extxyz")
    assert status == 1
    assert "'empty.xyz' is empty" in output
    assert len(read("selected.extxyz", ":")) == 2
    write("bare.xyz", [molecule("H2O")] * 2)
    assert "'bare.xyz#0' has no spreads" in call("bare.xyz", "-o", "a.xyz")[1]
    # Of an element that the models do not know.
    calculator = MLIPCalculator([PairModel(), PairModel()])
    said: list[str] = []
    known, unknown = bulk("Cu", cubic=True), bulk("Au", cubic=True)
    assert len(select_frames([unknown, known], SelectOptions(5), calculator, ["a", "b"], said.append)) == 1
    assert len(said) == 1
    assert said[0].startswith("'a': ")
    with pytest.raises(StructureError, match=r"^Frame 0: "):
        select_frames([unknown], SelectOptions(5), calculator)
