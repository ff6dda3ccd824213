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
from mlip.data.datasets.base import Dataset
from mlip.data.store.plan import PLAN, differences, read_json, shard_name, write_json
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


def complete(out: Path, content: dict[str, Any], rejected: list[dict[str, Any]]) -> None:
    """Write what marks a store as complete.

    Args:
        out: its folder.
        content: of store.json, without what follows from the shards.
        rejected: what was left out, one line each in rejected.jsonl.

    Raises:
        MlipError: the folder cannot be written to.
    """
    if rejected:
        lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in rejected]
        write_text_atomically(out / REJECTED, "".join(lines))
    else:
        (out / REJECTED).unlink(missing_ok=True)
    readers = [ShardReader(out / shard_name(number), OpenFiles()) for number in range(len(content["shards"]))]
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


def _joined(texts: Any) -> str:
    return "; ".join(dict.fromkeys(texts))


def _num_duplicates(readers: list[ShardReader], column: str) -> int:
    """Return how many samples are copies of an earlier one, in memory that does not grow with the store."""
    passes = 1 + sum(reader.num_samples for reader in readers) // _PASS_SAMPLES
    found = 0
    for number in range(passes):
        parts = [digests[digests % passes == number] for digests in (reader.column(column) for reader in readers)]
        digests = np.concatenate(parts)
        found += len(digests) - len(np.unique(digests))
    return found


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


def check_append(out: Path, store: Mapping[str, Any], plan: Mapping[str, Any], dataset: Dataset) -> None:
    """Refuse to add what does not belong into a store.

    Raises:
        DataError: other options, another level of theory, or chunks that it has already.
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
        _check_overlap(out, old, new, dataset)


def _check_overlap(out: Path, old: Mapping[str, Any], new: Mapping[str, Any], dataset: Dataset) -> None:
    """Refuse chunks of the same files, read in the same way, that a source of the store has already."""
    common = {tuple(file) for file in old["files"]} & {tuple(file) for file in new["files"]}
    ways = [{k: v for k, v in source["dataset"].items() if k != "path"} for source in (old, new)]
    if not common or ways[0] != ways[1] or old["kind"] != new["kind"]:
        return
    there: set[str] = set()
    for number in range(old["first_shard"], old["first_shard"] + old["num_shards"]):
        there |= set(ShardReader(out / shard_name(number), OpenFiles()).header["keys"])
    for chunk in dataset.chunks():
        if chunk.key in there:
            raise DataError(
                f"'{out}' holds '{chunk.key}' already: nothing was added. Leave these files out of the path."
            )


def unfinished(pending: Mapping[str, Any], store: Mapping[str, Any] | None) -> bool:
    """Whether a plan that is there has not been carried out."""
    return store is None or all(
        differences(pending, {"source": source, "options": store["options"]}) for source in store["sources"]
    )
