"""``mlip data label``: compute energies, forces and Hamiltonians of structures."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mlip.cli.data.convert import OnError


class Layout(StrEnum):
    """Which of QH9's tables a file has."""

    auto = "auto"
    stable = "stable"
    dynamic = "dynamic"


def label(
    structures: Annotated[list[Path], typer.Argument(help="Molecules, in any files that ASE reads: xyz, traj, …; Å.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help=".db: Hamiltonians, as QH9 has them; .extxyz, .xyz, .aselmdb: energies, and forces.  "
            "[default: STRUCTURES_labels.db]",
        ),
    ] = None,
    forces: Annotated[bool, typer.Option("--forces", help="Compute forces, too.")] = False,
    method: Annotated[str, typer.Option(help="What computes: pyscf, or a file METHOD.yaml.")] = "pyscf",
    xc: Annotated[
        str | None,
        typer.Option(help="b3lyp5 (with VWN5, as QH9), b3lyp (VWN-RPA, as Gaussian), pbe, hf, …  [default: b3lyp5]"),
    ] = None,
    basis: Annotated[str | None, typer.Option(help="Any that the program knows.  [default: def2-svp]")] = None,
    grid_level: Annotated[int | None, typer.Option(help="Of the integration grid, 0 to 9.  [default: 3]")] = None,
    conv_tol: Annotated[
        float | None, typer.Option(help="Change of the energy in the last cycle, Hartree.  [default: 1e-13]")
    ] = None,
    grad_tol: Annotated[
        float | None, typer.Option(help="Orbital gradient in the last cycle, Hartree.  [default: 3.16e-5]")
    ] = None,
    max_cycle: Annotated[int | None, typer.Option(help="SCF cycles, at most.  [default: 100]")] = None,
    density_fit: Annotated[
        bool, typer.Option("--density-fit", help="Density fitting: faster, energies differ slightly; not in a .db.")
    ] = False,
    memory: Annotated[float | None, typer.Option(help="MB for the integrals of a process.")] = None,
    ase: Annotated[
        str | None, typer.Option(help="Compute with this calculator of ASE (vasp, espresso, orca, emt, …), or a Class.")
    ] = None,
    ase_args: Annotated[
        str | None, typer.Option(help='Its arguments: JSON, or a file with it; "{charge}" is the structure\'s.')
    ] = None,
    free_energy: Annotated[
        bool, typer.Option("--free-energy", help="With --ase: the energy that goes with the forces, under smearing.")
    ] = False,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Compute with a model, to train another one.")
    ] = None,
    charge: Annotated[int | None, typer.Option(help="e, of structures that do not state it; not in a .db.")] = None,
    spin: Annotated[int | None, typer.Option(help="Multiplicity 2S + 1, likewise.")] = None,
    layout: Annotated[
        Layout, typer.Option(help="Of a .db; auto: dynamic if consecutive structures are frames of one molecule.")
    ] = Layout.auto,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", min=1, help="Processes of one thread each.  [default: one a processor; 1 for a model]"
        ),
    ] = None,
    on_error: Annotated[
        OnError, typer.Option(help="Stop if a structure can never be computed, or leave it out and note why.")
    ] = OnError.stop,
    any_distance: Annotated[
        bool, typer.Option("--any-distance", help="Accept atoms much closer or farther apart than bonds; not in a .db.")
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Compute again what has failed.")] = False,
    licence: Annotated[str | None, typer.Option(help="Of the data, to be noted in the file.")] = None,
) -> None:
    """Compute energies, forces, Kohn-Sham matrices.

    \b
    mlip data label frames.xyz --out frames.db
    mlip data label a.xyz b.xyz --xc pbe --basis def2-tzvp --forces --out train.xyz --jobs 8
    mlip data label selected.extxyz --ase vasp --ase-args vasp.json --out new.extxyz --jobs 1

    Without --ase and --model PySCF computes (pip install 'mlip-kit[qm]'): neutral closed-shell molecules for a .db,
    which is read by mlip train data=qh9 and mlip data prepare; any molecule for energies and forces. Charge and spin
    (2S + 1) are read from the info of a structure. --ase and --model compute forces, and stress of crystals.

    Stopped at any moment, the same command goes on: what is there, in FILE.db beside a file of energies and forces,
    is not computed again. Structures may be added. Calculations that fail, as those that do not converge, give no
    labels: they are noted with their reason, the others go on, and the exit status is 1.
    """
    from rich.console import Console

    from mlip.cli.data.label_method import build_ase_labeller, build_labeller, refuse_unused
    from mlip.cli.data.label_task import LabelTask, bar, files, read, refuse, show
    from mlip.core.errors import ConfigError
    from mlip.data.labelling.run import checked
    from mlip.data.store.prepare import num_processors

    console = Console()
    settings = {"xc": xc, "basis": basis, "grid_level": grid_level, "conv_tol": conv_tol, "grad_tol": grad_tol}
    settings |= {"max_cycle": max_cycle, "density_fit": density_fit or None, "memory": memory}
    target, work = files(out, structures, matrices=not (ase or model))
    if any_distance and target == work:
        raise ConfigError("--any-distance is for energies and forces: readers of a .db refuse such molecules.")
    if target == work:
        refuse_unused({"charge": charge, "spin": spin}, "cannot be in a .db, which holds neutral closed shells")
    if ase and model:
        raise ConfigError("--ase and --model both compute: give one of them.")
    if ase or model:
        refuse_unused(settings, f"has no effect with {'--ase' if ase else '--model'}")
    if not ase:
        refuse_unused({"ase_args": ase_args, "free_energy": free_energy}, "has no effect without --ase")
    if ase:
        labeller = build_ase_labeller(ase, ase_args, free_energy, target)
    elif model:
        from mlip.simulate.labelling.calculators import ModelLabeller

        labeller, jobs = ModelLabeller(model), jobs or 1
    else:
        fields = ["energy", *(["forces"] if forces else []), *(["hamiltonian"] if target == work else [])]
        labeller = build_labeller(method, settings, fields)
    skip = on_error is OnError.skip
    usable, unread = read(structures, any_distance, labeller.takes, {"charge": charge, "spin": spin}, skip)
    found = checked(usable, labeller)
    refused = sum(bool(one.refused) for one in found)
    refuse(found, skip)
    kind = None if layout is Layout.auto else layout.value
    task = LabelTask(found, labeller, target, work, kind, jobs or num_processors(), retry_failed, licence)
    try:
        with bar(console) as progress:
            outcome = task.run(progress)
    except KeyboardInterrupt:
        console.print(f"Stopped. What is computed is in {work}; the same command goes on.", soft_wrap=True)
        raise
    show(outcome, console)
    for problem in unread:
        console.print("Left out:", problem, soft_wrap=True, markup=False, highlight=False)
    if unread or len(outcome.failures) > refused:
        raise typer.Exit(1)
