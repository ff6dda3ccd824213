"""Formation energies and energies above the convex hull of given references."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase import Atoms
from ase.calculators.calculator import Calculator
from pymatgen.core import Composition, Element

from mlip.core.errors import SimulationError
from mlip.simulate.properties.batches import count_unconverged, run_all
from mlip.simulate.relax import relax

if TYPE_CHECKING:
    from pymatgen.analysis.phase_diagram import PDEntry

BELOW = 1e-3
"""eV per atom by which an element may lie below its reference: two relaxations of one crystal end that close."""


@dataclass(frozen=True)
class Entry:
    """A compound with its energy.

    Attributes:
        name: for tables.
        formula: such as ``"Al2O3"``; of the whole cell, to which ``energy`` belongs.
        energy: eV, total.
    """

    name: str
    formula: str
    energy: float

    @property
    def elements(self) -> set[str]:
        """Symbols of its elements."""
        return {str(element) for element in _composition(self)}


@dataclass(frozen=True)
class HullResult:
    """Where one compound lies.

    Attributes:
        name: of the entry.
        formula: reduced.
        energy_per_atom: eV.
        formation_energy: eV per atom, less the elements.
        above_hull: eV per atom over the most stable mixture of references and entries; 0 on the hull.
        decomposition: formulas of that mixture, with their shares of the atoms.
        warnings: sentences about what looks wrong.
    """

    name: str
    formula: str
    energy_per_atom: float
    formation_energy: float
    above_hull: float
    decomposition: dict[str, float]
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers with their units in the names, ready for JSON."""
        return {
            "name": self.name,
            "formula": self.formula,
            "energy_eV_per_atom": self.energy_per_atom,
            "formation_energy_eV_per_atom": self.formation_energy,
            "energy_above_hull_eV_per_atom": self.above_hull,
            "decomposition": self.decomposition,
            "warnings": list(self.warnings),
        }


def energies_above_hull(entries: Sequence[Entry], references: Sequence[Entry]) -> list[HullResult]:
    """Compute formation energies and energies above the hull of references and entries (pymatgen's phase diagram).

    All energies must come from one method: those of two potentials, or of a potential and DFT, do not mix. An entry of
    an element that lies below all references of it takes their place, and has a warning.

    Args:
        entries: to be judged.
        references: among them each element of the entries.

    Returns:
        One for each entry, in their order.

    Raises:
        SimulationError: no entries, an element without a reference, a formula or an energy that makes no sense.
    """
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram

    if not entries:
        raise SimulationError("There is no entry to compare with the references.")
    compositions = [_composition(entry) for entry in entries]
    known = [_composition(entry) for entry in references]
    needed = {str(element) for composition in compositions for element in composition}
    require_elements(needed, (entry.formula for entry in references))
    inside = [
        PDEntry(composition, entry.energy, name=entry.name)
        for composition, entry in zip(known, references)
        if {str(element) for element in composition} <= needed
    ]
    own = [PDEntry(composition, entry.energy, name=entry.name) for composition, entry in zip(compositions, entries)]
    diagram = PhaseDiagram([*inside, *own])
    found = []
    for entry in own:
        parts, above = diagram.get_decomp_and_e_above_hull(entry)
        found.append(
            HullResult(
                entry.name, entry.composition.reduced_formula, float(entry.energy_per_atom),
                float(diagram.get_form_energy_per_atom(entry)), max(float(above), 0.0),
                {part.composition.reduced_formula: float(share) for part, share in parts.items()},
                _below_reference(entry, inside),
            )
        )  # fmt: skip
    return found


def _below_reference(entry: PDEntry, references: Sequence[PDEntry]) -> tuple[str, ...]:
    """Return a warning if an element lies below the best reference of it."""
    if not entry.is_element:
        return ()
    same = [one for one in references if one.is_element and one.elements == entry.elements]
    best = min(same, key=lambda one: one.energy_per_atom)
    if entry.energy_per_atom > best.energy_per_atom - BELOW:
        return ()
    return (
        f"'{entry.name}' ({entry.energy_per_atom:.4f} eV/atom) lies below the reference '{best.name}' of "
        f"{entry.elements[0]} ({best.energy_per_atom:.4f}) and takes its place: look whether that is relaxed, in its "
        "most stable form, and of the same potential.",
    )


def require_elements(needed: Iterable[str], references: Iterable[str]) -> None:
    """Refuse references without one for each element.

    Args:
        needed: symbols.
        references: formulas.

    Raises:
        SimulationError: names what is missing.
    """
    known = [Composition(formula) for formula in references]
    missing = set(needed) - {str(one.elements[0]) for one in known if len(one) == 1}
    if missing:
        raise SimulationError(
            f"There is no reference energy of the element(s) {', '.join(sorted(missing))}: give one of each element."
        )


def read_entries(path: str | os.PathLike[str]) -> list[Entry]:
    """Read references from CSV or JSON (a list of objects).

    Columns or keys: ``formula``, and ``energy_eV`` (of the formula) or ``energy_eV_per_atom``; ``name`` if wanted.

    Raises:
        SimulationError: no such file, or a line that cannot be read.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        rows = json.loads(text) if path.suffix.lower() == ".json" else list(csv.DictReader(text.splitlines()))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise SimulationError(f"References '{path}' cannot be read ({error}): give a CSV or JSON file.") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or not rows:
        raise SimulationError(f"References '{path}' must be a list of entries with formula and energy_eV.")
    return [_entry(row, number, path) for number, row in enumerate(rows, 1)]


def relaxed_entries(
    structures: Sequence[tuple[str, Atoms]], calculator: Calculator, *, fmax: float = 0.02, max_steps: int = 500
) -> tuple[list[Entry], tuple[str, ...]]:
    """Relax structures (cells too, where they are periodic along all axes) as one batch, to entries.

    Args:
        structures: names and structures, such as the elements in their standard states.
        calculator: of energies, forces and stress.
        fmax: eV/Å, limit of the relaxations.
        max_steps: of each.

    Returns:
        Entries in the same order, and warnings.

    Raises:
        SimulationError: a charged structure.
        SimulationError, StructureError: see :func:`mlip.simulate.relax.relax`.
    """
    usual = getattr(calculator, "given", {}).get("charge", 0)
    for name, atoms in structures:
        charge = atoms.info.get("charge", usual)
        if charge != 0:
            raise SimulationError(
                f"'{name}' has the charge {charge}: a hull is one of neutral compounds, which exchange atoms alone."
            )

    def task(atoms: Atoms, own: Calculator) -> Any:
        return relax(atoms, own, optimizer="LBFGS", fmax=fmax, max_steps=max_steps, relax_cell=bool(atoms.pbc.all()))

    tasks = [lambda own, atoms=atoms: task(atoms, own) for _, atoms in structures]
    results = run_all(tasks, calculator)
    entries = [
        Entry(name, atoms.get_chemical_formula(), result.after.energy)
        for (name, atoms), result in zip(structures, results)
    ]
    return entries, count_unconverged(results, "structures") if results else ()


def _entry(row: dict[str, Any], number: int, path: Path) -> Entry:
    formula, total, each = (row.get(key) for key in ("formula", "energy_eV", "energy_eV_per_atom"))
    try:
        count = Composition(str(formula)).num_atoms if formula else 0
        energy = float(total) if total not in (None, "") else float(each) * count
    except (TypeError, ValueError) as error:
        raise SimulationError(
            f"Entry {number} of '{path}' needs a formula and energy_eV or energy_eV_per_atom; it has {row}."
        ) from error
    entry = Entry(str(row.get("name") or formula), str(formula), energy)
    _composition(entry)
    return entry


def _composition(entry: Entry) -> Composition:
    try:
        found = Composition(entry.formula)
    except ValueError as error:
        raise SimulationError(f"'{entry.formula}' of entry '{entry.name}' is no chemical formula.") from error
    if found.num_atoms <= 0 or not math.isfinite(entry.energy):
        raise SimulationError(
            f"Entry '{entry.name}' has no atoms or no finite energy ({entry.formula}, {entry.energy} eV)."
        )
    if any(not isinstance(element, Element) for element in found):
        raise SimulationError(f"'{entry.formula}' of entry '{entry.name}' names an element that does not exist.")
    return found
