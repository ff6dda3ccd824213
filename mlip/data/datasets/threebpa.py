"""3BPA: 3-(benzyloxy)pyridin-2-amine, a flexible drug-like molecule at 300, 600 and 1200 K."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import ClassVar

from mlip.core.errors import DataError, did_you_mean
from mlip.data.datasets.base import Recognition
from mlip.data.datasets.extxyz import ExtxyzDataset

SUBSETS = ("train_300K", "train_mixedT", "test_300K", "test_600K", "test_1200K", "test_dih")
ISOLATED_ATOMS = "iso_atoms.xyz"


class ThreeBPADataset(ExtxyzDataset):
    """One subset of 3BPA (C12H12N2O, 27 atoms; total energies).

    The files give a 50 Å box with pbc F F F: the molecule is not periodic. ``train_300K`` and
    ``train_mixedT`` share 31 geometries; never test one on the other without removing them.

    Args:
        path: folder with ``train_300K.xyz``, ``train_mixedT.xyz`` and ``iso_atoms.xyz``.
        subset: file name without ``.xyz``.

    Raises:
        DataError: no such file, or (when it is read) it is damaged.
    """

    provides = ("energy", "forces")
    level_of_theory: ClassVar[dict[str, str]] = {"functional": "ωB97X", "basis": "6-31G(d)", "code": "ORCA"}

    def __init__(self, path: str | PathLike[str], subset: str = "train_300K") -> None:
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise DataError(
                f"The 3BPA data set needs its folder (train_300K.xyz, iso_atoms.xyz, …), '{folder}' is not "
                "one. Set data.path."
            )
        file = folder / f"{subset}.xyz"
        if not file.is_file():
            there = sorted(entry.stem for entry in folder.glob("*.xyz") if entry.name != ISOLATED_ATOMS)
            raise DataError(
                f"'{folder}' has no subset '{subset}'.{did_you_mean(subset, [*there, *SUBSETS])} "
                f"There: {', '.join(there) or 'none'}."
            )
        isolated = folder / ISOLATED_ATOMS
        if not isolated.is_file():
            raise DataError(f"'{folder}' lacks {ISOLATED_ATOMS}, the isolated-atom energies of 3BPA.")
        super().__init__(
            [str(file), str(isolated)],
            labels=self.provides,
            energy_key="energy",
            forces_key="forces",
            licence="MIT (repository davkovacs/BOTNet-datasets)",
            citation="D. P. Kovács et al., J. Chem. Theory Comput. 17, 7696 (2021), doi:10.1021/acs.jctc.1c00647",
        )

    def fields(self) -> set[str]:
        """Energies and forces."""
        return set(self.provides)

    @classmethod
    def recognise(cls, path: Path) -> Recognition | None:
        """Recognise the folder by its training set and its isolated atoms."""
        if (path / "train_300K.xyz").is_file() and (path / ISOLATED_ATOMS).is_file():
            return Recognition(3, note="The subset train_300K is read; name another one with data.dataset.subset=….")
        return None
