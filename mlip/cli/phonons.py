"""``mlip phonons``: bands, density of states and thermodynamics."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlip.cli import properties as common

if TYPE_CHECKING:
    from mlip.simulate.properties.phonons import PhononResult


def phonons(
    structure: common.Structure,
    model: common.Models,
    supercell: Annotated[
        tuple[int, int, int] | None, typer.Option(help="Repetitions of the cell, such as 3 3 3.  [default: by width]")
    ] = None,
    min_length: Annotated[float, typer.Option(help="Å, smallest width of the supercell.")] = 12.0,
    displacement: Annotated[float, typer.Option(help="Å by which atoms are displaced.")] = 0.01,
    mesh: Annotated[float, typer.Option(help="Å, density of wave vectors for DOS and thermodynamics.")] = 60.0,
    max_temperature: Annotated[int, typer.Option(help="K, end of the thermodynamics, in steps of 10.")] = 1000,
    relax: common.Relax = False,
    fmax: common.Fmax = 1e-4,
    steps: common.Steps = 500,
    frame: common.Frame = -1,
    output: common.Output = None,
    overwrite: common.Overwrite = False,
    charge: common.Charge = None,
    spin: common.Spin = None,
    device: common.Device = "cpu",
    dtype: common.Dtype = "float64",
) -> None:
    """Phonons of a crystal, by finite displacements.

    Example: mlip phonons silicon.cif --model sevennet-0 --relax --min-length 15

    Writes band.csv, dos.csv, thermo.csv, band.png, thermo.png, phonons.json and phonopy_params.yaml (for phonopy.load)
    into the output folder, and prints a table.
    """
    common.check_models(model)
    from mlip.simulate.structures import read_structure, write_final_structure

    atoms = read_structure(structure, frame)
    folder = common.claim(output, f"phonons_{structure.stem}", "phonons.json", overwrite)

    from mlip.simulate.properties.phonons import phonons as run
    from mlip.simulate.properties.phonons import require_phonopy

    require_phonopy()
    calculator = common.open_calculator(model, device, dtype, charge, spin, [atoms])
    result = run(
        atoms, calculator, supercell=supercell, min_length=min_length, displacement=displacement, mesh=mesh,
        temperatures=range(0, max_temperature + 1, 10), relax_first=relax, fmax=fmax, max_steps=steps,
    )  # fmt: skip
    write_final_structure(folder, result.structure, "relaxed")
    _write(folder, result)
    values = result.as_dict()
    common.record(folder, "phonons.json", model, values, structure=structure, dtype=dtype)
    rows = [
        ("atoms in the primitive cell", f"{values['atoms_primitive']}"),
        ("displacements", f"{result.num_displacements}"),
        ("atoms in the supercell", f"{values['atoms_in_supercell']}"),
        ("lowest frequency / THz", f"{result.lowest:.3f}"),
        ("highest frequency / THz", f"{result.highest:.3f}"),
        ("highest at Γ / THz", f"{result.gamma()[-1]:.3f}"),
        ("imaginary modes", "no" if result.stable else "yes"),
        ("zero-point energy / meV", f"{1000 * result.thermodynamics.free_energy[0]:.2f}"),
        (f"Cv({values['temperature_K']:.0f} K) / J/K/mol", f"{values['heat_capacity_J_per_K_mol']:.3f}"),
        (f"S({values['temperature_K']:.0f} K) / J/K/mol", f"{values['entropy_J_per_K_mol']:.3f}"),
        ("largest residual force / eV/Å", f"{result.residual_force:.2g}"),
        ("acoustic sum rule missed by / eV/Å²", f"{result.sum_rule:.2g}"),
    ]
    title = f"{result.formula}, {result.spacegroup}, supercell {'×'.join(map(str, result.repeats))}; per primitive cell"
    common.show(title, ("", ""), rows, result.warnings, folder)


def _write(folder: Path, result: "PhononResult") -> None:
    from mlip.simulate.properties.files import write_table
    from mlip.simulate.properties.phonons import save_phonopy
    from mlip.simulate.properties.plots import plot_bands, plot_thermodynamics

    thermo, per_mole = result.thermodynamics, 96485.33212
    columns: dict[str, list] = {"segment": [], "distance_per_A": [], "qx": [], "qy": [], "qz": []}
    bands = result.bands[0].frequencies.shape[1]
    columns |= {f"frequency_{band + 1}_THz": [] for band in range(bands)}
    for segment in result.bands:
        name = "-".join(segment.labels)
        for q, distance, frequencies in zip(segment.qpoints, segment.distances, segment.frequencies):
            for column, value in zip(columns.values(), (name, distance, *q, *frequencies), strict=True):
                column.append(value)
    write_table(folder / "band.csv", columns)
    write_table(folder / "dos.csv", {"frequency_THz": result.dos[:, 0], "states_per_THz": result.dos[:, 1]})
    write_table(
        folder / "thermo.csv",
        {
            "temperature_K": thermo.temperatures,
            "free_energy_eV": thermo.free_energy,
            "entropy_J_per_K_mol": thermo.entropy * per_mole,
            "heat_capacity_J_per_K_mol": thermo.heat_capacity * per_mole,
        },
    )
    plot_bands(folder / "band.png", result)
    plot_thermodynamics(folder / "thermo.png", result)
    save_phonopy(folder / "phonopy_params.yaml", result)
