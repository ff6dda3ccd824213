"""``mlip elastic``: elastic constants."""

from typing import TYPE_CHECKING, Annotated

import typer

from mlip.cli import properties as common

if TYPE_CHECKING:
    from mlip.simulate.properties.elastic import ElasticResult


def elastic(
    structure: common.Structure,
    model: common.Models,
    strain: Annotated[float, typer.Option(help="Largest strain.")] = 0.005,
    fixed: Annotated[bool, typer.Option("--fixed", help="Do not relax the ions in the strained cells.")] = False,
    relax: common.Relax = False,
    fmax: common.Fmax = 1e-4,
    steps: common.Steps = 500,
    symprec: Annotated[float, typer.Option(help="Å within which the crystal is symmetric.")] = 0.01,
    frame: common.Frame = -1,
    output: common.Output = None,
    overwrite: common.Overwrite = False,
    charge: common.Charge = None,
    spin: common.Spin = None,
    device: common.Device = "cpu",
    dtype: common.Dtype = "float64",
) -> None:
    """Elastic constants of a crystal with relaxed ions.

    Example: mlip elastic silicon.cif --model sevennet-0 --relax

    Strains that symmetry relates are computed once. Writes elastic.csv (the tensor in the standard orientation,
    GPa), elastic.json (also as given and raw, and the moduli) and elastic.png into the output folder, and prints a
    table.
    """
    common.check_models(model)
    from mlip.simulate.structures import read_structure, write_final_structure

    atoms = read_structure(structure, frame)
    folder = common.claim(output, f"elastic_{structure.stem}", "elastic.json", overwrite)
    calculator = common.open_calculator(model, device, dtype, charge, spin, [atoms])

    from mlip.core.units import GPA
    from mlip.simulate.properties.elastic import elastic_constants
    from mlip.simulate.properties.files import write_table
    from mlip.simulate.properties.plots import plot_elastic

    result = elastic_constants(
        atoms, calculator, strain=strain, relax_first=relax, relax_ions=not fixed, fmax=fmax, max_steps=steps,
        symprec=symprec,
    )  # fmt: skip
    names = ("xx", "yy", "zz", "yz", "xz", "xy")
    write_table(
        folder / "elastic.csv", {"GPa": names, **{name: result.ieee[:, i] / GPA for i, name in enumerate(names)}}
    )
    write_final_structure(folder, result.structure, "relaxed")
    plot_elastic(folder / "elastic.png", result)
    common.record(folder, "elastic.json", model, result.as_dict(), structure=structure, dtype=dtype)
    header = ("C / GPa", *names)
    rows = [(name, *(f"{round(value / GPA, 2) + 0.0:.2f}" for value in row)) for name, row in zip(names, result.ieee)]
    common.table(f"{result.formula}, {result.spacegroup}, standard (IEEE) orientation", header, rows)
    title = f"{result.num_strained} strained structures, {dtype}, raw and symmetrised differ by up to "
    title += f"{result.asymmetry / GPA:.3f} GPa"
    common.show(title, ("/ GPa", "Voigt", "Reuss", "Hill"), _moduli(result), result.warnings, folder)


def _moduli(result: "ElasticResult") -> list[tuple[str, ...]]:
    from mlip.core.units import GPA

    found = result.moduli
    bulk, shear = (
        (found.bulk_voigt, found.bulk_reuss, found.bulk),
        (found.shear_voigt, found.shear_reuss, found.shear),
    )
    return [
        ("bulk modulus", *(f"{value / GPA:.2f}" for value in bulk)),
        ("shear modulus", *(f"{value / GPA:.2f}" for value in shear)),
        ("Young's modulus", "", "", f"{found.young / GPA:.2f}"),
        ("Poisson's ratio", "", "", f"{found.poisson:.4f}"),
        ("universal anisotropy", "", "", f"{found.anisotropy:.3f}"),
        ("stable (Born)", "", "", "yes" if found.stable else "no"),
    ]
