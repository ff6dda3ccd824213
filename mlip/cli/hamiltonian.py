"""``mlip hamiltonian``: from a geometry to a Hamiltonian, its orbitals, and a shorter SCF."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Order(StrEnum):
    """Order of the orbitals inside a shell."""

    mlip = "mlip"
    pyscf = "pyscf"
    orca = "orca"


def hamiltonian(
    structure: Annotated[Path, typer.Argument(help="Molecules, in any file that ASE reads: xyz, traj, mol, …; Å.")],
    model: Annotated[Path, typer.Option("--model", "-m", help="A Hamiltonian model, as model=qhnet trains it.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help=".h5 or .npz file to write.  [default: STRUCTURE_hamiltonian.h5]"),
    ] = None,
    diagonalize: Annotated[
        bool, typer.Option("--diagonalize", help="Solve H C = S C ε: orbital energies, coefficients, occupations.")
    ] = False,
    scf: Annotated[
        bool, typer.Option("--scf", help="Run PySCF from its own guesses and from the prediction; count the cycles.")
    ] = False,
    order: Annotated[Order, typer.Option(help="Order of the orbitals in the file.")] = Order.mlip,
    plot: Annotated[
        Path | None, typer.Option(help="Picture of HOMO, LUMO and the orbital energies, .png; one structure.")
    ] = None,
    cube: Annotated[bool, typer.Option("--cube", help="Write HOMO and LUMO as cube files beside the output.")] = False,
    frame: Annotated[
        int | None, typer.Option(help="Only this structure of the file; -1 is the last.  [default: all]")
    ] = None,
    functional: Annotated[
        str | None, typer.Option(help="For --scf, such as b3lyp5.  [default: that of the training data]")
    ] = None,
    conv_tol: Annotated[
        float | None, typer.Option(help="For --scf: change of the energy in the last cycle, Hartree.  [default: 1e-13]")
    ] = None,
    any_distance: Annotated[
        bool, typer.Option("--any-distance", help="Accept atoms much closer or farther apart than bonds.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="float32 or float64.  [default: the model's]")] = None,
) -> None:
    """Predict Hamiltonians and orbitals of molecules.

    \b
    mlip hamiltonian water.xyz --model runs/water/model.safetensors --diagonalize
    mlip hamiltonian water.xyz --model model.safetensors --plot orbitals.png --cube
    mlip hamiltonian frames.xyz --model model.safetensors --scf -o frames.npz --order pyscf

    Molecules must be neutral and closed-shell, of the model's elements. The file has a group 0, 1, … for
    each structure with hamiltonian (Hartree), overlap, basis, functional, order and, with --diagonalize,
    orbital_energies (Hartree), coefficients and occupations; every array says its unit.

    Overlaps, orbitals, --scf, --plot and --cube need PySCF, and so does every prediction of a model that was
    trained on differences to an initial guess (mlip info shows its target): pip install 'mlip-kit[qm]'.
    """
    from rich.console import Console

    from mlip import __version__
    from mlip.calculators.hamiltonian import HamiltonianCalculator
    from mlip.calculators.orbital_file import check_suffix, write_orbitals
    from mlip.cli.hamiltonian_tables import show_orbitals, show_scf
    from mlip.cli.hamiltonian_task import Scf, Task
    from mlip.cli.progress import ProgressBar
    from mlip.core.errors import ConfigError
    from mlip.simulate.structures import read_structure, read_structures

    console = Console()
    target = output or Path(f"{structure.stem}_hamiltonian.h5")
    check_suffix(target)
    if not scf and (functional is not None or conv_tol is not None):
        raise ConfigError("--functional and --conv-tol are for --scf: give it, too, or leave them out.")
    task = Task(
        structures=read_structures(structure) if frame is None else [read_structure(structure, frame)],
        calculator=HamiltonianCalculator(model, device=device, dtype=dtype, check_distances=not any_distance),
        output=target,
        order=order.value,
        orbitals=diagonalize or cube or plot is not None,
        scf=Scf(functional, conv_tol) if scf else None,
        plot=plot,
        cubes=cube,
    )
    task.check(overwrite)
    about = {
        "program": f"mlip {__version__}",
        "content": "Hamiltonians predicted by a model; every array names its unit and what it is",
        "structures": str(structure),
        "model": str(model),
    }
    with ProgressBar("predicting", console) as report:
        write_orbitals(target, task.results(report), about)
    show_orbitals(task, console)
    show_scf(task, console)
    for path in [target, *task.written]:
        console.print(f"Wrote {path}", soft_wrap=True, highlight=False)
