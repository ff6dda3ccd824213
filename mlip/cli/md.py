"""``mlip md``: molecular dynamics with a model."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlip.cli.kernels import CHOICE_HELP, KernelChoice

if TYPE_CHECKING:
    from mlip.simulate.ensembles import Ensemble
    from mlip.simulate.guards import Limits
    from mlip.simulate.selection import SelectOptions


class EnsembleName(StrEnum):
    """What is kept constant."""

    nve = "nve"
    nvt = "nvt"
    npt = "npt"


class ThermostatName(StrEnum):
    """How the temperature is kept in NVT."""

    langevin = "langevin"
    bussi = "bussi"
    nose_hoover = "nose-hoover"


class BarostatName(StrEnum):
    """What of the cell changes in NPT."""

    isotropic = "isotropic"
    anisotropic = "anisotropic"
    full = "full"


class FormatName(StrEnum):
    """Further formats of the trajectory."""

    extxyz = "extxyz"
    h5md = "h5md"


def md(
    structure: Annotated[Path, typer.Argument(help="Any file that ASE reads: CIF, POSCAR, xyz, traj, …")],
    model: Annotated[
        list[Path],
        typer.Option(
            "--model", "-m", "--committee", help="Model file or name of an imported model; repeat: committee."
        ),
    ],
    ensemble: Annotated[EnsembleName, typer.Option(help="What is kept constant.")] = EnsembleName.nvt,
    temperature: Annotated[float, typer.Option(help="K; with nve of the starting velocities only.")] = 300.0,
    steps: Annotated[int, typer.Option(help="Step to end at, counted from the start of the first run.")] = 10_000,
    timestep: Annotated[float, typer.Option(help="fs.")] = 0.5,
    thermostat: Annotated[ThermostatName | None, typer.Option(help="For nvt.  [default: langevin]")] = None,
    friction: Annotated[float | None, typer.Option(help="Of Langevin, 1/ps.  [default: 10]")] = None,
    thermostat_time: Annotated[
        float | None, typer.Option(help="Time constant of Bussi, Nosé–Hoover and npt, fs.  [default: 100]")
    ] = None,
    pressure: Annotated[float | None, typer.Option(help="For npt, GPa.  [default: 0]")] = None,
    barostat: Annotated[
        BarostatName | None, typer.Option(help="For npt: volume, lengths of the axes, or all.  [default: isotropic]")
    ] = None,
    barostat_time: Annotated[float | None, typer.Option(help="For npt, fs.  [default: 1000]")] = None,
    final_temperature: Annotated[
        float | None, typer.Option(help="K of the thermostat at the last step; goes there on a straight line.")
    ] = None,
    replicas: Annotated[int, typer.Option(help="Runs with seeds SEED, SEED+1, …, evaluated as a batch.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Of velocities and noise.", min=0)] = 0,
    log_interval: Annotated[int, typer.Option(help="Steps between lines of thermo.csv.")] = 10,
    frame_interval: Annotated[int, typer.Option(help="Steps between frames of the trajectory.")] = 10,
    checkpoint_interval: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 1000,
    max_temperature: Annotated[
        float | None, typer.Option(help="Stop above, K.  [default: 10000, or 10 times the temperature]")
    ] = None,
    closest: Annotated[
        float, typer.Option(help="Stop when atoms come closer than this part of the sum of their covalent radii.")
    ] = 0.5,
    export: Annotated[
        list[FormatName] | None, typer.Option("--export", help="Also write the trajectory as extxyz or h5md (HDF5).")
    ] = None,
    keep_velocities: Annotated[
        bool, typer.Option("--keep-velocities", help="Start from the velocities in the file.")
    ] = False,
    frame: Annotated[int, typer.Option(help="Frame of a file with several structures; -1 is the last.")] = -1,
    select: Annotated[
        int | None, typer.Option(help="Write so many of the logged structures a committee disagrees about most.", min=1)
    ] = None,
    select_spacing: Annotated[
        float | None, typer.Option(help="fs between two of them, at least.  [default: 50]")
    ] = None,
    select_distance: Annotated[
        float | None,
        typer.Option(help="Å by which neighbours of the most uncertain atom differ; 0: any.  [default: 0.1]"),
    ] = None,
    select_above: Annotated[
        float | None, typer.Option(help="Only with a spread of a force above, eV/Å.  [default: 0]")
    ] = None,
    select_below: Annotated[
        float | None, typer.Option(help="And below: what explodes is no use.  [default: 10]")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the results.  [default: md_STRUCTURE]")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Continue the run in the output folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the output folder.")] = False,
    charge: Annotated[
        int | None, typer.Option(help="Total charge in e, for a model that reads it; or charge=… in the extxyz file.")
    ] = None,
    spin: Annotated[int | None, typer.Option(help="Multiplicity 2S + 1, likewise.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="float32 or float64.  [default: the model's]")] = None,
    skin: Annotated[float, typer.Option(help="Width in Å by which the neighbour list is reused; 0: never.")] = 0.5,
    kernels: Annotated[KernelChoice | None, typer.Option(help=CHOICE_HELP)] = None,
) -> None:
    """Run molecular dynamics: NVE, NVT or NPT.

    Example: mlip md ethanol.xyz --model runs/ethanol/model.safetensors --temperature 300 --steps 10000

    Writes trajectory.traj (positions, momenta, energies, forces), thermo.csv, final.xyz, summary.json and md.png
    into the output folder, and prints a table with the energy drift. A run that was stopped or killed goes on from
    checkpoint.npz with the same command and --restart, as if nothing had happened; a finished one is made longer with
    --restart and a larger --steps. With --replicas every run has its own subfolder.

    Several models are a committee, which knows how sure it is. --select 20 then writes the 20 most uncertain
    structures to selected.extxyz, to be labelled: mlip data label md_ethanol/selected.extxyz.
    """
    from mlip.core.errors import SimulationError
    from mlip.simulate.journal import hash_of_models

    if restart and overwrite:
        raise SimulationError("--restart continues a run and --overwrite replaces it: give one of them.")
    options = {"friction": friction, "time_constant": thermostat_time}
    options |= {"pressure": pressure, "barostat_time": barostat_time}
    limits = {"lowest": select_above, "highest": select_below}
    selecting = choose_selection(select, spacing=select_spacing, distance=select_distance, **limits)
    chosen = choose_ensemble(ensemble, thermostat, temperature, options, barostat)
    # Before torch is imported, which takes seconds.
    known_by = hash_of_models(model)

    from mlip.simulate.structures import read_structure

    atoms = read_structure(structure, frame)

    from mlip.calculators.ase import MLIPCalculator
    from mlip.calculators.committee import named
    from mlip.cli.md_output import Command, claim_runs, refuse_finished, run_one, run_several

    calculator = MLIPCalculator(
        model, device=device, dtype=dtype, skin=skin, charge=charge, spin=spin, kernels=kernels and kernels.value
    )
    # Into the files of the results, too; what the file states otherwise is an error of the calculator.
    for name, value in calculator.given.items():
        atoms.info.setdefault(name, value)
    folder, formats = output or Path(f"md_{structure.stem}"), [one.value for one in export or []]
    claim_runs(folder, replicas, restart, overwrite)
    if restart:
        refuse_finished(folder, replicas, steps, formats)
    command = Command(
        atoms=atoms,
        calculator=calculator,
        ensemble=chosen,
        steps=steps,
        folder=folder,
        restart=restart,
        labels={"structure": str(structure), "model": named(model)},
        formats=formats,
        options={
            "timestep": timestep,
            "log_interval": log_interval,
            "frame_interval": frame_interval,
            "checkpoint_interval": checkpoint_interval,
            "final_temperature": final_temperature,
            "keep_velocities": keep_velocities,
            "select": selecting,
            "model": known_by,
            "limits": choose_limits(max_temperature, closest, max(temperature, final_temperature or 0)),
        },
    )
    if replicas == 1:
        run_one(command, seed)
    else:
        run_several(command, replicas, seed)


def choose_limits(max_temperature: float | None, closest: float, target: float) -> "Limits":
    """Return where the run is to stop.

    Args:
        max_temperature: K; None is ten times the highest target, at least 10 000.
        closest: fraction of the sum of covalent radii.
        target: highest temperature of the thermostat, K.

    Raises:
        SimulationError: a limit is not positive.
    """
    from mlip.simulate.ensembles import require_positive
    from mlip.simulate.guards import Limits

    require_positive(closest=closest, **({} if max_temperature is None else {"max_temperature": max_temperature}))
    return Limits(max_temperature or max(10_000.0, 10 * target), closest)


def choose_selection(number: int | None, **options: float | None) -> "SelectOptions | None":
    """Return what is worth labelling; None where nothing is to be selected.

    Raises:
        SimulationError: options of a selection without one, or out of their ranges.
    """
    from mlip.core.errors import SimulationError

    given = {name: value for name, value in options.items() if value is not None}
    if number is None:
        if given:
            flags = {"lowest": "above", "highest": "below"}
            names = ", ".join(f"--select-{flags.get(name, name)}" for name in given)
            raise SimulationError(
                f"{names} says what --select N chooses, which is not there: add it, or leave them out."
            )
        return None
    from mlip.simulate.selection import SelectOptions

    return SelectOptions(number, **given)


def choose_ensemble(
    ensemble: EnsembleName,
    thermostat: ThermostatName | None,
    temperature: float,
    options: Mapping[str, float | None],
    barostat: BarostatName | None = None,
) -> "Ensemble":
    """Turn the names on the command line into an ensemble.

    Args:
        ensemble: nve, nvt or npt.
        thermostat: for nvt; None is Langevin.
        temperature: K.
        options: further parameters of the ensembles by attribute name; None where the user gave none.
        barostat: for npt; None is isotropic.

    Raises:
        SimulationError: an option was given that has no effect with this ensemble.
    """
    from mlip.core.errors import SimulationError
    from mlip.simulate import ensembles, ensembles_npt

    if barostat is not None and ensemble is not EnsembleName.npt:
        raise SimulationError(f"--barostat is for --ensemble npt, it has no effect with {ensemble}: leave it out.")
    if thermostat is not None and ensemble is not EnsembleName.nvt:
        raise SimulationError(f"--thermostat is for --ensemble nvt, it has no effect with {ensemble}: leave it out.")
    kinds = {
        EnsembleName.nve: ensembles.NVE,
        BarostatName.isotropic: ensembles_npt.IsotropicNPT,
        BarostatName.anisotropic: ensembles_npt.AnisotropicNPT,
        BarostatName.full: ensembles_npt.FullCellNPT,
        ThermostatName.langevin: ensembles.LangevinNVT,
        ThermostatName.bussi: ensembles.BussiNVT,
        ThermostatName.nose_hoover: ensembles.NoseHooverNVT,
    }
    methods = {
        EnsembleName.nvt: thermostat or ThermostatName.langevin,
        EnsembleName.npt: barostat or BarostatName.isotropic,
    }
    name = methods.get(ensemble, ensemble)
    kind = kinds[name]
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if option not in kind.__dataclass_fields__:
            flag = {"time_constant": "thermostat-time"}.get(option, option).replace("_", "-")
            raise SimulationError(f"--{flag} has no effect with {name}: leave it out.")
    return kind(temperature=temperature, **given)
