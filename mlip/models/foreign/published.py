"""Published potentials, and checkpoints of one's own, as models with a card."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from mlip.core.errors import ModelFileError
from mlip.models.base import AtomisticModel
from mlip.models.foreign.catalogue import PUBLISHED, installed_file, package_version
from mlip.models.foreign.sevennet import read_sevennet


def read_published(name: str, path: str | os.PathLike[str] | None = None) -> tuple[AtomisticModel, dict[str, Any]]:
    """Read a published potential and write its card.

    Args:
        name: of `PUBLISHED`.
        path: the checkpoint; None: the one in the installed package.

    Raises:
        ModelFileError: no such file, or a file other than the published one.
    """
    entry = PUBLISHED[name]
    found = installed_file(name) if path is None else Path(path)
    digest = _sha256(found)
    if digest != entry.sha256:
        raise ModelFileError(
            f"'{found}' is not the published checkpoint of '{name}': its sha256 is {digest[:12]}…, not "
            f"{entry.sha256[:12]}…. To import it all the same, choose another name."
        )
    model = read_sevennet(found, entry.modality)
    card = _card(name, found, digest, entry.modality)
    card["provenance"]["package"] = (
        f"{entry.package} {package_version(entry.package)}" if path is None else entry.package
    )
    card["licence"], card["citation"] = entry.licence, entry.citation
    card["data"] = {"training_data": entry.training_data, "level_of_theory": entry.level_of_theory}
    if entry.energies is not None:
        card["data"]["energies"] = entry.energies
    return model, card


def read_own(
    name: str, path: str | os.PathLike[str], modality: str | None = None
) -> tuple[AtomisticModel, dict[str, Any]]:
    """Read a SevenNet checkpoint of the user's own.

    Raises:
        ModelFileError: see :func:`mlip.models.foreign.sevennet.read_sevennet`.
    """
    digest = _sha256(path)
    return read_sevennet(path, modality), _card(name, Path(path), digest, modality)


def _card(name: str, path: Path, digest: str, modality: str | None) -> dict[str, Any]:
    provenance = {"imported_as": name, "format": "SevenNet checkpoint", "file": path.name, "sha256": digest}
    if modality is not None:
        provenance["modality"] = modality
    return {"provenance": provenance | {"mlip_version": package_version("mlip-kit")}}


def _sha256(path: str | os.PathLike[str]) -> str:
    try:
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"Cannot read the checkpoint '{path}': {error.strerror or error}.") from error
