"""What a training step costs with direct forces, and with the gradient of the energy: python scripts/time_heads.py.

Both take turns, as in time_mace.py, which does the measuring. Further words are settings of mlip train, such as
model=nequip or model.irreps_hidden=32x0e+32x1o. Printed are milliseconds of CPU time a step on one thread, the median
over the rounds of the ratio to the gradient (with the lowest and highest), and the rise of the peak memory in a step.
"""

from __future__ import annotations

import argparse
from typing import Any

from ase import Atoms
from ase.io import read
from time_mace import CUTOFF, edges, measure

from mlip.cli.compose import compose, to_plain

HEADS = ("energy", "energy,direct_forces")
"""The first one is what the other is compared with."""


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="*", help="of mlip train")
    parser.add_argument("--data", default="data/ethanol_dft/ethanol.xyz", help="structures with energies and forces")
    parser.add_argument("--frames", type=int, default=16, help="structures of a batch, the last ones of the file")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    structures = read(options.data, index=f"-{options.frames}:")
    print(f"{sum(map(len, structures))} atoms, {edges(structures)} edges; {' '.join(options.settings)}")
    print("| model/head | parameters | ms | time ratio | lowest–highest | MB | memory ratio |")
    print("|---|---|---|---|---|---|---|")
    configs = {heads: configuration(structures, heads, options.settings) for heads in HEADS}
    for row in measure(configs, structures, options.rounds):
        print(f"| {row} |", flush=True)


def configuration(structures: list[Atoms], heads: str, settings: list[str]) -> dict[str, Any]:
    """Return the model of ``mlip train`` with these heads, on numbers that change no time instead of the data's."""
    elements = sorted({symbol for atoms in structures for symbol in atoms.get_chemical_symbols()})
    energies = ", ".join(f"{symbol}: 0.0" for symbol in elements)
    statistics = {
        "elements": f"[{', '.join(elements)}]",
        "num_neighbors": edges(structures) / sum(map(len, structures)),
        "atomic_energies": f"{{{energies}}}",
        "force_rms": 1.0,
        "energy_per_atom_mean": 0.0,
    }
    words = [f"statistics.{name}={value}" for name, value in statistics.items()]
    chosen = ["data=ethanol", f"cutoff={CUTOFF}", f"model/head=[{heads}]", *settings, *words]
    return to_plain(compose("train", chosen))["model"]


if __name__ == "__main__":
    main()
