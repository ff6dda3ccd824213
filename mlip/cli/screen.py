"""``mlip screen``: one task for thousands of structures, over processes or a cluster."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlip.cli.kernels import CHOICE_HELP, KernelChoice

if TYPE_CHECKING:
    from mlip.simulate.screening.executors import Executor

OPTIONS = {
    "cell": "relax_cell", "fix_volume": "fix_volume", "pressure": "pressure", "keep_symmetry": "keep_symmetry",
    "refine_symmetry": "refine_symmetry", "symprec": "symprec", "optimizer": "optimizer", "fmax": "fmax",
    "steps": "max_steps", "relax": "relax_first", "fixed": "relax_ions",
    "keep_shape": "relax_shape", "span": "span", "points": "points",
    "min_length": "min_length", "displacement": "displacement", "mesh": "mesh",
}  # fmt: skip
"""What the options of tasks are called in Python."""

NEGATIONS = ("fixed", "keep_shape")
"""Options that turn off what they stand for."""


def screen(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Files that ASE reads (CIF, POSCAR, xyz, traj, db, …), pymatgen JSON, folders, stores, 'pattern*.cif'."
        ),
    ],
    model: Annotated[
        list[Path],
        typer.Option("--model", "-m", help="Model file, or the name of an imported model; several are a committee."),
    ],
    task: Annotated[str, typer.Option(help="relax, eos or phonons.")] = "relax",
    executor: Annotated[
        str, typer.Option(help="local (processes here), dask (a scheduler that runs) or slurm (jobs).")
    ] = "local",
    workers: Annotated[int, typer.Option(help="local, slurm: processes, of one thread each.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(help="dask: address such as tcp://node1:8786, or its --scheduler-file.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="local: of a worker  [default: its share]; slurm: of a job  [default: 4GB].")
    ] = None,
    queue: Annotated[str | None, typer.Option(help="slurm: partition.")] = None,
    account: Annotated[str | None, typer.Option(help="slurm: account.")] = None,
    walltime: Annotated[str | None, typer.Option(help="slurm: of a job.  [default: 01:00:00]")] = None,
    cores: Annotated[int | None, typer.Option(help="slurm: workers of a job.  [default: 1]")] = None,
    directive: Annotated[
        list[str] | None, typer.Option(help="slurm: line for #SBATCH, such as '--gres=gpu:1'; repeat for more.")
    ] = None,
    prologue: Annotated[
        list[str] | None, typer.Option(help="slurm: line of shell before a worker starts; repeat for more.")
    ] = None,
    interface: Annotated[str | None, typer.Option(help="slurm: network, such as ib0.")] = None,
    show_job: Annotated[bool, typer.Option("--show-job", help="slurm: print the script of a job, and end.")] = False,
    tries: Annotated[int, typer.Option(help="Workers that may die of a structure before it is set aside.")] = 3,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds that a structure may take when it is alone.  [default: for ever]")
    ] = None,
    batch_atoms: Annotated[int, typer.Option(min=1, help="Atoms that a worker evaluates at once.")] = 1000,
    frame: Annotated[
        int | None, typer.Option(help="Only this frame of every file; -1 is the last.  [default: all]")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the results.  [default: screen_INPUT]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results of an earlier run.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Go on where a run of the same command stopped.")] = False,
    charge: Annotated[int | None, typer.Option(help="Total charge in e, for a model that reads it.")] = None,
    spin: Annotated[int | None, typer.Option(help="Multiplicity 2S + 1, likewise.")] = None,
    device: Annotated[str, typer.Option(help="Of the workers: cpu, cuda, cuda:1, …")] = "cpu",
    dtype: Annotated[
        str | None,
        typer.Option(help="float32 or float64.  [default: relax the model's, eos and phonons float64]"),
    ] = None,
    skin: Annotated[float, typer.Option(help="Width in Å by which the neighbour list is reused; 0: never.")] = 0.5,
    kernels: Annotated[KernelChoice | None, typer.Option(help=CHOICE_HELP)] = None,
    cell: Annotated[bool, typer.Option("--cell", help="relax: the cell too.")] = False,
    fix_volume: Annotated[bool, typer.Option("--fix-volume", help="relax: the shape only, with --cell.")] = False,
    pressure: Annotated[float | None, typer.Option(help="relax: target in GPa, with --cell.")] = None,
    keep_symmetry: Annotated[bool, typer.Option("--keep-symmetry", help="relax: keep the space group.")] = False,
    refine_symmetry: Annotated[bool, typer.Option("--refine-symmetry", help="relax: refine the symmetry.")] = False,
    symprec: Annotated[float | None, typer.Option(help="relax: Å by which atoms may be off symmetry.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="relax: FIRE, LBFGS, BFGS, …, as in mlip relax.")] = None,
    fmax: Annotated[float | None, typer.Option(help="Relax until the largest force is below, eV/Å.")] = None,
    steps: Annotated[int | None, typer.Option(help="Give up a relaxation after this many steps.")] = None,
    relax: Annotated[bool, typer.Option("--relax", help="eos, phonons: relax positions and cell first.")] = False,
    fixed: Annotated[bool, typer.Option("--fixed", help="eos: scale positions, do not relax them.")] = False,
    keep_shape: Annotated[bool, typer.Option("--keep-shape", help="eos: relax positions, not the shape.")] = False,
    span: Annotated[float | None, typer.Option(help="eos: largest relative change of the volume.")] = None,
    points: Annotated[int | None, typer.Option(help="eos: number of volumes.")] = None,
    min_length: Annotated[float | None, typer.Option(help="phonons: Å, smallest width of the supercell.")] = None,
    displacement: Annotated[float | None, typer.Option(help="phonons: Å by which atoms are displaced.")] = None,
    mesh: Annotated[float | None, typer.Option(help="phonons: Å, density of wave vectors.")] = None,
) -> None:
    """Run a task on thousands of structures, many workers.

    \b
    mlip screen 'candidates/*.cif' --model sevennet-0 --cell --workers 8
    mlip screen store --model sevennet-0 --task phonons --relax --executor slurm --workers 64 --cores 16 --memory 32GB

    Options of a task are those of mlip relax, mlip eos and mlip phonons, with the same defaults. Every structure is
    added to screened.jsonl as it ends: after a crash, or Ctrl-C, the same command goes on with --restart. In the end
    there are results.h5 (all results), results.csv, summary.json and summary.png. A structure of which workers die, or
    that takes too long, is set aside. The exit status is 1 if any structure is not done.
    """
    from mlip.cli.relax_many import default_folder
    from mlip.cli.screen_run import run_screening
    from mlip.core.errors import ConfigError
    from mlip.models.names import existing_model

    given = locals()
    # Before torch is imported, which takes seconds.
    for path in model:
        existing_model(path)
    if restart and overwrite:
        raise ConfigError("--restart goes on with a run and --overwrite replaces it: give one of them.")
    slurm = {
        name: given[name]
        for name in ("queue", "account", "walltime", "cores", "directive", "prologue", "interface")
        # Not by truth: 0 cores are a mistake.
        if given[name] not in (None, [], "")
    }
    folder = output or default_folder(inputs, "screen")
    chosen = _executor(executor, workers, scheduler, memory, slurm, folder)
    if show_job:
        _show_job(chosen)
        return
    values = {name: given[name] for name in OPTIONS if given[name] is not None and given[name] is not False}
    settings = {"device": device, "skin": skin, "charge": charge, "spin": spin, "kernels": kernels and kernels.value}
    run_screening(
        inputs, model, task, {OPTIONS[name]: name not in NEGATIONS and value for name, value in values.items()}, chosen,
        settings=settings, dtype=dtype, frame=frame, folder=folder, overwrite=overwrite, restart=restart,
        batch_atoms=batch_atoms, tries=tries, timeout=timeout,
    )  # fmt: skip


def _executor(
    name: str, workers: int, scheduler: str | None, memory: str | None, slurm: dict[str, Any], folder: Path
) -> "Executor":
    """Return where the workers are.

    Raises:
        ConfigError: unknown, not installed, or given options that are another one's.
    """
    from mlip.core.errors import ConfigError, did_you_mean
    from mlip.simulate.screening.executors import DaskExecutor, LocalExecutor, require_distributed
    from mlip.simulate.screening.slurm import SlurmExecutor

    known = ("local", "dask", "slurm")
    if name not in known:
        raise ConfigError(f"There is no executor '{name}'.{did_you_mean(name, known)} There are {', '.join(known)}.")
    if name != "slurm" and slurm:
        raise ConfigError(f"--{next(iter(slurm))} is an option of --executor slurm, not of {name}.")
    if (name == "dask") != (scheduler is not None):
        raise ConfigError("--executor dask needs --scheduler, the address of a scheduler that runs; others have none.")
    require_distributed()
    if name == "dask":
        return DaskExecutor(scheduler or "")
    if name == "local":
        return LocalExecutor(workers, memory)
    if memory is not None:
        slurm["memory"] = memory
    for option, field in (("directive", "directives"), ("prologue", "prologue")):
        if option in slurm:
            slurm[field] = tuple(slurm.pop(option))
    return SlurmExecutor(workers, shared=str(folder.resolve()), **slurm)


def _show_job(executor: "Executor") -> None:
    from mlip.core.errors import ConfigError
    from mlip.simulate.screening.slurm import SlurmExecutor

    if not isinstance(executor, SlurmExecutor):
        raise ConfigError("--show-job shows the script of a job: add --executor slurm.")
    typer.echo(executor.job_script())
