"""QH9: Kohn-Sham matrices of QM9 molecules, at rest (Stable) and in motion (Dynamic)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms

from mlip.core.errors import ConfigError, DataError
from mlip.core.fields import DATA_FIELDS
from mlip.core.units import BOHR, HARTREE
from mlip.data.content_hash import geometry_hash
from mlip.data.datasets import qh9_splits
from mlip.data.datasets.base import CHUNK_SAMPLES, Chunk, Dataset, Recognition
from mlip.data.datasets.orbital_matrices import check_distances
from mlip.data.datasets.qh9_layouts import open_rows, recognise_rows
from mlip.data.datasets.qh9_rows import RawRow, Rows
from mlip.data.datasets.qh9_variants import CODES, choice, find_level, find_variant
from mlip.data.label_units import LENGTH_UNITS
from mlip.data.orbitals import basis_key, reorder
from mlip.data.pyscf_extra import require_pyscf
from mlip.data.quantum import initial_hamiltonian, overlap
from mlip.data.sample import Sample

CHUNK_BYTES = 128 * 2**20
SMALLEST_CHUNK = 64


class QH9Dataset(Dataset):
    """QH9 in its SQLite files, or in the LMDB files that QHNet and SPHNet make of them.

    Matrices are handed out in Hartree and in the order `mlip` of :mod:`mlip.data.orbitals`. Rows are read when they
    are asked for. ``info`` has ``basis``, ``functional``, ``qm9_id``, ``geo_id`` (Dynamic) and ``group``, the
    molecule; ``converged: false`` where an SCF did not and such rows are kept; ``initial_functional`` of
    initial guesses.

    Args:
        path: ``QH9Stable.db``, ``QH9Dynamic_300k.db``, …; a folder ``QH9Stable.lmdb`` (QHNet); ``data.mdb`` (SPHNet).
        variant: ``stable``, ``dynamic_300k``, ``dynamic_100k``, or ``own`` for other data in this format. None
            recognises Stable and files of ``mlip data label``; 300k and 100k look alike and were made with different
            functionals, so they are named.
        basis: of the matrices; None is the one that the file states, else def2-SVP.
        functional: by our name (``b3lyp5``, ``b3lyp``, ``pbe``); None is the one that the file states, else that of
            the variant; ``own`` needs one of these.
        length_unit: ``Angstrom`` or ``Bohr``; None is that of the layout: Stable and SPHNet's Å, Dynamic Bohr.
        overlap: ``compute`` adds overlaps through PySCF; False does not.
        initial_guess: ``compute`` adds the `minao` guess's Hamiltonian with the right functional through PySCF (some
            seconds a molecule); ``file`` takes the one that SPHNet's file has, whose functional is not recorded (its
            published script uses PBE); False does not.
        unconverged: rows of Dynamic whose SCF did not converge: ``refuse`` them as damaged samples, ``skip`` them (the
            file is read through once), or ``keep`` them.
        split_rule: ``official`` refuses official splits of other files than the published ones, ``this_file`` applies
            their rules to whatever there is.

    Raises:
        DataError: no such file, another layout or variant, a cut or damaged file, PySCF is needed and not installed.
        ConfigError: a variant is needed, or an unknown option.
    """

    official_splits: ClassVar[tuple[str, ...]] = qh9_splits.SPLITS

    def __init__(
        self,
        path: str | PathLike[str],
        variant: str | None = None,
        basis: str | None = None,
        functional: str | None = None,
        length_unit: str | None = None,
        overlap: str | bool = False,
        initial_guess: str | bool = False,
        unconverged: str = "refuse",
        split_rule: str = "official",
    ) -> None:
        self._path = Path(path).expanduser()
        self._overlap = choice("overlap", overlap or False, (False, "compute"))
        self._guess = choice("initial_guess", initial_guess or False, (False, "compute", "file"))
        self._unconverged = choice("unconverged", unconverged, ("refuse", "skip", "keep"))
        self._split_rule = choice("split_rule", split_rule, ("official", "this_file"))
        if basis is not None:
            basis_key(basis)
        self._rows: Rows = open_rows(self._path)
        self.variant = find_variant(variant, self._rows, self._path)
        record = self._rows.record
        self._basis, self._functional = find_level(self.variant, basis, functional, record, self._path)
        self._has_forces = record is not None and "forces" in record.fields
        self._unit = length_unit or ("Bohr" if self._rows.dynamic else "Angstrom")
        choice("length_unit", self._unit, ("Angstrom", "Bohr"))
        if self._guess == "file" and not self._rows.has_initial:
            raise ConfigError(f"'{path}' has no initial Hamiltonians. Set initial_guess: compute, or false.")
        if "compute" in (self._overlap, self._guess):
            require_pyscf("overlap: compute and initial_guess: compute")
        self.provides = self._provides()

    @property
    def units(self) -> Mapping[str, str]:  # type: ignore[override]
        """Units of the file."""
        energy = {"energy": "Hartree"} if self._rows.has_energy else {}
        forces = {"forces": "Hartree/Bohr"} if self._has_forces else {}
        return {**energy, **forces, "hamiltonian": "Hartree", "positions": self._unit}

    @property
    def licence(self) -> str:  # type: ignore[override]
        """Licence of the published data, or what the file states."""
        if self._rows.record is not None:
            return self._rows.record.licence
        return "not stated" if self.variant == "own" else "CC BY-NC-SA 4.0"

    @property
    def citation(self) -> str:  # type: ignore[override]
        """How to cite the published data."""
        if self._rows.record is not None:
            return f"computed with {', '.join(self._rows.record.programs)}"
        if self.variant == "own":
            return "not stated"
        return "H. Yu et al., QH9, NeurIPS 2023 Datasets and Benchmarks, arXiv:2306.09549"

    @property
    def level_of_theory(self) -> Mapping[str, str]:  # type: ignore[override]
        """Functional by our name, basis and, for published data, the code; of own data what the file states."""
        if self._rows.record is not None:
            stated = {key: str(value) for key, value in self._rows.record.level_of_theory.items()}
            return {**stated, "code": ", ".join(self._rows.record.programs)}
        code = {"code": CODES[self.variant]} if self.variant in CODES else {}
        return {"functional": self._functional, "basis": self._basis, **code}

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> Sample:
        position = int(self._positions[index])
        where = f"{self._path}:{position}"
        row = self._rows.read(position, where, self._basis)
        if not row.converged and self._unconverged == "refuse":
            raise DataError(
                f"{where}: the SCF of this row did not converge. Set unconverged: skip to leave such rows out, or keep."
            )
        atoms = self._atoms(row.numbers, row.positions, where)
        return Sample(atoms, self._labels(row, atoms), self._info(row, where))

    def chunks(self) -> Iterator[Chunk]:
        """Cut the rows into chunks of about 128 MB, see `Dataset.chunks`."""
        row_bytes = self._rows.num_bytes() / max(len(self._rows), 1)
        size = int(np.clip(CHUNK_BYTES / max(row_bytes, 1), SMALLEST_CHUNK, CHUNK_SAMPLES))
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            yield Chunk(f"{start}-{stop - 1}", (start, stop), stop - start, int((stop - start) * row_bytes))

    def official_split(self, name: str) -> dict[str, Sequence[int]]:
        """Return a published split, see `Dataset.official_split` and :mod:`mlip.data.datasets.qh9_splits`."""
        qh9_splits.known_split(name, dynamic=self._dynamic)
        frames = self._frames() if self._dynamic else None
        if self._split_rule == "official":
            qh9_splits.check_release(name, len(self._rows), frames)
        if name == "stable_iid":
            split = qh9_splits.stable_iid(len(self._rows))
        elif name == "stable_ood":
            split = qh9_splits.stable_ood(self._sizes())
        else:
            rule = qh9_splits.dynamic_geo if name == "dynamic_geo" else qh9_splits.dynamic_mol
            split = rule(frames or [])
        empty = [part for part, rows in split.items() if not len(rows)]
        if empty:
            raise DataError(
                f"The rule of {name} leaves the part {empty[0]} empty: '{self._path}' has too few molecules for it. "
                "Set split.train, split.valid and split.test instead."
            )
        return {part: self._indices(rows) for part, rows in split.items()}

    def groups(self) -> list[str] | None:
        """Return the molecule of every sample; None for SPHNet's Dynamic files, which do not say."""
        found = self._rows.molecules()
        if found is not None:
            return [str(number) for number in found[self._positions].tolist()]
        return super().groups()

    def num_atoms(self) -> np.ndarray | None:
        """Return (samples,) atoms where the layout has them outside of the matrices."""
        found = self._rows.num_atoms()
        return None if found is None else found[self._positions]

    def geometry_digests(self, indices: Sequence[int]) -> np.ndarray:
        """Return (indices,) uint64, see `Dataset.geometry_digests`; reads no matrices."""
        digests = []
        for index in indices:
            position = int(self._positions[index])
            where = f"{self._path}:{position}"
            digests.append(geometry_hash(self._atoms(*self._rows.geometry(position, where), where)))
        return np.array(digests, dtype=np.uint64)

    def fields(self) -> set[str]:
        """Return what every sample has."""
        return set(self.provides)

    @classmethod
    def recognise(cls, path: Path) -> Recognition | None:
        """Recognise the three layouts; a file name with 300k or 100k is taken for a hint."""
        found = recognise_rows(path)
        if found is None:
            return None
        if found.record is not None:
            return Recognition(3, {"variant": "own"})
        if found.dynamic is False:
            return Recognition(3, {"variant": "stable"})
        named = re.search(r"(300|100)k", path.name, re.IGNORECASE)
        if named:
            note = f"The variant dynamic_{named[1]}k comes from the file name; it decides the functional."
            return Recognition(3, {"variant": f"dynamic_{named[1]}k"}, note)
        which = "stable, dynamic_300k or dynamic_100k" if found.dynamic is None else "dynamic_300k or dynamic_100k"
        note = f"Set variant: {which} (or own): the file does not say, and functionals differ."
        return Recognition(3, {}, note, {"variant": "stable" if found.dynamic is None else "dynamic_300k"})

    @cached_property
    def _positions(self) -> np.ndarray:
        """Positions in the file of the rows that are handed out."""
        every = np.arange(len(self._rows))
        if self._unconverged != "skip":
            return every
        kept = np.setdiff1d(every, self._rows.unconverged())
        if not len(kept):
            raise DataError(f"No SCF in '{self._path}' converged, nothing is left with unconverged: skip.")
        return kept

    @property
    def _dynamic(self) -> bool:
        return bool(self._rows.dynamic) or self.variant.startswith("dynamic")

    def _provides(self) -> tuple[str, ...]:
        there = {"hamiltonian"}
        there |= {"energy"} if self._rows.has_energy else set()
        there |= {"forces"} if self._has_forces else set()
        there |= {"overlap"} if self._overlap else set()
        there |= {"initial_hamiltonian"} if self._guess else set()
        return tuple(name for name in DATA_FIELDS if name in there)

    def _atoms(self, numbers: np.ndarray, positions: np.ndarray, where: str) -> Atoms:
        in_angstrom = positions * LENGTH_UNITS[self._unit]
        other = "Bohr" if self._unit == "Angstrom" else "Angstrom"
        advice = f"Positions were taken to be in {self._unit}; if they are not, set length_unit: {other}"
        check_distances(numbers, in_angstrom, where, advice)
        return Atoms(numbers, positions=in_angstrom)

    def _labels(self, row: RawRow, atoms: Atoms) -> dict[str, np.ndarray]:
        numbers, positions = row.numbers, atoms.positions
        labels = {"hamiltonian": reorder(row.hamiltonian, numbers, self._basis, "pyscf", "mlip")}
        if row.energy is not None:
            labels["energy"] = np.array(row.energy * HARTREE)
        if row.forces is not None:
            labels["forces"] = row.forces * (HARTREE / BOHR)
        if self._guess == "file" and row.initial is not None:
            labels["initial_hamiltonian"] = reorder(row.initial, numbers, self._basis, "pyscf", "mlip")
        elif self._guess == "compute":
            labels["initial_hamiltonian"] = initial_hamiltonian(numbers, positions, self._basis, self._functional)
        if self._overlap == "compute":
            labels["overlap"] = overlap(numbers, positions, self._basis)
        return {name: labels[name] for name in DATA_FIELDS if name in labels}

    def _info(self, row: RawRow, where: str) -> dict[str, Any]:
        info: dict[str, Any] = {"source": where, "basis": self._basis, "functional": self._functional}
        # SPHNet's ids of Dynamic data count frames.
        if row.molecule is not None and (self._rows.dynamic is not None or not self._dynamic):
            info |= {"qm9_id": row.molecule, "group": str(row.molecule)}
        if row.frame is not None:
            info["geo_id"] = row.frame
        if self._guess:
            info["initial_functional"] = self._functional if self._guess == "compute" else "not stated"
        return info if row.converged else {**info, "converged": False}

    def _frames(self) -> list[int]:
        """Return the number of frames of each molecule, in the order of the file."""
        if self._rows.dynamic is None:
            each = qh9_splits.DYNAMIC_ROWS.get(len(self._rows))
            if each is None:
                raise DataError(
                    f"'{self._path}' does not say which frames belong to one molecule, and it is none of the published "
                    "releases by its size. Use the SQLite file for official splits."
                )
            return [each] * (len(self._rows) // each)
        molecules = self._rows.molecules()
        if molecules is None:
            molecules = np.array([int(group) for group in super().groups() or []])
        return qh9_splits.runs(molecules)

    def _sizes(self) -> np.ndarray:
        sizes = self._rows.num_atoms()
        if sizes is None:
            where = str(self._path)
            sizes = np.array([len(self._rows.geometry(k, f"{where}:{k}")[0]) for k in range(len(self._rows))])
        return sizes

    def _indices(self, rows: np.ndarray) -> list[int]:
        """Return where rows of the file stand among the samples; rows that are skipped drop out."""
        places = np.searchsorted(self._positions, rows)
        places = np.minimum(places, len(self._positions) - 1)
        return places[self._positions[places] == rows].tolist()
