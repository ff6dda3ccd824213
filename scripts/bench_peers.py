"""mlip against other packages, each in its own environment, in turns: python scripts/bench_peers.py md --help.

Every case is a process of its own that is bound to one core, has one thread, and does a turn when it is told to: A B C
A B C …, so that what else the machine does hits all alike. What counts is CPU time (user and system, all threads);
ratios are taken round by round, and their median, lowest and highest are printed. docs/benchmarks.md says what each
workload is.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peers import relaxations
from peers.driver import BenchmarkError, Case, Measured, Turns, environment, measure
from peers.tables import Row, growth_of, rows_of, table, write_lines
from peers.workloads import CUTOFF, Workload, crystals, molecules, silicon, stored

ENERGY, FORCES = 1e-5, 1e-4
"""eV an atom and eV/Å: largest difference of two packages that have the same model."""

MODES = {
    "off": ("mlip, kernels off", "model", "off"),
    "auto": ("mlip", "model", "auto"),
    "splines": ("mlip, splinified", "splines", "auto"),
}
"""mlip's cases of MD: name, which model, kernels."""

SPLINE_WEIGHTS = ["model/radial=bspline", "model/radial_weights=linear"]
MODELS: dict[str, tuple[str, dict[str, list[str]]]] = {
    "sevennet": ("sevenn", {"mlip": ["model=sevennet"], "mlip, splines": ["model=sevennet", *SPLINE_WEIGHTS]}),
    # The peer has a residual connection in its first layer, too.
    "mace": ("mace", {"mlip": ["model=mace", "model.residual=true"]}),
}
"""Of each model to be trained the peer that has it, and mlip's cases with their settings."""

KEPT = {"keep_memory": True}
"""Of mlip's cases of MD and training, as the command does; MLIP_KEEP_MEMORY=0 forbids it."""

WORKLOADS = {"bpa5": ("5 × 3BPA", partial(molecules, 5)), "si64x2": ("2 × Si64", partial(crystals, 64, 2))}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for, print a table, and write lines of JSON."""
    options = parse(arguments)
    rows: list[Row] = []
    problem = None
    try:
        write_lines(options.out, options.command, [])
        with tempfile.TemporaryDirectory() as folder:
            for measured in options.run(options, Path(folder)):
                rows += measured
                write_lines(options.out, options.command, measured)
                print(f"{measured[0]['workload']}: done", file=sys.stderr, flush=True)
    except BenchmarkError as error:
        problem = str(error)
    if rows:
        # What has been measured before a problem is not lost.
        print(f"\n{table(rows, memory=options.command in ('md', 'train'))}", flush=True)
    if problem:
        sys.exit(problem)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--python", action="append", default=[], metavar="PEER=PATH", help="e.g. sevenn=PATH/bin/python"
    )
    common.add_argument("--rounds", type=positive, default=7)
    common.add_argument("--turn", type=float, default=1.0, metavar="S", help="a turn repeats its step for so long [1]")
    common.add_argument("--warm-up", type=positive, default=3, help="repetitions before the first round [3]")
    common.add_argument("--core", type=int, help="core to run on [the last one that is allowed]; -1: do not bind")
    common.add_argument("--timeout", type=float, default=1200.0, metavar="S", help="longest wait for an answer [1200]")
    common.add_argument("--out", metavar="FILE", help="append lines of JSON")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")

    def command(run: Any, name: str, sizes: list[int] | None = None) -> argparse.ArgumentParser:
        found = commands.add_parser(name, parents=[common], help=run.__doc__, description=run.__doc__)
        found.set_defaults(run=run)
        if sizes:
            found.add_argument("--sizes", type=positive, nargs="+", default=sizes, help="atoms of silicon, 8 n³")
        return found

    convolution = command(run_convolution, "convolution", [216, 1000])
    convolution.add_argument("--lmax", type=int, nargs="+", default=[1, 2, 3], choices=range(1, 7))
    convolution.add_argument("--channels", type=positive, default=64)
    convolution.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    md = command(run_md, "md", [64, 216, 1000])
    md.add_argument("--modes", nargs="+", choices=MODES, help="mlip's cases [all; with --growth all but off]")
    md.add_argument("--splines", metavar="FILE", help="splinified model [made of --model by mlip splinify]")
    md.add_argument("--growth", action="store_true", help="mlip only, and all sizes take turns: time an atom")
    train = command(run_train, "train")
    train.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    train.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=WORKLOADS)
    relaxations.add_arguments(command(run_relax, "relax"))
    threads = command(run_threads, "threads", [1000])
    threads.add_argument("--threads", type=positive, nargs="+", default=[1, 2])
    for each in (md, threads):
        each.add_argument("--model", default="sevennet-0", help="file, or name of an imported model")
    md.add_argument("--checkpoint", default="7net-0", help="the same model for sevenn's calculator")
    # Threads are measured with one model.
    threads.set_defaults(splines=None, checkpoint=None)
    options = parser.parse_args(arguments)
    options.pythons = pythons(options.python)
    return options


def positive(text: str) -> int:
    """Read a whole number above zero."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number above zero")
    return int(text)


def pythons(given: Sequence[str]) -> dict[str, str]:
    """Return the interpreter of each peer that was given, and of what this environment has.

    Raises:
        SystemExit: not PEER=PATH.
    """
    found = {"mlip": sys.executable, "e3nn": sys.executable}
    peers = ("e3nn", "mace", "sevenn")
    for text in given:
        name, _, path = text.partition("=")
        if name not in peers or not path:
            sys.exit(f"--python takes PEER=PATH with one of {', '.join(peers)} as PEER, got '{text}'.")
        found[name] = path
    return found


def turns(options: argparse.Namespace, threads: int = 1) -> Turns:
    """Return how cases take turns, on as many cores as the threads of the largest case.

    Raises:
        BenchmarkError: there are not so many cores.
    """
    cores: tuple[int, ...] = ()
    if options.core != -1 and hasattr(os, "sched_getaffinity"):
        allowed = sorted(os.sched_getaffinity(0), reverse=True)
        if options.core is not None and options.core not in allowed:
            raise BenchmarkError(f"There is no core {options.core} here; this process may use {allowed[::-1]}.")
        first = allowed[0] if options.core is None else options.core
        cores = (first, *(core for core in allowed if core != first))[:threads]
        if len(cores) < threads:
            raise BenchmarkError(f"{threads} threads need as many cores, and this process may use {len(cores)}.")
    return Turns(options.rounds, options.turn, options.warm_up, cores, options.timeout)


def run_convolution(options: argparse.Namespace, folder: Path) -> Iterator[list[Row]]:
    """Gather, product with weights, sum over neighbours: e3nn and mlip's kernels."""
    for size in options.sizes:
        workload = stored(f"Si{size}", [silicon(size)], folder)
        for lmax in options.lmax:
            task = {"kind": "convolution", "structure": workload.path, "cutoff": CUTOFF, "lmax": lmax}
            task |= {"channels": options.channels, "dtype": options.dtype}
            cases = [Case("e3nn", "e3nn", options.pythons["e3nn"], task)]
            for kernels in ("off", "on"):
                name = f"mlip, kernels {kernels}"
                cases.append(Case(name, "mlip", options.pythons["mlip"], {**task, "kernels": kernels}))
            found = measure(cases, turns(options), same_convolution)
            yield rows_of(found, f"{workload.name}, {workload.edges} edges, lmax {lmax}", dtype=options.dtype)


def same_convolution(found: Sequence[Measured]) -> None:
    """Refuse results and gradients that are not the first one's."""
    for one in found[1:]:
        first, digest = (np.array(case.facts["digest"]) for case in (found[0], one))
        difference = float(np.abs(digest - first).max() / np.abs(first).max())
        if not difference < 1e-4:
            raise BenchmarkError(f"The results of {one.case.name} and e3nn differ by {difference:.1e} of their size.")


def run_md(options: argparse.Namespace, folder: Path) -> Iterator[list[Row]]:
    """A step of molecular dynamics: neighbour list, energy, forces and stress through ASE."""
    workloads = [stored(f"Si{size}", [silicon(size)], folder) for size in sorted(set(options.sizes))]
    modes = options.modes or [mode for mode in MODES if not (options.growth and mode == "off")]
    if "splines" in modes and options.splines is None:
        options.splines = splinified(options, workloads[0].path, folder)
    if options.growth:
        each = [(mode, workload) for mode in modes for workload in workloads]
        cases = [case for mode, workload in each for case in md_cases(options, workload, mode)]
        yield growth_of(measure(cases, turns(options)))
        return
    for workload in workloads:
        found = measure(md_cases(options, workload, *modes, peer="sevenn"), turns(options), same_energies)
        yield rows_of(found, workload.name, differences=differences(found))


def splinified(options: argparse.Namespace, structure: str, folder: Path) -> str:
    """Return the file of the model with splines for its radial functions, as ``mlip splinify`` makes it.

    Raises:
        BenchmarkError: the model cannot be splinified; says why.
    """
    target = str(folder / "splinified.safetensors")
    case = Case("mlip splinify", "mlip", options.pythons["mlip"], {})
    command = [case.python, "-m", "mlip.cli", "splinify", options.model, structure, "--output", target]
    try:
        done = subprocess.run(
            command, env=environment(case), capture_output=True, text=True, timeout=options.timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"mlip splinify took more than {options.timeout:g} s: take a longer --timeout.") from error
    if done.returncode != 0:
        reason = " ".join((done.stderr or done.stdout).split())
        raise BenchmarkError(f"mlip splinify failed: {reason} Leave the splinified model out with --modes off auto.")
    return target


def md_cases(options: argparse.Namespace, workload: Workload, *modes: str, peer: str | None = None) -> list[Case]:
    """Return mlip's cases of a structure, a peer before them if its Python is known."""
    task = {"kind": "md", "structure": workload.path, "checkpoint": options.checkpoint}
    models = {"model": options.model, "splines": options.splines}
    own = [
        Case(name, "mlip", options.pythons["mlip"], {**task, "model": models[model], "kernels": kernels, **KEPT})
        for name, model, kernels in (MODES[mode] for mode in modes)
    ]
    return own if peer not in options.pythons else [Case(peer, peer, options.pythons[peer], task), *own]


def differences(found: Sequence[Measured]) -> dict[str, list[float]]:
    """Return by how much each case differs from the first one: energy, eV an atom, and force component, eV/Å."""
    first = found[0].facts
    return {
        one.case.name: [
            abs(one.facts["energy"] - first["energy"]) / first["atoms"],
            float(np.abs(np.subtract(one.facts["forces"], first["forces"])).max()),
        ]
        for one in found[1:]
    }


def same_energies(found: Sequence[Measured]) -> None:
    """Print the differences to the first case; refuse those that are too large where the model is the same."""
    for one, (energy, forces) in zip(found[1:], differences(found).values()):
        print(
            f"{found[0].facts['atoms']} atoms, {one.case.name} − {found[0].case.name}: {energy:.1e} eV an atom, "
            f"{forces:.1e} eV/Å at most",
            flush=True,
        )
        # A splinified model is another one.
        if one.case.name != MODES["splines"][0] and not (energy < ENERGY and forces < FORCES):
            raise BenchmarkError(
                f"{one.case.name} and {found[0].case.name} differ by {energy:.1e} eV an atom and {forces:.1e} eV/Å: do "
                "--model and --checkpoint name the same model?"
            )


def run_train(options: argparse.Namespace, folder: Path) -> Iterator[list[Row]]:
    """A step of training on energies and forces: forward, forces, loss, backward, Adam."""
    for name in options.models:
        peer, settings = MODELS[name]
        for key in options.workloads:
            label, structures = WORKLOADS[key]
            workload = stored(label, structures(), folder)
            task = {"kind": "train", "structures": workload.path, "elements": workload.elements, "cutoff": CUTOFF}
            task["num_neighbors"] = workload.num_neighbors
            own = options.pythons["mlip"]
            cases = [Case(case, "mlip", own, {**task, "settings": chosen, **KEPT}) for case, chosen in settings.items()]
            if peer in options.pythons:
                cases.insert(0, Case(peer, peer, options.pythons[peer], task))
            found = measure(cases, turns(options), partial(same_edges, workload))
            yield rows_of(found, f"{name}, {label}")


def same_edges(workload: Workload, found: Sequence[Measured]) -> None:
    """Refuse a batch with other edges than ASE finds."""
    for one in found:
        if one.facts["edges"] != workload.edges:
            edges = one.facts["edges"]
            raise BenchmarkError(f"{one.case.name} has {edges} edges in {workload.name}, ASE finds {workload.edges}.")


def run_relax(options: argparse.Namespace, folder: Path) -> Iterator[list[Row]]:
    """Relaxation of crystals with their cells: many as one batch, one by one, and by ASE with another calculator."""
    workload = relaxations.workload_of(options, folder)
    found = measure(relaxations.cases_of(options, workload), turns(options), relaxations.same_minima)
    yield rows_of(found, workload.name)


def run_threads(options: argparse.Namespace, folder: Path) -> Iterator[list[Row]]:
    """The same step of mlip with several threads, wall time."""
    for size in options.sizes:
        (case,) = md_cases(options, stored(f"Si{size}", [silicon(size)], folder), "auto")
        cases = [Case(f"mlip, threads: {n}", "mlip", case.python, case.task, n) for n in options.threads]
        found = measure(cases, turns(options, max(options.threads)))
        yield rows_of(found, f"Si{size}", clock="wall")


if __name__ == "__main__":
    main()
