"""``mlip eos``: energy against volume."""

from typing import Annotated

import typer

from mlip.cli import properties as common


def eos(
    structure: common.Structure,
    model: common.Models,
    span: Annotated[float, typer.Option(help="Largest relative change of the volume.")] = 0.08,
    points: Annotated[int, typer.Option(help="Number of volumes, 5 or more.")] = 9,
    fixed: Annotated[
        bool, typer.Option("--fixed", help="Scale the positions with the cell, do not relax them.")
    ] = False,
    keep_shape: Annotated[
        bool, typer.Option("--keep-shape", help="Relax the positions only, not the shape of the cell at each volume.")
    ] = False,
    relax: common.Relax = False,
    fmax: common.Fmax = 0.005,
    steps: common.Steps = 500,
    frame: common.Frame = -1,
    output: common.Output = None,
    overwrite: common.Overwrite = False,
    charge: common.Charge = None,
    spin: common.Spin = None,
    device: common.Device = "cpu",
    dtype: common.Dtype = "float64",
) -> None:
    """Equilibrium volume and bulk modulus of a crystal.

    Example: mlip eos silicon.cif --model sevennet-0 --relax

    Fits the third-order Birch-Murnaghan equation. At each volume positions and shape of the cell are relaxed, so the
    bulk modulus of a crystal that is not cubic is that of hydrostatic pressure. Writes eos.csv, eos.json, eos.xyz (the
    structures) and eos.png into the output folder, and prints a table.
    """
    common.check_models(model)
    from mlip.simulate.structures import read_structure

    atoms = read_structure(structure, frame)
    folder = common.claim(output, f"eos_{structure.stem}", "eos.json", overwrite)
    calculator = common.open_calculator(model, device, dtype, charge, spin, [atoms])

    from mlip.core.units import GPA, MEV
    from mlip.simulate.properties.eos import equation_of_state
    from mlip.simulate.properties.files import write_structures, write_table
    from mlip.simulate.properties.plots import plot_equation_of_state

    result = equation_of_state(
        atoms, calculator, span=span, points=points, relax_ions=not fixed, relax_shape=not keep_shape,
        relax_first=relax, fmax=fmax, max_steps=steps,
    )  # fmt: skip
    columns = {"volume_A3": result.volumes, "energy_eV": result.energies}
    if result.curve is not None:
        columns["fit_eV"] = result.curve.energy(result.volumes)
    write_table(folder / "eos.csv", columns)
    write_structures(folder / "eos.xyz", result.structures)
    plot_equation_of_state(folder / "eos.png", result)
    common.record(folder, "eos.json", model, result.as_dict(), structure=structure)
    rows = []
    if result.curve is not None:
        curve, count = result.curve, result.num_atoms
        rows = [
            ("V0 / Å³/atom", f"{curve.v0 / count:.4f}"),
            ("B0 / GPa", f"{curve.b0 / GPA:.2f}"),
            ("B0'", f"{curve.b0_prime:.3f}"),
            ("E0 / eV/atom", f"{curve.e0 / count:.6f}"),
            ("residual / meV/atom", f"{result.residual / MEV:.4f}"),
        ]
    common.show(f"{result.formula}, equation of state", ("", ""), rows, result.warnings, folder)
