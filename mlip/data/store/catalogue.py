"""``store.json``: the last file of a preparation, which makes a folder a store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlip import __version__
from mlip.core.errors import DataError
from mlip.core.files import write_text_atomically
from mlip.data.store.plan import PLAN, differences, encoded, file_entries, read_json, shard_name, write_json
from mlip.data.store.shard_reader import OpenFiles, ShardReader
from mlip.data.store.streams import damaged

STORE = "store.json"
REJECTED = "rejected.jsonl"

_PASS_SAMPLES = 20_000_000
"""Hashes that are compared at a time."""


def read_store(out: Path) -> dict[str, Any] | None:
    """Return the content of store.json; None if the folder has none.

    Raises:
        DataError: it is damaged, or of a newer version.
    """
    content = read_json(out / STORE)
    if content is not None and content.get("checksum") != _checksum(content):
        raise damaged(f"'{out / STORE}'")
    return content


def _checksum(content: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in content.items() if key not in ("checksum", "format_version")}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def complete(out: Path, content: dict[str, Any], rejected: list[dict[str, Any]], first: int = 0) -> None:
    """Write what marks a store as complete.

    Args:
        out: its folder.
        content: of store.json, without what follows from the shards.
        rejected: what was left out, one line each in rejected.jsonl.
        first: number of the first shard that is added to others.

    Raises:
        MlipError: the folder cannot be written to.
        DataError: all that is added is there already.
    """
    readers = [ShardReader(out / shard_name(number), OpenFiles()) for number in range(len(content["shards"]))]
    if first and _all_known(readers[:first], readers[first:]):
        raise DataError(
            f"'{out}' holds all these structures already, with the same labels, from other files: nothing was added."
        )
    if rejected:
        lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in rejected]
        write_text_atomically(out / REJECTED, encoded("".join(lines)).decode())
    else:
        (out / REJECTED).unlink(missing_ok=True)
    content = {
        **content,
        "licence": _joined(source["licence"] for source in content["sources"]),
        "citation": _joined(source["citation"] for source in content["sources"]),
        "duplicates": {
            "same": _num_duplicates(readers, "digest"),
            "same_geometry": _num_duplicates(readers, "geometry_digest"),
        },
        "made_by": f"mlip {__version__}",
    }
    write_json(out / STORE, {**content, "checksum": _checksum(json.loads(json.dumps(content)))})
    (out / PLAN).unlink(missing_ok=True)
    # Of an addition that was given up.
    for stray in sorted(out.glob("shard-*.h5"))[len(readers) :]:
        stray.unlink()


def _joined(texts: Any) -> str:
    return "; ".join(dict.fromkeys(texts))


def _passes(readers: list[ShardReader]) -> int:
    return 1 + sum(reader.num_samples for reader in readers) // _PASS_SAMPLES


def _digests(readers: list[ShardReader], column: str, number: int, passes: int) -> np.ndarray:
    """Return one of so many parts of the hashes, so that memory does not grow with the store."""
    parts = [digests[digests % passes == number] for digests in (reader.column(column) for reader in readers)]
    return np.concatenate([np.zeros(0, dtype=np.uint64), *parts])


def _num_duplicates(readers: list[ShardReader], column: str) -> int:
    """Return how many samples are copies of an earlier one."""
    found, passes = 0, _passes(readers)
    for number in range(passes):
        digests = _digests(readers, column, number, passes)
        found += len(digests) - len(np.unique(digests))
    return found


def _all_known(old: list[ShardReader], new: list[ShardReader]) -> bool:
    """Whether every sample is a copy of an older one."""
    passes = _passes(old)
    return all(
        bool(np.isin(_digests(new, "digest", number, passes), _digests(old, "digest", number, passes)).all())
        for number in range(passes)
    )


def whole(out: Path, store: Mapping[str, Any]) -> bool:
    """Whether all shards are there, with the size they had."""
    return not missing(out, store)


def missing(out: Path, store: Mapping[str, Any]) -> list[Path]:
    """Return the shards that are not there, or have another size."""
    found = []
    for number, (_, size) in enumerate(store["shards"]):
        path = out / shard_name(number)
        if not path.is_file() or path.stat().st_size != size:
            found.append(path)
    return found


def check_append(out: Path, store: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    """Refuse to add what does not belong into a store.

    Raises:
        DataError: other options, another level of theory, or files that it has already.
    """
    if store["options"] != plan["options"]:
        changes = [
            f"{key} is {value!r} there and {plan['options'][key]!r} here"
            for key, value in store["options"].items()
            if value != plan["options"][key]
        ]
        raise DataError(f"What is added to '{out}' must be made with the same options: {'; '.join(changes)}.")
    new = plan["source"]
    for old in store["sources"]:
        theories = old["level_of_theory"], new["level_of_theory"]
        if all(theories) and theories[0] != theories[1]:
            raise DataError(
                f"'{out}' holds data of another level of theory ({theories[0]}) than these ({theories[1]}): their "
                "energies do not belong together. Make a store of its own."
            )
        _check_overlap(out, old, new)


def _check_overlap(out: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse files, read in the same way, that a source of the store has already."""
    ways = [{key: value for key, value in source["dataset"].items() if key != "path"} for source in (old, new)]
    if ways[0] != ways[1] or old["kind"] != new["kind"]:
        return
    there = [tuple(file) for file in old["files"]]
    # Files that other options name, such as reference energies, may well be the same.
    for file in file_entries({"path": new["dataset"].get("path")}, out):
        if tuple(file) in there:
            raise DataError(
                f"'{out}' holds the data of '{file[0]}' already: nothing was added. Leave this file out of the path."
            )


def unfinished(pending: Mapping[str, Any], store: Mapping[str, Any] | None) -> bool:
    """Whether a plan that is there has not been carried out."""
    return store is None or all(
        differences(pending, {"source": source, "options": store["options"]}) for source in store["sources"]
    )
