"""``mlip neb``: the path between two minima and its barrier."""

from pathlib import Path
from typing import Annotated

import typer

from mlip.cli import properties as common


def neb(
    initial: Annotated[Path, typer.Argument(help="First end point: any file that ASE reads.")],
    final: Annotated[Path, typer.Argument(help="Last end point: the same atoms in the same order.")],
    model: common.Models,
    images: Annotated[int, typer.Option(help="Images between the end points.")] = 7,
    climb: Annotated[bool, typer.Option(help="Let the highest image climb to the saddle point.")] = True,
    relax: Annotated[bool, typer.Option("--relax", help="Relax the end points first.")] = False,
    vibrations: Annotated[bool, typer.Option("--vibrations", help="Check the saddle point by its vibrations.")] = False,
    spring: Annotated[float, typer.Option(help="Spring constant between images, eV/Å².")] = 0.1,
    fmax: common.Fmax = 0.05,
    steps: common.Steps = 500,
    output: common.Output = None,
    overwrite: common.Overwrite = False,
    charge: common.Charge = None,
    spin: common.Spin = None,
    device: common.Device = "cpu",
    dtype: common.Dtype = "float64",
) -> None:
    """Barrier between two structures (nudged elastic band).

    Example: mlip neb initial.xyz final.xyz --model sevennet-0 --relax --images 9

    All images are evaluated as one batch. Writes neb.csv, neb.json, neb.png and images.xyz into the output folder, and
    prints a table.
    """
    common.check_models(model)
    from mlip.simulate.structures import read_structure

    ends = [read_structure(initial), read_structure(final)]
    folder = common.claim(output, f"neb_{initial.stem}", "neb.json", overwrite)
    calculator = common.open_calculator(model, device, dtype, charge, spin, ends)

    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from mlip.simulate.properties.files import write_structures, write_table
    from mlip.simulate.properties.neb import nudged_elastic_band
    from mlip.simulate.properties.plots import plot_path

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(), transient=True) as progress:
        task = progress.add_task("end points", total=None)

        def report(step: int, highest: float, force: float) -> None:
            progress.update(task, description=f"step {step}  highest {highest:.4f} eV  force {force:.4f} eV/Å")

        result = nudged_elastic_band(
            *ends, calculator, images=images, climb=climb, relax_ends=relax, saddle_vibrations=vibrations,
            spring=spring, fmax=fmax, max_steps=steps, callback=report,
        )  # fmt: skip
    write_table(
        folder / "neb.csv",
        {"image": range(len(result.images)), "coordinate_A": result.coordinate, "energy_eV": result.energies},
    )
    write_structures(folder / "images.xyz", result.images)
    plot_path(folder / "neb.png", result)
    common.record(folder, "neb.json", model, result.as_dict(), initial=initial, final=final)
    rows = [
        ("barrier forward / eV", f"{result.forward:.4f}"),
        ("barrier backward / eV", f"{result.backward:.4f}"),
        ("energy of the last image / eV", f"{result.energies[-1]:.4f}"),
        ("highest image", f"{result.highest} of 0 … {len(result.images) - 1}"),
        ("steps", f"{result.steps}"),
        ("converged", "yes" if result.converged else "no"),
    ]
    if result.vibrations is not None:
        lowest = ", ".join(f"{value:.0f}" for value in result.vibrations.wavenumbers[:3])
        rows.append(("imaginary vibrations", f"{result.vibrations.num_imaginary}; lowest {lowest} cm⁻¹"))
    common.show(
        f"{result.images[0].get_chemical_formula()}, nudged elastic band", ("", ""), rows, result.warnings, folder
    )
