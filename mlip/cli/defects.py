"""``mlip defects``: vacancies, surfaces and adsorption."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlip.cli import properties as common

if TYPE_CHECKING:
    from ase import Atoms

defects = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Energies of vacancies, surfaces and adsorbed molecules."
)


@defects.command()
def vacancy(
    structure: common.Structure,
    model: common.Models,
    supercell: Annotated[
        tuple[int, int, int] | None, typer.Option(help="Repetitions of the cell, such as 3 3 3.  [default: by width]")
    ] = None,
    min_length: Annotated[float, typer.Option(help="Å, smallest width of the supercell.")] = 10.0,
    mu: Annotated[
        list[str] | None, typer.Option(help="Chemical potential in eV, such as O=-4.9; of a compound's elements.")
    ] = None,
    relax: common.Relax = False,
    fmax: common.Fmax = 0.01,
    steps: common.Steps = 500,
    frame: common.Frame = -1,
    output: common.Output = None,
    overwrite: common.Overwrite = False,
    charge: common.Charge = None,
    spin: common.Spin = None,
    device: common.Device = "cpu",
    dtype: common.Dtype = "float64",
) -> None:
    """Formation energies of all inequivalent vacancies of a crystal, in a fixed supercell.

    Example: mlip defects vacancy copper.cif --model sevennet-0 --relax

    Writes vacancies.csv, vacancies.json, vacancies.png and vacancies.xyz into the output folder, and prints a table.
    """
    common.check_models(model)
    potentials = _potentials(mu or [])
    from mlip.simulate.structures import read_structure

    atoms = read_structure(structure, frame)
    _require_elements(potentials, atoms)
    folder = common.claim(output, f"vacancy_{structure.stem}", "vacancies.json", overwrite)
    calculator = common.open_calculator(model, device, dtype, charge, spin, [atoms])

    from mlip.simulate.properties.files import write_structures, write_table
    from mlip.simulate.properties.plots import plot_energies
    from mlip.simulate.properties.vacancies import vacancies

    result = vacancies(
        atoms, calculator, supercell=supercell, min_length=min_length, chemical_potentials=potentials,
        relax_first=relax, fmax=fmax, max_steps=steps,
    )  # fmt: skip
    kinds = result.as_dict()["vacancies"]
    write_table(folder / "vacancies.csv", {key: [kind[key] for kind in kinds] for key in kinds[0]})
    write_structures(folder / "vacancies.xyz", [found.structure for found in result.vacancies])
    names = [f"{found.element} ({found.multiplicity}{found.wyckoff})" for found in result.vacancies]
    energies = [
        found.removal_energy if found.formation_energy is None else found.formation_energy for found in result.vacancies
    ]
    plot_energies(folder / "vacancies.png", names, energies, "formation (or removal) energy / eV", result.formula)
    common.record(folder, "vacancies.json", model, result.as_dict(), structure=structure)
    rows = [
        (name, f"{found.removal_energy:.4f}", "" if found.formation_energy is None else f"{found.formation_energy:.4f}")
        for name, found in zip(names, result.vacancies)
    ]
    title = f"{result.formula}, vacancies in {'×'.join(map(str, result.repeats))} cells"
    common.show(title, ("site", "removal / eV", "formation / eV"), rows, result.warnings, folder)


@defects.command()
def surface(
    structure: common.Structure,
    model: common.Models,
    miller: Annotated[list[str], typer.Option(help="Plane, such as 1,1,0; several times.")],
    thickness: Annotated[float, typer.Option(help="Å of crystal, at least.")] = 12.0,
    vacuum: Annotated[float, typer.Option(help="Å of vacuum, at least.")] = 12.0,
    relax: common.Relax = False,
    fmax: common.Fmax = 0.01,
    steps: common.Steps = 500,
    frame: common.Frame = -1,
    output: common.Output = None,
    overwrite: common.Overwrite = False,
    charge: common.Charge = None,
    spin: common.Spin = None,
    device: common.Device = "cpu",
    dtype: common.Dtype = "float64",
) -> None:
    """Energies of surfaces, all stoichiometric terminations.

    Example: mlip defects surface copper.cif --model sevennet-0 --relax --miller 1,1,1 --miller 1,0,0

    Miller indices refer to the cell of the file if it is a conventional one, in whatever setting, else to the
    conventional cell; which one it was is printed and recorded.

    Writes surfaces.csv, surfaces.json, surfaces.png and surfaces.xyz into the output folder, and prints a table.
    """
    common.check_models(model)
    planes = [_numbers(text, int, "Miller indices are whole numbers, such as 1,1,0") for text in miller]
    from mlip.simulate.structures import read_structure

    atoms = read_structure(structure, frame)
    folder = common.claim(output, f"surface_{structure.stem}", "surfaces.json", overwrite)
    calculator = common.open_calculator(model, device, dtype, charge, spin, [atoms])

    from mlip.simulate.properties.files import write_structures, write_table
    from mlip.simulate.properties.plots import plot_energies
    from mlip.simulate.properties.surfaces import surface_energies

    result = surface_energies(
        atoms, calculator, planes, thickness=thickness, vacuum=vacuum, relax_first=relax, fmax=fmax, max_steps=steps
    )
    found = result.as_dict()["surfaces"]
    keys = ("shift", "energy_eV_per_A2", "energy_J_per_m2", "unrelaxed_J_per_m2", "area_A2", "symmetric", "num_atoms")
    names = [" ".join(map(str, surface["miller"])) for surface in found]
    write_table(folder / "surfaces.csv", {"miller": names, **{key: [each[key] for each in found] for key in keys}})
    write_structures(folder / "surfaces.xyz", [surface.structure for surface in result.surfaces])
    energies = [each["energy_J_per_m2"] for each in found]
    plot_energies(folder / "surfaces.png", names, energies, "surface energy / J/m²", result.formula)
    common.record(folder, "surfaces.json", model, result.as_dict(), structure=structure)
    rows = [
        (name, f"{each['shift']:.3f}", f"{each['energy_eV_per_A2']:.5f}", f"{each['energy_J_per_m2']:.4f}",
         f"{each['unrelaxed_J_per_m2']:.4f}", "alike" if each["symmetric"] else "differ")
        for name, each in zip(names, found)
    ]  # fmt: skip
    header = ("plane", "cut", "eV/Å²", "J/m²", "unrelaxed J/m²", "sides")
    title = f"{result.formula}, surface energies; Miller indices refer to {result.cell}"
    common.show(title, header, rows, result.warnings, folder)


@defects.command()
def adsorption(
    slab: Annotated[Path, typer.Argument(help="Slab with vacuum along its third axis: any file that ASE reads.")],
    molecule: Annotated[Path, typer.Argument(help="Molecule, oriented as it is to stand.")],
    model: common.Models,
    at: Annotated[list[str], typer.Option(help="Where: fractional coordinates, such as 0.5,0.5; several times.")],
    height: Annotated[float, typer.Option(help="Å of the molecule over the slab, at the start.")] = 2.0,
    fmax: common.Fmax = 0.03,
    steps: common.Steps = 500,
    output: common.Output = None,
    overwrite: common.Overwrite = False,
    charge: Annotated[
        tuple[int, int] | None,
        typer.Option(help="Charges of slab and molecule in e, such as 0 -1, for a model that reads them."),
    ] = None,
    spin: Annotated[
        tuple[int, int, int] | None,
        typer.Option(help="Multiplicities 2S + 1 of slab, molecule and both together, likewise."),
    ] = None,
    device: common.Device = "cpu",
    dtype: common.Dtype = "float64",
) -> None:
    """Adsorption energies of a molecule from several starts on a slab; negative ones bind.

    Example: mlip defects adsorption slab.xyz co.xyz --model sevennet-0 --at 0,0 --at 0.33,0.33

    Charge and spin of slab and molecule may stand in the files, too; both together have the sum of the charges.

    Writes adsorption.csv, adsorption.json, adsorption.png and adsorption.xyz into the output folder, and prints a
    table.
    """
    common.check_models(model)
    places = [_numbers(text, float, "Positions are two fractional coordinates, such as 0.5,0.5") for text in at]
    from mlip.simulate.structures import read_structure

    both = [read_structure(slab), read_structure(molecule)]
    folder = common.claim(output, f"adsorption_{molecule.stem}_{slab.stem}", "adsorption.json", overwrite)
    calculator = common.open_calculator(model, device, dtype, None, None, both)
    common.state(both, calculator, charge=charge and charge[:2], spin=spin and spin[:2])

    from mlip.simulate.properties.adsorption import adsorption_energies
    from mlip.simulate.properties.files import write_structures, write_table
    from mlip.simulate.properties.plots import plot_energies

    together = spin and spin[2]
    result = adsorption_energies(*both, calculator, places, height=height, spin=together, fmax=fmax, max_steps=steps)
    write_table(folder / "adsorption.csv", {"at": at, "energy_eV": result.energies})
    write_structures(folder / "adsorption.xyz", result.structures)
    plot_energies(folder / "adsorption.png", at, result.energies, "adsorption energy / eV", molecule.stem)
    common.record(folder, "adsorption.json", model, result.as_dict(), slab=slab, molecule=molecule)
    rows = [(place, f"{energy:.4f}") for place, energy in zip(at, result.energies)]
    common.show(f"{molecule.stem} on {slab.stem}", ("start", "adsorption / eV"), rows, result.warnings, folder)


def _numbers(text: str, kind: type, advice: str) -> list:
    from mlip.core.errors import SimulationError

    try:
        return [kind(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise SimulationError(f"{advice}; got '{text}'.") from error


def _require_elements(potentials: dict[str, float], atoms: "Atoms") -> None:
    """Refuse chemical potentials that would be of no use, mostly because an element is mistyped."""
    from mlip.core.errors import SimulationError

    there = list(dict.fromkeys(atoms.get_chemical_symbols()))
    for element in potentials:
        if element not in there:
            raise SimulationError(f"--mu names {element or 'no element'}, the crystal has {', '.join(there)}.")


def _potentials(words: list[str]) -> dict[str, float]:
    from mlip.core.errors import SimulationError

    found = {}
    for word in words:
        element, _, value = word.partition("=")
        try:
            found[element] = float(value)
        except ValueError as error:
            raise SimulationError(f"A chemical potential is written as O=-4.9, in eV; got '{word}'.") from error
    return found
