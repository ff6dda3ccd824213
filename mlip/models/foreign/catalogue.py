"""The published potentials that can be imported, and where their packages keep them; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from mlip.core.errors import ModelFileError

_SEVENNET = "Park, Kim, Hwang, Han, J. Chem. Theory Comput. 20, 4857 (2024), doi 10.1021/acs.jctc.4c00190"
_FIDELITY = "Kim et al., J. Am. Chem. Soc. 147, 1042 (2024), doi 10.1021/jacs.4c14455"
_BOTH = f"{_FIDELITY}; {_SEVENNET}"
_MPTRJ = "MPtrj: Deng et al., Nat. Mach. Intell. 5, 1031 (2023), doi 10.1038/s42256-023-00716-3"
_MPF = "MPF.2021.2.8: Chen, Ong, Nat. Comput. Sci. 2, 718 (2022), doi 10.1038/s43588-022-00349-3"
_RELAXATIONS = "relaxation trajectories of the Materials Project, PBE(+U) and r2SCAN together"
_PBE = "PBE and PBE+U with the settings of the Materials Project"
_UNCORRECTED = "as VASP gives them, without corrections"


@dataclass(frozen=True)
class Published:
    """A potential that a package on PyPI carries.

    Attributes:
        file: inside the package.
        sha256: of the file.
        training_data: what it was fitted to, and how to cite that.
        level_of_theory: of the training data.
        citation: of the potential.
        energies: which ones, where the settings in the checkpoint tell.
        modality: which of the levels of theory in the file.
        package: import name and name on PyPI.
        extra: of ours, which installs the package.
        licence: as the package states it.
    """

    file: str
    sha256: str
    training_data: str
    level_of_theory: str
    citation: str = _SEVENNET
    energies: str | None = None
    modality: str | None = None
    package: str = "sevenn"
    extra: str = "sevennet"
    licence: str = "MIT, Copyright (c) 2024 Yutack Park (licence of the package sevenn 0.13.0)"


_FOLDER = "pretrained_potentials"
_MF0 = f"{_FOLDER}/SevenNet_MF_0/checkpoint_sevennet_mf_0.pth"
_MF0_SHA256 = "81791329b37d445f46b531578c182c41792d98c7814222c9e5dde276402225fd"

PUBLISHED: Mapping[str, Published] = {
    "sevennet-0": Published(
        f"{_FOLDER}/SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth",
        "7052cb42b7b3be42b40b97fa0d21077a48c54b5548948fc4dcf346629f813c36",
        _MPTRJ,
        _PBE,
        energies=_UNCORRECTED,
    ),
    "sevennet-0-22may2024": Published(
        f"{_FOLDER}/SevenNet_0__22May2024/checkpoint_sevennet_0.pth",
        "5d389fafd512e6ae2830d74d0b66ffc49a55d3832653ff8e7bf7f1343013c1d1",
        _MPF,
        _PBE,
    ),
    "sevennet-l3i5": Published(
        f"{_FOLDER}/SevenNet_l3i5/checkpoint_l3i5.pth",
        "a7ff190d41efe5b8317a03d20a468e4036a1a3e64e0b14fdbab64ac3f4bfc09d",
        _MPTRJ,
        _PBE,
        energies=_UNCORRECTED,
    ),
    "sevennet-mf-0-pbe": Published(_MF0, _MF0_SHA256, _RELAXATIONS, _PBE, _BOTH, modality="PBE"),
    "sevennet-mf-0-r2scan": Published(_MF0, _MF0_SHA256, _RELAXATIONS, "r2SCAN", _BOTH, modality="R2SCAN"),
}
"""Potentials by the names that calculators and commands take."""

SEVERAL_LEVELS: Mapping[str, tuple[str, ...]] = {"sevennet-mf-0": ("sevennet-mf-0-pbe", "sevennet-mf-0-r2scan")}
"""Checkpoints that are several potentials."""


def installed_file(name: str) -> Path:
    """Return the file of a published potential in its installed package, which is not imported.

    Raises:
        ModelFileError: the package is not installed, or has no such file.
    """
    entry = PUBLISHED[name]
    spec = find_spec(entry.package)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not folders:
        raise ModelFileError(
            f"'{name}' comes with the package '{entry.package}', which is not installed here: pip install "
            f"{entry.package} (or 'mlip-kit[{entry.extra}]'), or give the file with --checkpoint."
        )
    path = Path(folders[0], entry.file)
    if not path.is_file():
        raise ModelFileError(
            f"The installed {entry.package} {package_version(entry.package)} has no file '{entry.file}': give it with "
            f"--checkpoint, or install the version 0.13.0."
        )
    return path


def package_version(package: str) -> str:
    """Return the version of an installed package, or words for none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"
