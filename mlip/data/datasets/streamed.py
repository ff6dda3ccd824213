"""Data sets whose files are read from their beginning: text, JSON, archives."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property

from ase.data import chemical_symbols

from mlip.core.errors import DataError
from mlip.core.fields import DATA_FIELDS
from mlip.data.datasets.base import Chunk, Dataset, Progress
from mlip.data.labels import MissingLabel
from mlip.data.sample import Sample

LARGEST_IN_MEMORY = 2 * 10**9
"""Bytes of files above which a data set is refused as a whole: the store is made for these."""

SAME_ENERGY = 1e-6
"""eV; isolated-atom energies of one element that differ by more contradict each other."""

SHOWN = 3
"""Errors of a data set that its message quotes."""


class StreamedDataset(Dataset):
    """A data set that writes `chunks` and `read`; as a sequence it is loaded into memory when first asked.

    So what is wrong anywhere in the files is said before a training starts. Isolated atoms are kept out of the
    sequence and give `isolated_atom_energies`.

    Raises (when it is first used as a sequence):
        DataError: as `read`, with the number of damaged samples; or the files are too large for memory.
    """

    @abstractmethod
    def chunks(self) -> Iterator[Chunk]:
        """Cut the files into chunks, see `Dataset.chunks`; ``num_bytes`` must be set."""

    @abstractmethod
    def read(self, chunk: Chunk) -> Iterator[Sample | DataError]:
        """Read the samples of a chunk, see `Dataset.read`."""

    @cached_property
    def _loaded(self) -> tuple[list[Sample], dict[str, float]]:
        """The samples, and the energies of isolated atoms by symbol."""
        return self._read_all(None)

    def load(self, progress: Progress | None = None) -> None:
        """See `Dataset.load`."""
        if "_loaded" not in self.__dict__:
            self.__dict__["_loaded"] = self._read_all(progress)

    def _read_all(self, progress: Progress | None) -> tuple[list[Sample], dict[str, float]]:
        chunks = list(self.chunks())
        size = sum(chunk.num_bytes for chunk in chunks)
        if size > LARGEST_IN_MEMORY:
            raise DataError(
                f"The files have {size / 1e9:.1f} GB, too much to hold in memory. Make a store of them once with "
                "mlip data prepare (the same data=… data.path=…, and out=FOLDER), then use data=store data.path=FOLDER."
            )
        samples: list[Sample] = []
        isolated: dict[str, tuple[float, str]] = {}
        errors: list[DataError] = []
        number = done = 0
        for chunk in chunks:
            for item in self.read(chunk):
                number += 1
                if isinstance(item, DataError):
                    errors.append(item)
                elif item.isolated:
                    add_isolated(isolated, item)
                else:
                    samples.append(item)
            done += chunk.num_bytes
            if progress is not None:
                progress(done / max(size, 1), number)
        raise_together(errors, number)
        if not samples:
            raise DataError(self.explain_empty(isolated))
        self.check_labels(set().union(*(sample.labels for sample in samples)))
        return samples, {symbol: energy for symbol, (energy, _) in isolated.items()}

    def explain_empty(self, isolated: dict[str, tuple[float, str]]) -> str:
        """Say why there is nothing to train on."""
        return "The files hold only isolated atoms." if isolated else "The files hold no structures."

    @property
    def provides(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the fields that every sample has."""
        everywhere = set.intersection(*(set(sample.labels) for sample in self._loaded[0]))
        return tuple(field for field in DATA_FIELDS if field in everywhere)

    @property
    def in_memory(self) -> bool:
        """True: it is a list."""
        return True

    def __len__(self) -> int:
        return len(self._loaded[0])

    def __getitem__(self, index: int) -> Sample:
        return self._loaded[0][index]

    def isolated_atom_energies(self) -> dict[str, float]:
        """Energies of the isolated atoms in the files by symbol, eV."""
        return dict(self._loaded[1])


def add_isolated(known: dict[str, tuple[float, str]], sample: Sample) -> None:
    """Add the energy of an isolated atom to ``{symbol: (energy, source)}``.

    Raises:
        DataError: another energy of the same element is there.
    """
    symbol = chemical_symbols[sample.atoms.numbers[0]]
    energy = float(sample.labels["energy"])
    there, source = known.setdefault(symbol, (energy, sample.source))
    if abs(there - energy) > SAME_ENERGY:
        raise DataError(
            f"Two energies for the isolated atom {symbol}: {there} eV ({source}) and {energy} eV "
            f"({sample.source}). Keep the one that belongs to the data."
        )


def raise_together(errors: list[DataError], number: int) -> None:
    """Raise damaged samples as one error, if there are any.

    Frames that lack the same label for the same reason are counted, and named once.

    Raises:
        DataError: the first of them where it is alone, else how many there are and the first few.
    """
    if not errors:
        return
    missing: dict[tuple[str, str], list[MissingLabel]] = {}
    for error in errors:
        if isinstance(error, MissingLabel):
            missing.setdefault((error.label, error.hint), []).append(error)
    messages = [
        f"{len(alike)} of {number} frames have no {label} (first: {alike[0].where}); {hint}"
        for (label, hint), alike in missing.items()
    ]
    messages += [str(error) for error in errors if not isinstance(error, MissingLabel)]
    if len(messages) == 1:
        raise DataError(messages[0]) from errors[0]
    shown = " ".join(f"({k}) {message}" for k, message in enumerate(messages[:SHOWN], start=1))
    more = f" ({len(messages) - SHOWN} more.)" if len(messages) > SHOWN else ""
    raise DataError(f"{len(errors)} of {number} structures cannot be used: {shown}{more}") from errors[0]
