"""What a store is made of and how: what decides whether a preparation can go on."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from glob import glob
from pathlib import Path
from typing import Any

from mlip.core.errors import DataError
from mlip.core.files import write_atomically
from mlip.data.datasets.base import Chunk, Dataset
from mlip.data.store.shard_writer import FORMAT_VERSION

PLAN = "plan.json"
"""What is being made; there only until it is made."""

CHUNK_SAMPLES = 2048
CHUNK_BYTES = 4_000_000
"""A shard takes neighbouring chunks up to this many samples or, where that is unknown, bytes of the source."""

_SHOWN = 3

_TRANSIENT = ("-lock", "lock.mdb", "-shm")
"""Ends of the names of files that others change who only read."""


def describe_source(dataset: Dataset, description: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Return what identifies a source, as plain values.

    Args:
        dataset: the source.
        description: ``dataset``: its configuration, and ``words``: of the command line that gave it.
        out: folder of the store, whose own files are none of the source.

    Returns:
        ``dataset``, ``words``, ``kind``, ``files`` ([path, bytes, time of change in ns], all of them), and what the
        data set says of itself.
    """
    config = dict(description.get("dataset", {}))
    found = {
        "kind": f"{type(dataset).__module__}.{type(dataset).__qualname__}",
        "dataset": config,
        "words": list(description.get("words", ())),
        "files": file_entries(config, out),
        "units": dict(dataset.units),
        "licence": dataset.licence,
        "citation": dataset.citation,
        "level_of_theory": dict(dataset.level_of_theory),
    }
    return json.loads(json.dumps(found, default=str))


def file_entries(config: Mapping[str, Any], out: Path) -> list[list[Any]]:
    """Return [path, bytes, time of change in ns] of all files that a configuration names, each once."""
    store = out.resolve()
    found: dict[Path, list[Any]] = {}
    for key, value in config.items():
        for file in _files(value, folders=key == "path"):
            file = file.resolve()
            if store not in file.parents and not file.name.endswith(_TRANSIENT):
                found[file] = [str(file), *_state(file)]
    return list(found.values())


def _files(value: Any, folders: bool) -> Iterator[Path]:
    """Yield the files that a value names: files, patterns, folders where wanted, lists of these."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _files(item, folders)
    elif isinstance(value, str | Path) and str(value):
        path = Path(value).expanduser()
        for match in [path] if path.exists() else sorted(map(Path, glob(str(path), recursive=True))):
            if match.is_file():
                yield match
            elif folders:
                yield from sorted(file for file in match.rglob("*") if file.is_file())


def _state(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def check_unchanged(source: Mapping[str, Any]) -> None:
    """Refuse a source whose files have changed since its description was made: some of both may have been read.

    Raises:
        DataError: names the file.
    """
    for name, *state in source["files"]:
        file = Path(name)
        if not file.is_file() or _state(file) != state:
            raise DataError(
                f"'{name}' has changed while it was read: what was made of it is not kept. Run the same command again "
                "when it no longer changes."
            )


def plan_hash(source: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Return what marks the shards of one source, made with these options."""
    content = [FORMAT_VERSION, source["kind"], source["dataset"], source["files"], options]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say in what two plans (``source``, ``options``) differ; nothing where the same shards result."""
    found = []
    for part in ("options", "dataset"):
        before, after = (plan["options"] if part == "options" else plan["source"]["dataset"] for plan in (old, new))
        for key in dict.fromkeys((*before, *after)):
            if before.get(key) != after.get(key):
                found.append(f"{key} was {before.get(key)!r} and is {after.get(key)!r}")
    if old["source"]["kind"] != new["source"]["kind"] and not found:
        found.append(f"the data set was {old['source']['kind']} and is {new['source']['kind']}")
    files = [{name: tuple(rest) for name, *rest in plan["source"]["files"]} for plan in (old, new)]
    if not found:
        for name in dict.fromkeys((*files[0], *files[1])):
            if files[0].get(name) != files[1].get(name):
                change = "new" if name not in files[0] else "gone" if name not in files[1] else "changed"
                found.append(f"the file '{name}' is {change}")
    more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return [*found[:_SHOWN], *more]


def command(source: Mapping[str, Any], out: Path, options: Mapping[str, Any], append: bool = False) -> str:
    """Return the command line that makes, or goes on with, a preparation."""
    if not source["words"]:
        return "mlip.data.store.prepare.prepare(…) with the same arguments"
    extra = [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in options.items()]
    words = [*source["words"], f"out={out}", *extra, *(["append=true"] if append else [])]
    return f"mlip data prepare {shlex.join(words)}"


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a file of the store; None if it is not there.

    Raises:
        DataError: it is no JSON object, or of a newer version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"'{path}' cannot be read ({error}). Delete the folder and prepare the store anew.") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if not isinstance(version, int):
        raise DataError(f"'{path}' is not a file of a store of mlip. Choose another folder.")
    if version > FORMAT_VERSION:
        raise DataError(
            f"'{path}' has format version {version}, this version of mlip reads up to {FORMAT_VERSION}. Update mlip."
        )
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file of the store, whole or not at all."""
    content = {"format_version": FORMAT_VERSION, **content}
    # One line for each key: readable, and short where there are many shards.
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"

    def write(temporary: Path) -> None:
        with temporary.open("wb") as handle:
            handle.write(encoded(text))
            handle.flush()
            os.fsync(handle.fileno())

    write_atomically(path, write)


def encoded(text: str) -> bytes:
    """Return JSON as UTF-8; bytes of file names that are no characters become escapes, which JSON knows."""
    return text.encode("utf-8", "backslashreplace")


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:06d}.h5"


def grouped(chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, ...]]:
    """Put neighbouring small chunks together: a shard of ten structures would be mostly header."""
    group: list[Chunk] = []
    filled = 0.0
    for chunk in chunks:
        if chunk.num_samples is not None:
            weight = chunk.num_samples / CHUNK_SAMPLES
        else:
            weight = chunk.num_bytes / CHUNK_BYTES if chunk.num_bytes else 1.0
        if group and filled + weight > 1.0:
            yield tuple(group)
            group, filled = [], 0.0
        group.append(chunk)
        filled += weight
    if group:
        yield tuple(group)
