"""``mlip info``: the card of a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer


def info(
    model: Annotated[Path, typer.Argument(help="Model file, or the name of an imported model.")],
    config: Annotated[bool, typer.Option("--config", help="Print the model's configuration too.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the whole header as JSON.")] = False,
) -> None:
    """Print the card of a model.

    Elements, cutoff, units, reference energies, training data, errors, versions. Only the header is read;
    the model is not built.

    Example: mlip info runs/ethanol/model.safetensors
    """
    import json

    from rich.console import Console
    from rich.json import JSON

    from mlip.models.header import read_header
    from mlip.models.names import find_model

    header = read_header(model)
    if json_output:
        typer.echo(json.dumps(header, indent=2, ensure_ascii=False))
        return
    console = Console()
    console.print(_card(find_model(model), header))
    for title, values in _sections(header).items():
        if values:
            console.print(_table(title, values))
    if config:
        console.print("[bold]Configuration[/bold]")
        console.print(JSON(json.dumps(header["config"])))


def _card(path: Path, header: Mapping[str, Any]) -> Any:
    """Return the table of what every model has."""
    units, inputs = (_mapping(header.get(name)) for name in ("units", "inputs"))
    members = _members(header["config"])
    parameters = header.get("num_parameters")
    return _table(
        str(path),
        {
            "model": header["config"].get("_target_", "?") + (f", {len(members)} members" if members else ""),
            "elements": " ".join(header["elements"]),
            **{f"input: {name}": _format(values) for name, values in inputs.items()},
            "cutoff": f"{header['cutoff']:g} Å",
            "parameters": f"{parameters:,}" if isinstance(parameters, int) else "?",
            "dtype": header["dtype"],
            **_orbitals(header["config"]),
            "units": ", ".join(f"{name} {unit}" for name, unit in units.items()),
            "file": f"{path.stat().st_size / 1e6:.2f} MB, format version {header['format_version']}",
        },
    )


def _orbitals(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the basis and what else is known of the matrices of a Hamiltonian model; nothing of other models."""
    basis, shells = config.get("basis"), config.get("shells")
    if not basis or not isinstance(shells, Mapping):
        return {}
    words = []
    for symbol, degrees in shells.items():
        counts = {l: list(degrees).count(l) for l in sorted(set(degrees))}
        words.append(f"{symbol} {' '.join(f'{count}{_LETTERS[l]}' for l, count in counts.items())}")
    difference = config.get("target") == "difference"
    return {
        "basis": f"{basis}: {', '.join(words)}",
        "functional": str(config.get("functional") or "not stated by the data"),
        "target": "the difference to the Hamiltonian of the minao guess" if difference else "the Hamiltonian",
    }


_LETTERS = "spdfghi"
"""Names of shells by their degree."""


def _sections(header: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Split reference energies and metadata into one flat table each."""
    metadata = dict(header["metadata"])
    sections = _reference_energies(header["config"])
    loose = {name: value for name, value in metadata.items() if not isinstance(value, Mapping)}
    for name, value in metadata.items():
        if isinstance(value, Mapping) and name != "config":
            sections[name.replace("_", " ").capitalize()] = flatten(value)
    sections["Provenance"] = {**loose, **sections.get("Provenance", {})}
    return sections


def _reference_energies(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a table of them; of a committee whose members differ, one for each member."""
    title = "Reference energies of the atoms / eV"
    found: dict[str, dict[str, Any]] = {}
    members = _members(config)
    for number, member in enumerate(members or [config], 1):
        for head in _mapping(_mapping(member).get("head")).values():
            if energies := _mapping(_mapping(head).get("atomic_energies")):
                found[f"{title}, member {number}"] = dict(energies)
    tables = list(found.values())
    if not members or (len(tables) == len(members) and all(other == tables[0] for other in tables)):
        return {title: tables[0]} if tables else {}
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _members(config: Mapping[str, Any]) -> list[Any]:
    members = config.get("members")
    return members if isinstance(members, list) else []


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one mapping with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _table(title: str, values: Mapping[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, show_header=False, title_justify="left", min_width=60)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in values.items():
        table.add_row(Text(name), Text(_format(value)))
    return table


def _format(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.7g}" if abs(value) < 1e3 else f"{value:.4f}"
    if isinstance(value, list | tuple):
        # The split of a data set lists every structure; the card says how many.
        return f"{len(value)} values" if len(value) > 12 else ", ".join(_format(item) for item in value)
    return str(value)
