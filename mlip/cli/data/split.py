"""``mlip data split``: divide data into files of indices."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from mlip.data.datasets.base import Dataset

RULES = ("random", "group", "size", "official:NAME")


def split(
    words: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="A file, or data=NAME data.path=… data.dataset.OPTION=…"),
    ],
    out: Annotated[Path, typer.Option(help="Folder for train.txt, valid.txt, test.txt and split.json.")],
    train: Annotated[str | None, typer.Option(help="Fraction (0.8, the default) or number of structures.")] = None,
    valid: Annotated[str | None, typer.Option(help="Likewise; 0.1 if not given.")] = None,
    test: Annotated[str | None, typer.Option(help="Likewise; 0.1 if no part is given, else 0.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and data give the same split.")] = 0,
    by: Annotated[
        str,
        typer.Option(
            help="random; group (frames of one material or trajectory stay together); size (small ones train, large "
            "ones test); official:NAME (as published)."
        ),
    ] = "random",
    max_train_atoms: Annotated[
        int | None, typer.Option(help="With --by size: structures up to this size train.")
    ] = None,
    max_valid_atoms: Annotated[
        int | None, typer.Option(help="With --by size: larger ones up to this size validate, the rest test.")
    ] = None,
    allow_duplicates: Annotated[
        bool, typer.Option("--allow-duplicates", help="Accept the same geometry in two parts.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier split in the folder.")] = False,
) -> None:
    """Divide data into training, validation and test parts.

    The parts are written as files of indices.

    \b
    mlip data split my.xyz --train 0.8 --valid 0.1 --test 0.1 --out split
    mlip data split data=mptrj data.path=FILE data.dataset.energy=uncorrected --by group --out split
    mlip train data.path=my.xyz data.split.train=split/train.txt data.split.valid=split/valid.txt data.split.test=0

    The same geometry in two parts is an error, and so is an element that training never sees a reason for a warning.
    """
    from rich.console import Console

    from mlip.cli.data.source import open_data
    from mlip.core.errors import MlipError

    console = Console()
    usual_test = "0.1" if train is None and valid is None else "0"
    given = {"train": train or "0.8", "valid": valid or "0.1", "test": test or usual_test}
    wanted = {name: _part(name, text) for name, text in given.items()}
    _check_rule(by)
    limits = _limits(by, max_train_atoms, max_valid_atoms)
    if (out / "split.json").exists() and not overwrite:
        raise MlipError(f"'{out}' holds a split already: choose another folder with --out, or --overwrite.")
    dataset, _ = open_data(words)
    with console.status("reading the data") as status:
        survey = take_survey(dataset, lambda count: status.update(f"reading the data: {count:,} structures"))
    parts = divide(dataset, survey, by, wanted, seed, limits)
    shared = count_shared(survey, parts, allow_duplicates)
    drawn = by == "random" or by == "group"
    rule = {"by": by} | (wanted if limits is None and ":" not in by else {}) | ({"seed": seed} if drawn else {})
    if limits is not None:
        rule |= {"max_train_atoms": limits[0], "max_valid_atoms": limits[1]}
    record = describe(survey, parts) | {"rule": rule, "source": list(words), "shared_geometries": shared}
    write(out, parts, record)
    _show(console, record, out)


@dataclass(frozen=True)
class Survey:
    """What a split needs to know of every structure, in order.

    Attributes:
        sizes: (structures,) atoms.
        groups: of each, None without.
        geometries: (structures,) uint64 hashes.
        digests: (structures,) uint64 hashes of structure and labels.
        compositions: different sets of elements.
        composition: (structures,) which of them.
    """

    sizes: np.ndarray
    groups: list[str | None]
    geometries: np.ndarray
    digests: np.ndarray
    compositions: list[frozenset[str]]
    composition: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)

    def elements(self, indices: Sequence[int]) -> set[str]:
        """Return the elements of some structures."""
        import numpy as np

        used = np.unique(self.composition[np.asarray(indices, dtype=np.int64)])
        return set().union(*(self.compositions[k] for k in used))


def take_survey(dataset: Dataset, tell: Any = lambda count: None) -> Survey:
    """Read a data set once, a structure at a time, however large it is.

    Raises:
        DataError: structures that cannot be used, or none at all.
    """
    import numpy as np

    from mlip.core.errors import DataError
    from mlip.data.content_hash import geometry_hash, sample_hash
    from mlip.data.datasets.streamed import raise_together

    rows: list[tuple[int, int, int, int]] = []
    groups: list[str | None] = []
    known: dict[tuple[str, ...], int] = {}
    errors: list[DataError] = []
    for chunk in dataset.chunks():
        for item in dataset.read(chunk):
            if isinstance(item, DataError):
                errors.append(item)
            elif not item.isolated:
                atoms = item.atoms
                elements = tuple(sorted(set(atoms.get_chemical_symbols())))
                number = known.setdefault(elements, len(known))
                rows.append((len(atoms), number, geometry_hash(atoms), sample_hash(item)))
                groups.append(item.info.get("group"))
        tell(len(rows))
    raise_together(errors, len(rows) + len(errors))
    if not rows:
        raise DataError("There are no structures to split.")
    sizes, compositions, geometries, digests = (np.array(column, dtype=np.uint64) for column in zip(*rows))
    return Survey(
        sizes.astype(np.int64), groups, geometries, digests, [frozenset(k) for k in known], compositions.astype(int)
    )


def divide(
    dataset: Dataset,
    survey: Survey,
    by: str,
    wanted: Mapping[str, int | float],
    seed: int,
    limits: tuple[int, int] | None = None,
) -> dict[str, list[int]]:
    """Return the indices of the parts.

    Raises:
        ConfigError: parts that do not fit, or an official split that there is not.
        DataError: a structure without a group.
    """
    from mlip.data.splits import PARTS, check_disjoint, group_split, size_split, split_at_sizes, split_indices

    if by == "random":
        return split_indices(len(survey), **wanted, seed=seed)
    if by == "group":
        return group_split(survey.groups, **wanted, seed=seed)  # type: ignore[arg-type]
    if by == "size":
        return split_at_sizes(survey.sizes, *limits) if limits else size_split(survey.sizes, **wanted)  # type: ignore[arg-type]
    official = dataset.official_split(by.removeprefix("official:"))
    parts = {part: [int(index) for index in official.get(part, ())] for part in PARTS}
    check_disjoint(parts)
    return parts


def count_shared(survey: Survey, parts: Mapping[str, Sequence[int]], allow: bool) -> int:
    """Return the number of structures whose geometry is in an earlier part, too.

    Raises:
        DataError: there are some and ``allow`` is false.
    """
    import numpy as np

    from mlip.core.errors import DataError
    from mlip.data.leakage import shared_geometries

    indices = [np.asarray(part, dtype=np.int64) for part in parts.values()]
    shared = shared_geometries([survey.geometries[part] for part in indices])
    if len(shared) and not allow:
        names = [name for name, part in parts.items() for _ in range(len(part))]
        there, here = shared[0].tolist()
        every = np.concatenate(indices)
        raise DataError(
            f"{len(shared)} geometries are in two parts, first structure {every[there]} ({names[there]}) and "
            f"{every[here]} ({names[here]}): testing on training data measures nothing. Remove the copies, "
            "split --by group, or accept them with --allow-duplicates."
        )
    return len(shared)


def describe(survey: Survey, parts: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return what is in the parts, for ``split.json``."""
    from mlip.data.content_hash import combined_hash

    in_train = survey.elements(parts["train"])
    described = {}
    for name, indices in parts.items():
        elements = survey.elements(indices)
        groups = {survey.groups[index] for index in indices} - {None}
        sizes = survey.sizes[indices]
        described[name] = {
            "structures": len(indices),
            "atoms": int(sizes.sum()),
            "sizes": [int(sizes.min()), int(sizes.max())] if len(indices) else None,
            "groups": len(groups) or None,
            "elements": sorted(elements),
            "elements_missing_in_train": sorted(elements - in_train),
        }
    used = sum(map(len, parts.values()))
    return {
        "structures": len(survey),
        "unused": len(survey) - used,
        "content_hash": combined_hash(survey.digests.tolist()),
        "parts": described,
    }


def write(out: Path, parts: Mapping[str, Sequence[int]], record: Mapping[str, Any]) -> None:
    """Write the files, ``split.json`` last: where it is, the others are whole."""
    from mlip.core.files import write_text_atomically

    for name, indices in parts.items():
        write_text_atomically(out / f"{name}.txt", "".join(f"{index}\n" for index in indices))
    write_text_atomically(out / "split.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _part(name: str, text: str) -> int | float:
    from mlip.core.errors import ConfigError

    try:
        return float(text) if any(sign in text for sign in ".eE") else int(text)
    except ValueError as error:
        raise ConfigError(
            f"--{name} must be a fraction (0.8) or a number of structures (800), got '{text}'."
        ) from error


def _check_rule(by: str) -> None:
    from mlip.core.errors import ConfigError, did_you_mean

    if by not in RULES[:3] and not (by.startswith("official:") and len(by) > len("official:")):
        raise ConfigError(f"--by must be {', '.join(RULES)}, got '{by}'.{did_you_mean(by, RULES)}")


def _limits(by: str, max_train: int | None, max_valid: int | None) -> tuple[int, int] | None:
    from mlip.core.errors import ConfigError

    if max_train is None and max_valid is None:
        return None
    if by != "size" or max_train is None:
        raise ConfigError("--max-train-atoms and --max-valid-atoms belong to --by size, the second with the first.")
    if max_valid is not None and max_valid < max_train:
        raise ConfigError(f"--max-valid-atoms must be at least --max-train-atoms = {max_train}, got {max_valid}.")
    return max_train, max_train if max_valid is None else max_valid


def _show(console: Console, record: Mapping[str, Any], out: Path) -> None:
    from rich.table import Table

    table = Table(title=f"{record['structures']:,} structures, by {record['rule']['by']}", title_justify="left")
    grouped = any(part["groups"] for part in record["parts"].values())
    names = ("part", "structures", "share", "atoms", "sizes", *(["groups"] if grouped else []))
    for column in (*names, "elements", "not in train"):
        table.add_column(column, justify="left" if column in ("part", "elements", "not in train") else "right")
    for name, part in record["parts"].items():
        elements = part["elements"]
        table.add_row(
            name,
            f"{part['structures']:,}",
            f"{part['structures'] / record['structures']:.2%}",
            f"{part['atoms']:,}",
            "-".join(map(str, dict.fromkeys(part["sizes"]))) if part["sizes"] else "",
            *([f"{part['groups'] or 0:,}"] if grouped else []),
            " ".join(elements) if len(elements) <= 8 else str(len(elements)),
            " ".join(part["elements_missing_in_train"]),
        )
    console.print(table)
    missing = {symbol for part in record["parts"].values() for symbol in part["elements_missing_in_train"]}
    if missing:
        text = f"No training structure has {', '.join(sorted(missing))}: a model cannot predict what it never saw."
        console.print(text, style="yellow", highlight=False)
    if record["shared_geometries"]:
        text = f"{record['shared_geometries']} geometries are in two parts: errors on them look too small."
        console.print(text, style="yellow", highlight=False)
    if record["unused"]:
        console.print(f"{record['unused']:,} structures are in no part.", highlight=False)
    settings = " ".join(
        f"data.split.{name}={out / f'{name}.txt' if part['structures'] else 'null'}"
        for name, part in record["parts"].items()
    )
    console.print(f"Use it: mlip train … {settings}", soft_wrap=True, highlight=False)
