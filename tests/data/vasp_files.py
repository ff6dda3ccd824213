"""Tiny results of VASP, written by hand in the layout of VASP 5 and 6, for the tests."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

FORCES = [[0.125, -0.25, 0.5], [-0.125, 0.25, -0.5]]


@dataclass
class Step:
    """One ionic step: eV, eV/Å, kB with pressure positive."""

    free: float = -10.5
    sigma0: float = -10.25
    forces: list[list[float]] = field(default_factory=lambda: FORCES)
    stress: list[list[float]] = field(
        default_factory=lambda: [[10.0, 1.0, 3.0], [1.0, 20.0, 2.0], [3.0, 2.0, 30.0]],
    )
    cell: list[list[float]] = field(default_factory=lambda: [[4.0, 0.0, 0.0], [0.5, 4.0, 0.0], [0.0, 0.25, 5.0]])
    fractional: list[list[float]] = field(default_factory=lambda: [[0.0, 0.0, 0.0], [0.5, 0.25, 0.5]])
    scf: int = 2
    magmoms: list[float] | None = None
    converged: bool = True


def rows(values, tag="v") -> str:
    return "".join(f"<{tag}> {' '.join(f'{value:.8f}' for value in row)} </{tag}>\n" for row in values)


def energies(free: float, sigma0: float) -> str:
    return (
        f'<energy><i name="e_fr_energy"> {free:.8f} </i><i name="e_wo_entrp"> {2 * sigma0 - free:.8f} </i>'
        f'<i name="e_0_energy"> {sigma0:.8f} </i></energy>\n'
    )


def structure(step: Step, name: str = "", extra: str = "") -> str:
    return (
        f"<structure{name}><crystal><varray name='basis'>\n{rows(step.cell)}</varray>\n"
        f"<i name='volume'> 80.0 </i></crystal>\n"
        f"<varray name='positions'>\n{rows(step.fractional)}</varray>{extra}</structure>\n"
    )


def vasprun(steps, symbols=("Si", "C"), nelm=60, fixed=None, pstress=0.0, head="", end="</modeling>\n") -> str:
    """A vasprun.xml: ``e_0_energy`` of the whole step is wrong, as VASP 5 writes it."""
    atoms = "".join(f"<rc><c>{symbol:2s}</c><c> {k + 1}</c></rc>" for k, symbol in enumerate(symbols))
    flags = ""
    if fixed is not None:
        lines = "".join(f"<v type='logical'> {'F  F  F' if hold else 'T  T  F'} </v>" for hold in fixed)
        flags = f"<varray name='selective' type='logical'>{lines}</varray>"
    text = [
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n',
        head,
        "<modeling>\n<generator><i name='version' type='string'>6.4.2</i></generator>\n",
        "<incar><i type='int' name='NELM'> 7</i></incar>\n",
        "<kpoints><varray name='kpointlist'><v> 0 0 0 </v></varray>"
        "<varray name='weights'><v> 1.0 </v></varray></kpoints>\n",
        f"<parameters><separator name='electronic'><i type='int' name='NELM'> {nelm}</i>"
        f"<i name='PSTRESS'> {pstress:.8f}</i></separator></parameters>\n",
        f"<atominfo><atoms> {len(symbols)} </atoms><array name='atoms'><dimension dim='1'>ion</dimension>"
        f"<set>{atoms}</set></array></atominfo>\n",
        structure(steps[0], " name='initialpos'", flags),
    ]
    for step in steps:
        volume = abs(np.linalg.det(step.cell))
        enthalpy = step.free + pstress * volume / 1602.1766208
        text.append("<calculation>\n")
        for k in range(step.scf):
            shift = 0.1 * (step.scf - 1 - k) - 0.03  # without dispersion
            text.append(f"<scstep>{energies(step.free + shift, step.sigma0 + shift)}</scstep>\n")
        text.append(structure(step))
        text.append(f"<varray name='forces'>\n{rows(step.forces)}</varray>\n")
        if step.stress is not None:
            text.append(f"<varray name='stress'>\n{rows(step.stress)}</varray>\n")
        text.append(energies(enthalpy, step.free - 5.0))
        text.append("<eigenvalues><array><set><set><r> 1.0 1.0 </r></set></set></array></eigenvalues></calculation>\n")
    return "".join([*text, structure(steps[-1], " name='finalpos'"), end])


def table(values) -> str:
    return "".join("".join(f"{value:13.9f}" for value in row) + "\n" for row in values)


def outcar(steps, symbols=("Si", "C"), end=" General timing and accounting informations for this job:\n") -> str:
    """An OUTCAR of one atom of each element; columns touch where numbers are negative, as Fortran writes them."""
    potentials = [f" POTCAR:    PAW_PBE {symbol}_pv 05Jan2001\n" for symbol in symbols]
    text = [" vasp.6.4.2 20Jul23 (build) complex\n", *potentials, *potentials]
    text += [f"   VRHFIN ={symbol}: s2p2\n   TITEL  = PAW_PBE {symbol}_pv 05Jan2001\n" for symbol in symbols]
    text.append(f"   ions per type =            {' '.join('1' for _ in symbols)}\n")
    text.append("   NELM   =     60;   NELMIN=  2; NELMDL= -5     # of ELM steps\n   ISPIN  =      2\n")
    text.append("      direct lattice vectors                 reciprocal lattice vectors\n")
    text.append(table([[9.0, 0, 0, 1, 0, 0]] * 3))
    for number, step in enumerate(steps, start=1):
        for k in range(1, step.scf + 1):
            text.append(f"{'-' * 39} Iteration {number:6d}({k:4d})  {'-' * 39}\n")
        if step.converged:
            text.append(f"{'-' * 24} aborting loop because EDIFF is reached {'-' * 40}\n")
        if step.magmoms:
            text.append("\n magnetization (x)\n\n# of ion       s       p       d       tot\n" + "-" * 42 + "\n")
            text += [f"{k:5d}        0.000   0.000   0.000  {m:6.3f}\n" for k, m in enumerate(step.magmoms, 1)]
        (xx, xy, zx), (_, yy, yz), (_, _, zz) = step.stress
        text.append("  FORCE on cell =-STRESS in cart. coord.  units (eV):\n")
        text.append("  in kB " + "".join(f"{value:12.5f}" for value in (xx, yy, zz, xy, yz, zx)) + "\n")
        text.append("  external pressure =       20.00 kB  Pullay stress =        0.00 kB\n")
        text.append("      direct lattice vectors                 reciprocal lattice vectors\n")
        text.append(table([[*row, *inverse] for row, inverse in zip(step.cell, np.linalg.inv(step.cell).T)]))
        text.append(" POSITION                                       TOTAL-FORCE (eV/Angst)\n " + "-" * 83 + "\n")
        positions = np.array(step.fractional) @ step.cell
        text.append(table([[*place, *force] for place, force in zip(positions, step.forces)]))
        text.append(" " + "-" * 83 + "\n    total drift:     0.000000      0.000000      0.000000\n")
        text.append("  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n  " + "-" * 51 + "\n")
        text.append(f"  free  energy   TOTEN  = {step.free:18.8f} eV\n\n")
        text.append(f"  energy  without entropy= {step.free:16.8f}  energy(sigma->0) = {step.sigma0:16.8f}\n")
    return "".join([*text, end])
