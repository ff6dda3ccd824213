"""Time and memory of Hamiltonian networks: SPHNet against QHNet, and what each of its parts and gates gives.

All variants have the same number of channels and random weights: time does not depend on them. They take turns, each
in a process of its own, so that what else the machine does hits all alike and the memory of one is not that of another.
Gates of paths are as after training: fixed, and only the kept paths are computed, which paths being drawn at random.

Printed, and written as CSV and PNG, for every molecule:
  training     forward, mean absolute and squared error, backward, AdamW; the batch is COPIES of the molecule
  inference    forward without gradients, in evaluation mode, of the same batch
  ms           median over the rounds of the CPU time (time.process_time) on one thread
  faster       median over the rounds of the ratio of the first variant's time to this one's, with lowest and highest
  MB           rise of the peak resident memory of the process (VmHWM, set back before) in one such step
  kept         edges of atoms, pairs and paths that the gates keep in the layers that have them
  share        of every part in a training step, by torch's profiler, which slows small operations down

Examples:
  python scripts/time_hamiltonians.py                                    both papers' networks at 64 channels, 10 min
  python scripts/time_hamiltonians.py --quick                            small ones, to see whether it works, 1 min
  python scripts/time_hamiltonians.py --molecules C10H22:2 my.xyz:1 --channels 128 --variants qhnet "sphnet 0.7"
"""

from __future__ import annotations

import argparse
import statistics
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from time_mace import peak, reset_peak
from timed_molecules import named_molecule
from timed_parts import PARTS, shares
from timed_tables import plot_networks, print_shares, print_times, write
from torch_geometric.data import Batch

from mlip.cli.compose import compose, to_plain
from mlip.data.build_graph import graph_of
from mlip.data.orbitals import shells
from mlip.models.build import build_model
from mlip.models.hamiltonian_network import HamiltonianNetwork
from mlip.nn.orbitals.pair_gate import PairGate
from mlip.nn.orbitals.path_gate import PathGate


def gates(pair: float | None, path: float | None) -> tuple[str, ...]:
    """Return the settings of an SPHNet with these sparsities; None for no such gate."""
    settings = ["model=sphnet"]
    settings.append("model/pair_gate=none" if pair is None else f"model.pair_gate.sparsity={pair}")
    settings.append("model/path_gate=none" if path is None else f"model.path_gate.sparsity={path}")
    return tuple(settings)


VARIANTS: dict[str, tuple[str, ...]] = {
    "qhnet": ("model=qhnet",),
    "qhnet, 2 layers": ("model=qhnet", "model.num_layers=2"),
    "and pairs by element": ("model=qhnet", "model.num_layers=2", "model.pairs=by_element"),
    "sphnet, no gates": gates(None, None),
    "sphnet 0.0": gates(0.0, 0.0),
    "sphnet 0.4": gates(0.4, 0.4),
    "sphnet 0.7": gates(0.7, 0.7),
    "pair gate 0.7 alone": gates(0.7, None),
    "path gate 0.7 alone": gates(None, 0.7),
}
"""The first one is what the others are compared with. A number is the sparsity of both gates."""

WAYS = ("training", "inference")
COLUMNS = ("molecule", "variant", "way", "ms", "faster", "lowest", "highest", "MB", "MB_less", "parameters", "kept")


def main(arguments: list[str] | None = None) -> None:
    """Measure every molecule, print Markdown tables, write ``times.csv``, ``shares.csv`` and ``times.png``."""
    options = parse(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for text in options.molecules:
        name, _, copies = text.partition(":")
        atoms = named_molecule(name)
        configs = {variant: configuration(atoms, VARIANTS[variant], options) for variant in options.variants}
        found, of_parts = measure(configs, atoms, int(copies or 1), options.rounds)
        print(f"\n{name} x {copies or 1}: {len(atoms)} atoms, {describe(configs[options.variants[0]], atoms)}")
        print_times(found)
        print_shares(of_parts)
        rows += [{"molecule": name, **row} for row in found]
        parts += [{"molecule": name, "variant": variant, **row} for variant, row in of_parts.items()]
        write(options.output / "times.csv", COLUMNS, rows)
        write(options.output / "shares.csv", ("molecule", "variant", *PARTS), parts)
        plot_networks(options.output / "times.png", rows, parts)
    print(f"\nWritten: {options.output}/times.csv, shares.csv, times.png")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options; what is wrong with them is said before anything is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--molecules", nargs="+", metavar="NAME:COPIES", default=["ethanol:8", "C13H28:1"])
    parser.add_argument("--variants", nargs="+", metavar="NAME", default=list(VARIANTS), help=", ".join(VARIANTS))
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--lmax", type=int, default=4, help="highest degree of the features")
    parser.add_argument("--basis", default="def2-svp")
    parser.add_argument("--cutoff", type=float, default=15.0, help="Angstrom")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("hamiltonian_times"), metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="two rounds of small networks on ethanol alone")
    options = parser.parse_args(arguments)
    if options.quick:
        options.molecules, options.channels, options.lmax, options.rounds = ["ethanol:1"], 8, 2, 2
    if unknown := [name for name in options.variants if name not in VARIANTS]:
        parser.error(f"there is no variant '{unknown[0]}'; there are: {', '.join(VARIANTS)}")
    for text in options.molecules:
        if not (text.partition(":")[2] or "1").isdecimal() or text.endswith(":0"):
            parser.error(f"'{text}' is not NAME:COPIES, such as ethanol:8")
        named_molecule(text.partition(":")[0])
    if min(options.channels, options.lmax, options.rounds) < 1 or options.channels % 8:
        parser.error("lmax and rounds must be at least 1, channels a multiple of 8, the heads of SPHNet's front end")
    return options


def configuration(atoms: Atoms, settings: tuple[str, ...], options: argparse.Namespace) -> dict[str, Any]:
    """Return the model of ``mlip train`` for the elements of a molecule, its paths fixed from the first step on."""
    elements = sorted(set(atoms.get_chemical_symbols()))
    degrees = {symbol: list(shells(options.basis, number)) for symbol, number in numbers_of(atoms).items()}
    words = [
        *settings,
        f"cutoff={options.cutoff}",
        f"model.num_channels={options.channels}",
        f"model.lmax={options.lmax}",
        f"statistics.elements=[{','.join(elements)}]",
        f"statistics.basis={options.basis}",
        "statistics.functional=b3lyp5",
        "statistics.num_neighbors=20.0",
        f"statistics.shells={{{','.join(f'{symbol}:{degrees[symbol]}' for symbol in elements)}}}".replace(" ", ""),
    ]
    if "model=sphnet" in settings and "model/path_gate=none" not in settings:
        words += ["model.path_gate.random_steps=0", "model.path_gate.adaptive_steps=0"]
    return to_plain(compose("train", ["data=qh9", "data.path=none", "loss=[hamiltonian]", *words]))["model"]


def numbers_of(atoms: Atoms) -> dict[str, int]:
    """Return the atomic numbers by symbol."""
    return dict(zip(atoms.get_chemical_symbols(), atoms.numbers.tolist()))


def timed_model(config: dict[str, Any]) -> HamiltonianNetwork:
    """Return a model with random weights, whose gates have chosen some paths as if by training."""
    model = build_model(config, seed=0)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        # Equal strengths would keep the first paths, those of the lowest degrees, which are the cheapest.
        if name.endswith("strengths"):
            parameter.data = 1.0 + 0.1 * torch.randn(parameter.shape, generator=generator)
    model.begin_step(0)
    return model


def describe(config: dict[str, Any], atoms: Atoms) -> str:
    """Return how many orbitals and edges a molecule has."""
    model = build_model(config, seed=0)
    graph = graph_of(atoms, model.graph_builder)
    orbitals = sum(int(model.blocks.orbitals_of[model.species_index[number]]) for number in atoms.numbers)
    return f"{orbitals} orbitals, {graph.edge_index.shape[1]} edges; {config['num_channels']} channels"


def measure(
    configs: dict[str, dict[str, Any]], atoms: Atoms, copies: int, rounds: int
) -> tuple[list[dict[str, Any]], dict[str, dict[str, float]]]:
    """Return rows of times and memory, and by variant the shares of the parts."""
    # One process imports what takes long, and the workers are copies of it.
    context = get_context("forkserver")
    context.set_forkserver_preload(["mlip.cli.compose", "mlip.models.hamiltonian_network", "matplotlib.pyplot"])
    pipes, workers = {}, []
    for name, config in configs.items():
        pipes[name], theirs = context.Pipe()
        workers.append(context.Process(target=work, args=(theirs, config, atoms, copies), daemon=True))
        workers[-1].start()
        # With no end of it left here, a worker that breaks off ends the waiting below.
        theirs.close()
        pipes[name].recv()
    first = next(iter(configs))
    memory = {name: ask(pipe, "memory") for name, pipe in pipes.items()}
    seconds: dict[str, dict[str, list[float]]] = {way: {name: [] for name in configs} for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            for name, pipe in pipes.items():
                seconds[way][name].append(ask(pipe, way))
    about = {name: ask(pipe, "about") for name, pipe in pipes.items()}
    parts = {name: ask(pipe, "shares") for name, pipe in pipes.items()}
    for pipe, worker in zip(pipes.values(), workers):
        pipe.send("end")
        worker.join()
    rows = []
    for way in WAYS:
        for name in configs:
            ratios = [theirs / mine for theirs, mine in zip(seconds[way][first], seconds[way][name])]
            mine = {"variant": name, "way": way, "ms": statistics.median(seconds[way][name]) * 1e3}
            mine |= {"faster": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}
            mine |= {"MB": memory[name][way], "MB_less": memory[first][way] / memory[name][way], **about[name]}
            rows.append(mine)
    return rows, parts


def ask(pipe: Connection, question: str) -> Any:
    """Send a question to a worker and wait for the answer."""
    pipe.send(question)
    return pipe.recv()


def work(pipe: Connection, config: dict[str, Any], atoms: Atoms, copies: int) -> None:
    """Build one model and answer questions until the end."""
    torch.set_num_threads(1)
    model = timed_model(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    batch = Batch.from_data_list([graph_of(atoms, model.graph_builder) for _ in range(copies)])

    def train() -> None:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        error = model(batch)["hamiltonian"]
        (error.abs().mean() + error.square().mean()).backward()
        optimizer.step()

    def infer() -> None:
        model.eval()
        with torch.no_grad():
            model(batch)

    steps = dict(zip(WAYS, (train, infer)))

    def seconds(way: str) -> float:
        started = time.process_time()
        steps[way]()
        return time.process_time() - started

    def memory() -> dict[str, float]:
        found = {}
        for way in WAYS:
            seconds(way)
            optimizer.zero_grad(set_to_none=True)
            before = reset_peak()
            seconds(way)
            found[way] = peak() - before
        return found

    pipe.send("ready")
    while (question := pipe.recv()) != "end":
        if question in WAYS:
            pipe.send(seconds(question))
        elif question == "memory":
            pipe.send(memory())
        elif question == "about":
            pipe.send({"parameters": model.num_parameters, "kept": kept(model, batch)})
        else:
            pipe.send(shares(model, train))


def kept(model: HamiltonianNetwork, batch: Batch) -> str:
    """Return which shares the gates let through, in percent: of the pairs in every gated layer, and of all paths."""
    found: list[float] = []
    handles = [
        module.register_forward_hook(lambda _, given, gated: found.append(len(gated.kept) / len(given[0])))
        for module in model.modules()
        if isinstance(module, PairGate)
    ]
    with torch.no_grad():
        model.eval()(batch)
    for handle in handles:
        handle.remove()
    gates_of_paths = [module for module in model.modules() if isinstance(module, PathGate)]
    text = [f"{share:.0%}".replace("%", "") for share in found]
    paths = sum(len(gate.strengths) for gate in gates_of_paths)
    of_paths = f"{sum(gate.num_kept for gate in gates_of_paths) / paths:.0%}".replace("%", "") if paths else "100"
    return f"pairs {' and '.join(text) or 100}, paths {of_paths}"


if __name__ == "__main__":
    main()
