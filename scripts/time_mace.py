"""Time and memory of MACE's training step with each many-body product: python scripts/time_mace.py --lmax 1 2 3.

Each size is measured in rounds in which the products take turns, each in a process of its own, so that what else the
machine does hits all alike and the memory of one is not that of another. A step is forward, forces, a loss of energies
and forces, backward and Adam; CPU time of one thread. Printed are milliseconds a step, the median over the rounds of
the ratio to the symmetric contraction (with the lowest and highest), and the rise of the peak memory in a step.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import math
import statistics
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch
from ase import Atoms
from ase.io import read
from torch_geometric.data import Batch

from mlip.core.peak_memory import forget_peak_memory, peak_memory
from mlip.data.build_graph import build_graph
from mlip.models.build import build_model
from mlip.nn.derivatives import predict

PRODUCTS = {
    "symmetric_contraction": "symmetric_contraction.SymmetricContraction",
    "gaunt_grid": "gaunt_grid.GauntGridManyBody",
    "gaunt_fourier": "gaunt_fourier.GauntFourierManyBody",
}
"""The first one is what the others are compared with."""

CUTOFF = 5.0


def main() -> None:
    """Measure every size asked for and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="data/ethanol_dft/ethanol.xyz", help="structures with energies and forces")
    parser.add_argument("--frames", type=int, default=5, help="structures of a batch, the last ones of the file")
    parser.add_argument("--lmax", type=int, nargs="+", default=[1, 2, 3], help="degrees of the edges and products")
    parser.add_argument(
        "--lmax-hidden", type=int, default=1, help="degrees of the features, at most those of the edges"
    )
    parser.add_argument("--correlation", type=int, nargs="+", default=[2, 3], help="highest powers")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    structures = read(options.data, index=f"-{options.frames}:")
    print(
        f"{options.channels} channels, features up to degree {options.lmax_hidden}, {sum(map(len, structures))} atoms, "
        f"{edges(structures)} edges"
    )
    print(
        "| lmax | correlation | many-body product | parameters | ms | time ratio | lowest–highest | MB | memory ratio |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for correlation in options.correlation:
        for lmax in options.lmax:
            hidden = min(lmax, options.lmax_hidden)
            configs = {
                name: configuration(structures, options.channels, hidden, lmax, correlation, target)
                for name, target in PRODUCTS.items()
            }
            for row in measure(configs, structures, options.rounds):
                print(f"| {lmax} | {correlation} | {row} |", flush=True)


def edges(structures: list[Atoms]) -> int:
    """Return the number of edges of all structures together."""
    return sum(build_graph(atoms, CUTOFF).edge_index.shape[1] for atoms in structures)


def configuration(
    structures: list[Atoms], channels: int, lmax_hidden: int, lmax: int, correlation: int, many_body: str
) -> dict[str, Any]:
    """Return a MACE of two layers as configs/model/mace.yaml has it, but for the sizes."""

    def part(path: str, **settings: Any) -> dict[str, Any]:
        return {"_target_": f"mlip.{path}", "_partial_": True, **settings}

    elements = sorted({symbol for atoms in structures for symbol in atoms.get_chemical_symbols()})
    readout = {"all_layers": True, "hidden": [16], "activation": {"_target_": "mlip.nn.activations.SiLU"}}
    energies = dict.fromkeys(elements, 0.0)
    return {
        "_target_": "mlip.models.mace.MACE",
        "elements": elements,
        "cutoff": CUTOFF,
        "num_neighbors": edges(structures) / sum(map(len, structures)),
        "irreps_hidden": "+".join(f"{channels}x{l}{'eo'[l % 2]}" for l in range(lmax_hidden + 1)),
        "num_layers": 2,
        "lmax_edge": lmax,
        "correlation": correlation,
        "tensor_product": part("ops.tensor_product.clebsch_gordan_dense.ClebschGordanDense"),
        "many_body": part(f"ops.many_body.{many_body}"),
        "radial": part("ops.radial.bessel.Bessel", num_basis=8),
        "envelope": part("ops.envelope.polynomial.Polynomial", p=5),
        "radial_weights": part("nn.radial_weights.mlp.RadialMLP", hidden=[64, 64, 64]),
        "self_connection": part("nn.self_connection.species.SpeciesSelfConnection"),
        "head": {"energy": part("nn.heads.energy.EnergyHead", atomic_energies=energies, **readout)},
    }


def measure(configs: dict[str, dict[str, Any]], structures: list[Atoms], rounds: int) -> list[str]:
    """Return a row of the table for each product: name, parameters, time and memory with their ratios."""
    context = get_context("spawn")
    pipes, workers = {}, []
    for name, config in configs.items():
        pipes[name], theirs = context.Pipe()
        workers.append(context.Process(target=work, args=(theirs, config, structures), daemon=True))
        workers[-1].start()
    sizes = {name: pipe.recv() for name, pipe in pipes.items()}
    seconds: dict[str, list[float]] = {name: [] for name in configs}
    for _ in range(rounds):
        for name, pipe in pipes.items():
            pipe.send(True)
            seconds[name].append(pipe.recv())
    for pipe, worker in zip(pipes.values(), workers):
        pipe.send(False)
        worker.join()
    first = next(iter(configs))
    rows = []
    for name in configs:
        ratios = [mine / theirs for mine, theirs in zip(seconds[name], seconds[first])]
        parameters, memory = sizes[name]
        rows.append(
            f"{name} | {parameters:,} | {statistics.median(seconds[name]) * 1e3:.0f} | "
            f"{statistics.median(ratios):.2f} | {min(ratios):.2f}–{max(ratios):.2f} | {memory:.0f} | "
            f"{memory / sizes[first][1]:.2f}"
        )
    return rows


def work(pipe: Connection, config: dict[str, Any], structures: list[Atoms]) -> None:
    """Build one model, send (parameters, MB of a step), then a step's seconds whenever asked for them."""
    torch.set_num_threads(1)
    model = build_model(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    batch = labelled_batch(structures)

    def step() -> float:
        started = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        found = predict(model, batch, ("energy", "forces"), create_graph=True)
        loss = (found["energy"] - batch.energy).square().mean() + (found["forces"] - batch.forces).square().mean()
        loss.backward()
        optimizer.step()
        return time.process_time() - started

    for _ in range(2):
        step()
    optimizer.zero_grad(set_to_none=True)
    before = reset_peak()
    step()
    pipe.send((model.num_parameters, peak() - before))
    while pipe.recv():
        pipe.send(min(step() for _ in range(2)))


def labelled_batch(structures: list[Atoms]) -> Batch:
    """Return one batch with energies (eV) and forces (eV/Å)."""
    graphs = []
    for atoms in structures:
        graph = build_graph(atoms, CUTOFF)
        graph.energy = torch.tensor([atoms.get_potential_energy()], dtype=torch.float64)
        graph.forces = torch.tensor(atoms.get_forces(), dtype=torch.float64)
        graphs.append(graph)
    return Batch.from_data_list(graphs)


def reset_peak() -> float:
    """Give free memory back, forget the peak so far, and return the memory in use, MB."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    forget_peak_memory()
    return peak()


def peak() -> float:
    """Return the highest resident memory since the last reset, MB."""
    return (peak_memory() or math.nan) / 2**20


if __name__ == "__main__":
    main()
