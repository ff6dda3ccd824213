"""mlearn and MoNbTaW: PBE sets of elements and bcc alloys in the JSON of the Materials Virtual Lab."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import orjson

from mlip.core.errors import ConfigError, DataError, did_you_mean
from mlip.core.units import KBAR
from mlip.data.datasets.base import Chunk, Recognition
from mlip.data.datasets.streamed import StreamedDataset
from mlip.data.formats.bounded import open_binary
from mlip.data.formats.json_values import array, number, plain
from mlip.data.formats.pymatgen_structure import read_structure
from mlip.data.sample import Sample

LARGEST_FILE = 1 << 28
"""Bytes; the published files have up to a few megabytes, and each is parsed at once."""

VASP = "xy yz xz"
SWAPPED = "xy xz yz"
_COMPONENTS = {"yz": (1, 2), "xz": (0, 2), "xy": (0, 1)}
_HEAD = 1 << 12


class MlearnDataset(StreamedDataset):
    """Energies (eV a cell), forces and stress of Li, Si, Ni, … (mlearn) or of Mo-Nb-Ta-W alloys.

    The files give six stress components in kbar, pressure positive: xx yy zz and three shears, **in an order that
    is not the same everywhere**. In MoNbTaW, in mlearn's Li, and in mlearn's elastic frames of Si it is xy yz xz; in
    all other frames of Si and in all of Ni it is xy xz yz. Symmetry, finite strain and the forces say so, see
    docs/datasets/mlearn.md.

    ``info`` has ``config_type`` (mlearn's group: Elastic, AIMD-NVT, Surface, Vacancy; MoNbTaW's first tag), ``tag``
    and ``description``, where they are known.

    Args:
        path: a JSON file, a folder (searched for ``*.json`` with its sub-folders), or a list of these.
        shear_order: ``auto``, as measured; or ``xy yz xz`` or ``xy xz yz`` for all frames, needed for elements of
            mlearn whose order nobody has measured (Cu, Ge, Mo).

    Raises:
        ConfigError: no such order.
        DataError: no such file, one that is not of this form, frames that cannot be right, or an unknown order.
    """

    units: ClassVar = {
        "energy": "eV",
        "length": "Angstrom",
        "forces": "eV/Angstrom",
        "stress": "kbar, pressure positive",
    }
    licence = "BSD-3-Clause (repositories materialsvirtuallab/mlearn and materialsvirtuallab/maml)"
    citation = (
        "mlearn: Y. Zuo et al., J. Phys. Chem. A 124, 731 (2020), doi:10.1021/acs.jpca.9b08723; "
        "MoNbTaW: X.-G. Li et al., npj Comput. Mater. 6, 70 (2020), doi:10.1038/s41524-020-0339-0"
    )
    level_of_theory: ClassVar = {"functional": "PBE", "code": "VASP"}
    official_splits: ClassVar = ("tag",)

    def __init__(self, path: str | PathLike[str] | Sequence[str | PathLike[str]], shear_order: str = "auto") -> None:
        if shear_order not in ("auto", VASP, SWAPPED):
            raise ConfigError(f"shear_order must be auto, '{VASP}' or '{SWAPPED}', got {shear_order!r}.")
        self._order = shear_order
        self._files = _find(path)

    def chunks(self) -> Iterator[Chunk]:
        """Every file is a chunk, see `Dataset.chunks`."""
        for number_, file in enumerate(self._files):
            yield Chunk(f"{number_}:{file.name}", number_, num_bytes=file.stat().st_size)

    def read(self, chunk: Chunk) -> Iterator[Sample | DataError]:
        """Read the samples of a file, see `Dataset.read`."""
        file = self._files[chunk.location]
        for position, entry in enumerate(_load(file)):
            try:
                yield self._sample(entry, f"{file}:{position}")
            except DataError as error:
                yield error

    def official_split(self, name: str) -> dict[str, Sequence[int]]:
        """Return the split that the files state: ``tag`` of mlearn, the tag "test" of MoNbTaW.

        Raises:
            ConfigError: another name than "tag".
            DataError: a frame is neither of train nor of test.
        """
        if name not in self.official_splits:
            return dict(super().official_split(name))
        split: dict[str, list[int]] = {"train": [], "valid": [], "test": []}
        for index, sample in enumerate(self):
            tag = sample.info.get("tag")
            if tag not in ("train", "test"):
                raise DataError(f"{sample.source} is tagged {tag!r}, neither train nor test.")
            split[tag].append(index)
        return dict(split)

    def _sample(self, entry: Any, where: str) -> Sample:
        if not isinstance(entry, dict) or not isinstance(entry.get("outputs"), dict):
            raise DataError(f"{where} must be an object with structure and outputs.")
        outputs = entry["outputs"]
        for key, holder in (("structure", entry), ("energy", outputs), ("forces", outputs)):
            if holder.get(key) is None:
                raise DataError(f"{where} has no '{key}'.{did_you_mean(key, holder)}")
        atoms = read_structure(entry["structure"], where)
        if entry.get("num_atoms", len(atoms)) != len(atoms):
            raise DataError(f"{where} states {entry['num_atoms']!r:.20} atoms, its structure has {len(atoms)}.")
        labels = {
            "energy": np.array(number(outputs["energy"], "energy", where)),
            "forces": array(outputs["forces"], "forces", (len(atoms), 3), where),
        }
        info = _info(entry)
        stress_key = next((key for key in ("virial_stress", "stress") if outputs.get(key) is not None), None)
        if stress_key is not None:
            known = self._order if self._order != "auto" else _measured_order(stress_key, entry, where)
            labels["stress"] = _tensor(array(outputs[stress_key], "stress", (6,), where), known)
        return Sample(atoms, labels, {"source": where, **info})

    @classmethod
    def recognise(cls, path: Path) -> Recognition | None:
        """Look at the first kilobytes of a file, or of the first JSON file in a folder."""
        try:
            file = next(iter(_find(path)), None)
            with open_binary(file) as stream:  # type: ignore[arg-type]
                head = stream.read(_HEAD)
        except (DataError, OSError):
            return None
        text = head.lstrip()
        if not text.startswith(b"[") or b'"pymatgen.core.structure"' not in head:
            return None
        return Recognition(3, {}, "The order of shear stresses is known for Li, Si, Ni and MoNbTaW only.")


def _measured_order(stress_key: str, entry: dict[str, Any], where: str) -> str:
    """Return the order of shears of a frame, as measured on the published files."""
    if stress_key == "stress":
        return VASP
    element, group = entry.get("element"), entry.get("group")
    if element == "Li" or (element == "Si" and group == "Elastic"):
        return VASP
    if element in ("Si", "Ni"):
        return SWAPPED
    raise DataError(
        f"{where}: nobody has measured the order of the shear stresses of mlearn's {element!r:.10}; Si and Ni differ "
        f"from Li. Find it out as docs/datasets/mlearn.md says, and set data.dataset.shear_order to '{VASP}' or "
        f"'{SWAPPED}'."
    )


def _tensor(components: np.ndarray, order: str) -> np.ndarray:
    """Return (3, 3) eV/Å³, tension positive, from xx yy zz and three shears in kbar, pressure positive."""
    stress = np.diag(components[:3])
    for value, name in zip(components[3:], order.split()):
        i, j = _COMPONENTS[name]
        stress[i, j] = stress[j, i] = value
    return stress * -KBAR


def _info(entry: dict[str, Any]) -> dict[str, Any]:
    tags, notes = entry.get("tags"), entry.get("notes")
    if isinstance(tags, list) and tags:
        first = str(tags[0])
        described = ", ".join(f"{key} {value}" for key, value in notes.items()) if isinstance(notes, dict) else None
        found = {
            "config_type": first,
            "tag": "test" if first == "test" else "train",
            "description": described,
            "system": entry.get("group"),
        }
    else:
        found = {"config_type": entry.get("group"), "tag": entry.get("tag"), "description": entry.get("description")}
    return plain(found)


def _load(file: Path) -> list[Any]:
    with open_binary(file) as stream:
        text = stream.read(LARGEST_FILE + 1)
    if len(text) > LARGEST_FILE:
        raise DataError(f"'{file}' has more than {LARGEST_FILE >> 20} MB, too much for this format.")
    try:
        entries = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise DataError(f"'{file}' is not valid JSON ({error.msg}): truncated or damaged. Copy it again.") from error
    if not isinstance(entries, list):
        raise DataError(f"'{file}' must hold a list of structures with outputs, got {type(entries).__name__}.")
    return entries


def _find(path: str | PathLike[str] | Sequence[str | PathLike[str]]) -> list[Path]:
    """Return the JSON files behind a path, a folder or a list of these."""
    if path is None or path in ("", "???"):
        raise DataError("The data set needs a path: set data.path to a JSON file or a folder of them.")
    found: list[Path] = []
    for item in [path] if isinstance(path, str | PathLike) else path:
        place = Path(item).expanduser()
        if place.is_dir():
            found += sorted(file for file in place.rglob("*.json") if not file.name.startswith("."))
            if not found:
                raise DataError(f"The folder '{place}' has no .json files.")
        elif place.exists():
            found.append(place)
        else:
            there = [entry.name for entry in place.parent.iterdir()] if place.parent.is_dir() else []
            raise DataError(f"There is no file '{place}'.{did_you_mean(place.name, there)}")
    if len(set(found)) < len(found):
        raise DataError("Each file may be listed once; a file is named twice.")
    return found
