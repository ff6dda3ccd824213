"""OC20 and data sets in its formats: adsorbates on metal surfaces, relaxations with energies and forces."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import numpy as np
from ase import Atoms

from mlip.core.errors import ConfigError, DataError, did_you_mean
from mlip.core.fields import DATA_FIELDS
from mlip.data.datasets.base import Chunk, Recognition
from mlip.data.datasets.oc20_layout import open_layout, recognise_record
from mlip.data.datasets.oc20_record import RandomLayout, Record
from mlip.data.datasets.oc20_references import KINDS, Energies, read_coefficients, read_references
from mlip.data.datasets.streamed import StreamedDataset
from mlip.data.sample import Sample

TASKS = ("s2ef", "is2re", "initial", "relaxed")
OUTLIERS = ("keep", "drop", "refuse")
LARGEST_ADSORPTION = 10.0
"""eV; adsorption energies beyond it are dropped by the authors."""
LARGEST_FORCE = 50.0
"""eV/Å; frames with a force beyond it are dropped by the authors."""
IMPLAUSIBLE_ADSORPTION = 50.0
"""eV; beyond it an energy is a total one."""
IMPLAUSIBLE_TOTAL = 0.25
"""eV an atom; total energies of VASP are -1 (alkali metals) to -12."""


class OC20Dataset(StreamedDataset):
    """Structures of OC20 in any layout (VASP, RPBE; slab and adsorbate; CC BY 4.0).

    Args:
        path: a file or folder: pairs ``k.extxyz(.xz)`` + ``k.txt(.xz)``, trajectories ``random1.extxyz(.xz)`` +
            ``system.txt``, ``.lmdb`` with PyG objects, ``.aselmdb`` or ``.db``.
        energy: ``total`` (of the calculation) or ``adsorption`` (relative to the clean slab and the adsorbate).
        task: ``s2ef``; of IS2RE files ``is2re`` (initial structure, energy and positions of the relaxed one),
            ``initial`` or ``relaxed`` (a structure with its own energy).
        stored_energy: what the energies in LMDB files and databases are, ``total`` or ``adsorption``: they do not say.
        reference_energies: table of energies of slab and adsorbate by system (JSON, pickle, or ``system.txt``), instead
            of those in the files.
        linear_references: npz file with ``coeff``, energies by atomic number to be subtracted from total energies.
        outliers: structures with an adsorption energy beyond 10 eV or a force beyond 50 eV/Å: ``keep``, ``drop``, or
            ``refuse``, which reports each as an error.

    Raises:
        ConfigError: options that do not go together, or one that must be stated.
        DataError: files that are missing, damaged, or of another task.
    """

    licence = "CC BY 4.0"
    citation = "L. Chanussot et al., ACS Catal. 11, 6059 (2021), doi:10.1021/acscatal.0c04525"
    units = {"energy": "eV", "forces": "eV/Angstrom", "positions": "Angstrom"}  # noqa: RUF012

    def __init__(
        self,
        path: str | PathLike[str],
        energy: str,
        task: str = "s2ef",
        stored_energy: str | None = None,
        reference_energies: str | PathLike[str] | None = None,
        linear_references: str | PathLike[str] | None = None,
        outliers: str = "keep",
    ) -> None:
        _check_choice("energy", energy, KINDS)
        _check_choice("task", task, TASKS)
        _check_choice("outliers", outliers, OUTLIERS)
        if stored_energy is not None:
            _check_choice("stored_energy", stored_energy, KINDS)
        if path in (None, "", "???"):
            raise DataError("OC20 needs a path: set data.path to a file or a folder.")
        if linear_references is not None and energy != "total":
            raise ConfigError("linear_references belong to total energies: set energy: total, or leave them out.")
        self._task = task
        self._outliers = outliers
        self._layout = open_layout(Path(path).expanduser())
        self._energies = Energies(
            energy,
            stored_energy,
            None if reference_energies is None else read_references(reference_energies),
            None if linear_references is None else read_coefficients(linear_references),
        )
        self._random = self._layout if isinstance(self._layout, RandomLayout) and outliers != "drop" else None
        words = "total" if energy == "total" else "relative to the clean slab and the adsorbate in the gas phase"
        self.level_of_theory = {"functional": "RPBE", "code": "VASP", "energy": words}
        if linear_references is not None:
            self.level_of_theory["energy"] = "total, less linear references"
        first = self._layout.first()
        self._check_statement(first)
        self._reason_to_leave_out(first)  # Lacks references where they are needed: said now, not for every record.
        labels = self._labelled(first, promised=()).labels
        self._promised = tuple(field for field in DATA_FIELDS if field in labels)

    @property
    def provides(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the fields that every sample has."""
        return self._promised if self._random is not None else super().provides

    @property
    def in_memory(self) -> bool:
        """Whether samples are a list in memory: those of text files are."""
        return self._random is None

    def __len__(self) -> int:
        return len(self._random) if self._random is not None else super().__len__()

    def __getitem__(self, index: int) -> Sample:
        if self._random is None:
            return super().__getitem__(index)
        return self._sample(self._random.record(index))

    def fields(self) -> set[str] | None:
        """Return the names of the fields that samples have, None for text files."""
        return set(self._promised) if self._random is not None else None

    def isolated_atom_energies(self) -> dict[str, float]:
        """None: OC20 has no isolated atoms."""
        return {}

    def chunks(self) -> Iterator[Chunk]:
        """One chunk a text file, runs of entries of the others."""
        for chunk in self._layout.chunks():
            known = chunk.num_samples if self._outliers != "drop" else None
            yield Chunk(chunk.key, chunk.location, known, chunk.num_bytes)

    def read(self, chunk: Chunk) -> Iterator[Sample | DataError]:
        """Read the samples of a chunk; outliers that are dropped are passed over."""
        for record in self._layout.records(chunk):
            if isinstance(record, DataError):
                yield record
                continue
            try:
                if self._outliers != "drop" or not self._reason_to_leave_out(record):
                    yield self._sample(record)
            except DataError as error:
                yield error

    @classmethod
    def recognise(cls, path: Path) -> Recognition | None:
        """Recognise OC20 by ``random<number>`` in tables and rows, or the fields of PyG objects."""
        record = recognise_record(path)
        if record is None:
            return None
        if record.stored:
            note = "Energies are total; energy: adsorption subtracts the references of the files."
            return Recognition(3, {}, note, {"energy": "total"})
        task = {"task": "relaxed"} if record.kind == "is2re" else {}
        guess = _looks_like(record.energy, len(record.numbers)) or "total"
        note = (
            f"The file does not say whether its energies are total or adsorption energies; they look like {guess}. "
            "State it for training (energy, stored_energy)."
        )
        return Recognition(3, task, note, {"energy": guess, "stored_energy": guess})

    def _check_statement(self, record: Record) -> None:
        """Check what was stated about the files by the first record.

        Raises:
            ConfigError: ``stored_energy`` is needed, or is not what the files say themselves.
            DataError: ``stored_energy`` cannot be right.
        """
        self._check_task(record)
        stated, looks = self._energies.stored, _looks_like(record.energy, len(record.numbers))
        if record.stored is not None and stated not in (None, record.stored):
            raise ConfigError(
                f"'{record.source}' holds {record.stored} energies, stored_energy is '{stated}'. Leave it out."
            )
        if record.stored is None and stated is None and record.energy is not None:
            guess = "" if looks is None else f" The first is {record.energy:.4g} eV, which looks like '{looks}'."
            raise ConfigError(
                f"'{record.source}' does not say what its energies are: set stored_energy to 'total' or 'adsorption' "
                f"(made with --ref-energy, and in all IS2RE files).{guess}"
            )
        if record.stored is None and looks not in (None, stated) and record.energy is not None:
            raise DataError(
                f"{record.source}: the energy of {len(record.numbers)} atoms is {record.energy:.4g} eV, which is no "
                f"{stated} energy. Set stored_energy: {looks}."
            )

    def _check_task(self, record: Record) -> None:
        """Refuse IS2RE files for S2EF and the other way round: their energies belong to other positions."""
        wanted = "s2ef" if self._task == "s2ef" else "is2re"
        if record.kind == wanted or record.kind is None:
            return
        if wanted == "s2ef":
            raise DataError(
                f"'{record.source}' is IS2RE (it has y_relaxed or pos_relaxed), but task is 's2ef'. Set task to "
                "'is2re' (initial structure, relaxed energy), 'initial' or 'relaxed' (a structure with its own energy)."
            )
        raise DataError(
            f"'{record.source}' is S2EF ({self._layout.words}), but task is '{self._task}'. Set task: s2ef."
        )

    def _sample(self, record: Record) -> Sample:
        """Return the sample of a record.

        Raises:
            DataError: it cannot be right, or is an outlier that is refused.
        """
        if self._outliers == "refuse" and (reason := self._reason_to_leave_out(record)):
            raise DataError(f"{record.source} is an outlier: {reason}. Set outliers to 'drop' or 'keep'.")
        return self._labelled(record, self._promised)

    def _labelled(self, record: Record, promised: tuple[str, ...]) -> Sample:
        self._check_task(record)
        energy = self._energy_of(record)
        labels: dict[str, np.ndarray] = {}
        if energy is not None:
            labels["energy"] = np.array(self._energies.label(energy, record))
        if self._task == "s2ef" and record.forces is not None:
            labels["forces"] = record.forces
        if self._task == "is2re" and record.relaxed_positions is not None:
            labels["relaxed_positions"] = record.relaxed_positions
        if record.tags is not None:
            labels["tags"] = record.tags
        if record.fixed is not None:
            labels["fixed"] = record.fixed
        missing = [name for name in promised if name not in labels]
        if missing:
            raise DataError(f"{record.source} has no {missing[0]}, the first structure has.")
        positions = record.positions
        if self._task == "relaxed":
            if record.relaxed_positions is None:
                raise DataError(f"{record.source} has no relaxed positions (test data?). Set task: is2re.")
            positions = record.relaxed_positions
        atoms = Atoms(record.numbers, positions=positions, cell=record.cell, pbc=record.pbc)
        return Sample(atoms, labels, _info(record))

    def _energy_of(self, record: Record) -> float | None:
        return record.initial_energy if self._task == "initial" else record.energy

    def _reason_to_leave_out(self, record: Record) -> str:
        """Say why a structure is an outlier; "" if it is none, or if none are looked for."""
        energy = self._energy_of(record)
        if self._outliers == "keep":
            return ""
        if energy is not None:
            adsorption = self._energies.adsorption(energy, record)
            if abs(adsorption) > LARGEST_ADSORPTION:
                return f"its adsorption energy is {adsorption:.4g} eV"
        if record.forces is not None:
            largest = float(np.linalg.norm(record.forces, axis=1).max())
            if largest > LARGEST_FORCE:
                return f"it has a force of {largest:.4g} eV/Å"
        return ""


def _info(record: Record) -> dict[str, str | int]:
    info: dict[str, str | int] = {"source": record.source}
    if record.system is not None:
        info |= {"sid": record.system, "group": f"random{record.system}"}
    if record.frame is not None:
        info["fid"] = record.frame
    return info


def _looks_like(energy: float | None, num_atoms: int) -> str | None:
    """Return what an energy must be by its size, None if it could be either."""
    if energy is None:
        return None
    if abs(energy) > IMPLAUSIBLE_ADSORPTION:
        return "total"
    return "adsorption" if abs(energy) < IMPLAUSIBLE_TOTAL * num_atoms else None


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name} must be one of {', '.join(known)}, got {value!r}.{did_you_mean(str(value), known)}")
