"""Splinified models: the same functions in another basis, and nothing else changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlip.core.errors import ConfigError
from mlip.data.build_graph import graph_of
from mlip.models.splinify import FLOOR, splinify
from mlip.nn.derivatives import predict
from mlip.testing.structures import molecule
from tests.components import component, compose_model, random_model, small_facet

SIZES = {
    "nequip": ("model.irreps_hidden=4x0e+2x1o", "model.num_layers=2", "model.lmax_edge=1"),
    "mace": ("model.irreps_hidden=2x0e+2x1o", "model.lmax_edge=1", "model.correlation=2"),
}


def mlp_model(name: str) -> torch.nn.Module:
    return random_model(compose_model(name, *SIZES[name], "model.radial_weights.hidden=[8]"), size=0.0)


def spline(num_basis: int) -> tuple[dict[str, object], dict[str, object]]:
    return {**component("radial", "bspline"), "num_basis": num_basis}, component("radial_weights", "linear")


@pytest.mark.parametrize("name", list(SIZES))
def test_more_splines_come_closer_and_nothing_else_changes(name: str) -> None:
    model = mlp_model(name)
    graph = graph_of(molecule(model.elements), model.graph_builder)
    exact = predict(model, graph)["forces"]
    lengths = (graph.positions[graph.senders] - graph.positions[graph.receivers]).norm(dim=1)
    gaps, r2 = [], []
    for num_basis in (8, 16, 48):
        new, fits = splinify(model, *spline(num_basis), distances=lengths)
        gaps.append(float((predict(new, graph)["forces"] - exact).square().mean().sqrt()))
        r2.append(min(fit.r2 for fit in fits))
        assert all(fit.parameters_after == num_basis * new.get_submodule(fit.name).weight_numel for fit in fits)
    assert r2 == sorted(r2)
    assert r2[-1] > 0.9999
    assert gaps[-1] < 0.1 * gaps[0]
    before, after = model.state_dict(), new.state_dict()
    others = [key for key in after if "radial_weights" not in key and not key.startswith("edges.basis")]
    assert others
    assert all(torch.equal(before[key], after[key]) for key in others)


def test_fit_is_weighted_least_squares() -> None:
    """One layer against numpy: distances around 2 Å count, others hardly."""
    model = mlp_model("nequip")
    lengths = torch.full((1000,), 2.0, dtype=torch.float64)
    far, _ = splinify(model, *spline(8), distances=torch.full((1000,), 3.5, dtype=torch.float64))
    new, fits = splinify(model, *spline(8), distances=lengths)
    r = fits[0].distances
    near = ((r - 2.0).abs() < 0.1).numpy()
    with torch.no_grad():
        design = new.edges.basis(r).numpy()
        old = model.layers[0].convolution.radial_weights(model.edges.basis(r)).numpy()
        found, other = (m.layers[0].convolution.radial_weights(m.edges.basis(r)).numpy() for m in (new, far))
    # Bins 48 to 50 of 100 over 4 Å hold the distances, smoothed over three; the rest has the floor.
    bins = (r.numpy() / 4.0 * 99).astype(int)
    density = np.where(np.abs(bins - 50) <= 1, 1.0, FLOOR)
    best, *_ = np.linalg.lstsq(design * density[:, None] ** 0.5, old * density[:, None] ** 0.5, rcond=None)
    assert np.abs(found - design @ best).max() < 1e-8
    assert np.square(found - old)[near].sum() < 0.3 * np.square(other - old)[near].sum()


def test_low_rank_is_the_best_of_its_rank() -> None:
    """Eckart and Young: what is left are the other singular values, which numpy knows, too."""
    model = mlp_model("nequip")
    fine = {**component("radial", "bspline"), "num_basis": 20}
    low = {**component("radial_weights", "low_rank"), "rank": 3}
    full, _ = splinify(model, fine, component("radial_weights", "linear"))
    new, fits = splinify(model, fine, low)
    r = fits[0].distances
    with torch.no_grad():
        basis = new.edges.basis(r)
        every, three = (m.layers[0].convolution.radial_weights(basis).numpy() for m in (full, new))
    root = np.sqrt(np.clip((r.numpy() / r.numpy().max()) ** 2, FLOOR, None))[:, None]
    values = np.linalg.svd(every * root, compute_uv=False)
    assert np.linalg.norm((every - three) * root) == pytest.approx(np.linalg.norm(values[3:]), rel=1e-6)
    assert np.linalg.matrix_rank(three, tol=1e-9 * values[0]) == 3
    assert fits[0].parameters_after == 3 * (20 + model.layers[0].convolution.radial_weights.weight_numel)


def test_mistakes() -> None:
    shapes = random_model(compose_model("shape_classifier", "model.irreps_hidden=4x0e+2x1o", "model.num_layers=1"))
    with pytest.raises(ConfigError, match="ShapeClassifier has no radial weights"):
        splinify(shapes, *spline(8))
    with pytest.raises(ConfigError, match="num_basis >= 4"):
        splinify(mlp_model("nequip"), *spline(3))
    with pytest.raises(ConfigError, match="RadialMLP cannot be fitted"):
        splinify(small_facet(), component("radial", "bspline"), component("radial_weights", "mlp"))
    with pytest.raises(ConfigError, match="rank >= 1"):
        splinify(mlp_model("nequip"), spline(8)[0], {**component("radial_weights", "low_rank"), "rank": 0})
