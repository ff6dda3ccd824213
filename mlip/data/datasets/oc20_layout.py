"""Which of OC20's layouts a path has."""

from __future__ import annotations

from pathlib import Path

from mlip.core.errors import DataError, did_you_mean
from mlip.data.datasets.oc20_lmdb import PygLmdb
from mlip.data.datasets.oc20_pairs import Pairs, find_table, is_frames
from mlip.data.datasets.oc20_record import Layout, Record
from mlip.data.datasets.oc20_rows import Rows, has_system
from mlip.data.formats.ase_rows import AseRows
from mlip.data.formats.bounded import open_text

_EXPECTED = "pairs .extxyz(.xz) + .txt(.xz), .lmdb, .aselmdb or .db"


def open_layout(path: Path) -> Layout:
    """Open a file or a folder of OC20.

    Raises:
        DataError: nothing of OC20 is there, or several layouts are.
    """
    if path.is_file() or (path / "data.mdb").is_file():
        found = {_kind(path): [path]}
        if None in found:
            raise DataError(f"'{path}' is not a file of OC20 by its name: {_EXPECTED} were expected.")
    elif path.is_dir():
        found = _kinds(path)
    else:
        folder = path.parent
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        raise DataError(
            f"There is no '{path}'.{did_you_mean(path.name, names)} Set data.path to a file or folder of OC20."
        )
    if not found:
        below = [entry.name for entry in sorted(path.iterdir()) if entry.is_dir() and _kinds(entry)]
        hint = f" Did you mean '{path / below[0]}'?" if below else ""
        raise DataError(f"The folder '{path}' has no {_EXPECTED}.{hint}")
    if len(found) > 1:
        examples = ", ".join(f"'{files[0].name}'" for files in found.values())
        raise DataError(f"The folder '{path}' has files of several layouts ({examples}). Set data.path to one of them.")
    ((kind, files),) = found.items()
    if kind == "frames":
        return Pairs(files)
    return PygLmdb(files) if kind == "lmdb" else Rows(files)


def recognise_record(path: Path) -> Record | None:
    """Return the first record of a path if its content shows that it is OC20, else None; raises nothing."""
    try:
        layout = open_layout(path)
        if isinstance(layout, Pairs):
            table = find_table(layout.files[0])
            if table is None:
                return None
            with open_text(table) as handle:
                known = handle.readline(100).startswith("random")
        elif isinstance(layout, Rows):
            known = has_system(AseRows([str(file) for file in layout.files[:1]]))
        else:
            known = True
        record = layout.first() if known else None
        # Other data sets have PyG objects, too; systems and tags are OC20's.
        return None if record is None or record.system is None or record.tags is None else record
    except (DataError, OSError):
        return None


def _kind(path: Path) -> str | None:
    if is_frames(path):
        return "frames"
    if path.suffix == ".lmdb" or path.is_dir():
        return "lmdb"
    return "rows" if path.suffix in (".aselmdb", ".db") else None


def _kinds(folder: Path) -> dict[str | None, list[Path]]:
    """Return the files of a folder by layout; hidden files, tables and lock files are none."""
    found: dict[str | None, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        kind = _kind(entry)
        if kind and not entry.name.startswith(".") and (entry.is_file() or (entry / "data.mdb").is_file()):
            found.setdefault(kind, []).append(entry)
    return found
