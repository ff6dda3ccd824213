"""``mlip hull``: formation energies and energies above the convex hull."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlip.cli import properties as common

if TYPE_CHECKING:
    from ase import Atoms


def hull(
    structures: Annotated[
        list[str], typer.Argument(help="Compounds to be judged: files, folders, 'pattern*.cif', as for mlip relax.")
    ],
    model: common.Models,
    references: Annotated[
        list[str],
        typer.Option("--reference", "-r", help="Elements and competing compounds, likewise; may be repeated."),
    ] = [],  # noqa: B006 - typer copies it
    entries: Annotated[
        Path | None,
        typer.Option(help="More references: CSV or JSON with formula and energy_eV (or energy_eV_per_atom)."),
    ] = None,
    fmax: common.Fmax = 0.02,
    steps: common.Steps = 500,
    output: common.Output = None,
    overwrite: common.Overwrite = False,
    charge: common.Charge = None,
    spin: common.Spin = None,
    device: common.Device = "cpu",
    dtype: common.Dtype = "float64",
) -> None:
    """Formation energies, and energies above the hull.

    Example: mlip hull 'candidates/*.cif' --reference Cu.cif --reference Au.cif --reference known/ --model sevennet-0

    All structures are relaxed (crystals with their cells) as one batch; every element needs a reference. Energies in
    --entries must come from the same model. Writes hull.csv, hull.json and hull.png, and prints a table.
    """
    common.check_models(model)
    from mlip.simulate.properties.hull import energies_above_hull, read_entries, relaxed_entries, require_elements

    stated = [] if entries is None else read_entries(entries)
    judged, known = _read(structures), _read(references)
    symbols = {symbol for _, atoms in judged for symbol in atoms.symbols}
    require_elements(symbols, [atoms.get_chemical_formula() for _, atoms in known] + [one.formula for one in stated])
    folder = common.claim(output, "hull", "hull.json", overwrite)
    calculator = common.open_calculator(model, device, dtype, charge, spin, [atoms for _, atoms in judged + known])

    from mlip.simulate.properties.files import write_table
    from mlip.simulate.properties.hull_plot import plot_hull

    relaxed, warnings = relaxed_entries(judged + known, calculator, fmax=fmax, max_steps=steps)
    own, others = relaxed[: len(judged)], [*relaxed[len(judged) :], *stated]
    found = energies_above_hull(own, others)
    warnings = [*warnings, *(text for one in found for text in one.warnings)]
    columns = {
        "name": [one.name for one in found],
        "formula": [one.formula for one in found],
        "energy_eV_per_atom": [one.energy_per_atom for one in found],
        "formation_energy_eV_per_atom": [one.formation_energy for one in found],
        "energy_above_hull_eV_per_atom": [one.above_hull for one in found],
    }
    write_table(folder / "hull.csv", columns)
    elements = {element for one in own for element in one.elements}
    inside = [one for one in others if one.elements <= elements]
    plot_hull(folder / "hull.png", found, energies_above_hull(inside, [*others, *own]))
    common.record(folder, "hull.json", model, {"entries": [one.as_dict() for one in found]})
    rows = [
        (one.name, one.formula, f"{one.formation_energy:.4f}", f"{one.above_hull:.4f}", _mixture(one.decomposition))
        for one in sorted(found, key=lambda one: one.above_hull)
    ]
    header = ("", "", "formation", "above hull", "most stable mixture")
    common.show("Energies / eV/atom", header, rows, warnings, folder)


def _read(words: list[str]) -> list[tuple[str, "Atoms"]]:
    """Read structures; the first that cannot be read is an error, since a hull without it would be another one."""
    from mlip.core.errors import StructureError
    from mlip.simulate.inputs import find_inputs, read_inputs

    found = []
    for one in read_inputs(find_inputs(words)):
        if one.atoms is None:
            raise StructureError(one.error)
        found.append((one.name, one.atoms))
    return found


def _mixture(decomposition: dict[str, float]) -> str:
    return " + ".join(f"{share:.3g} {formula}" for formula, share in decomposition.items())
