"""The words with which programs say that they have not converged, though ASE reads an energy out of their files."""

from __future__ import annotations

import re

_UNCONVERGED = re.compile(
    rb"""
    convergence\s+(has\s+)?not\s+(been\s+)?(achieved|reached)   # Quantum ESPRESSO
    # ORCA, CP2K, FHI-aims, DFTB+, GPAW, Octopus ("*not*"); the eigenvalues of one cycle come later in Quantum ESPRESSO.
    | (?<!eigenvalues\s)(?<!eigenvectors\s)(?<!bands\s)(?<!roots\s)\*?\bnot\*?\s+(fully\s+|been\s+)?converged
    | \bunconverged\b(?!\))                                     # GAMESS
    | (failed|could\s+not|unable)\s+(to\s+)?(be\s+)?converge    # NWChem, Q-Chem, CP2K's outer cycle, Psi4
    | did\s+not\s+converge                                      # Siesta, GPAW, xtb, Turbomole
    | convergence\s+failure                                     # Gaussian
    | convergence\s+criteri(on|a)\s+(is\s+|are\s+|was\s+|were\s+)?not\s+(met|satisfied|fulfilled)  # Gaussian
    | convergence\s+criteri(on|a)\s+cannot\s+be\s+satisfied     # xtb
    | not\s+enough\s+scf\s+cycles | scfconvergencewarning       # Abinit
    | self-consisten(cy|ce)\s+was\s+not\s+(achieved|reached)     # VASP
    | unable\s+to\s+achieve\s+self-consisten                    # MOPAC
    | not\s+reached\s+the\s+ground\s*state                      # CASTEP
    """,
    re.VERBOSE,
)
"""What programs print, in small letters, whose energies ASE reads all the same."""

_STEMS, _AROUND = re.compile(rb"converge|consisten|ground"), 80
"""Every phrase has one of these words: looking for them first is ten times as fast; and bytes around to look at."""


def unconverged(output: bytes) -> str | None:
    """Return the line in which a program says that it has not converged; None if it does not."""
    text = output.lower()
    for stem in _STEMS.finditer(text):
        said = _UNCONVERGED.search(text, max(0, stem.start() - _AROUND), stem.end() + _AROUND)
        if said is not None:
            begin, end = text.rfind(b"\n", 0, said.start()) + 1, text.find(b"\n", said.end())
            line = output[max(begin, said.start() - _AROUND) : end if 0 <= end < said.end() + _AROUND else said.end()]
            return " ".join(line.decode(errors="replace").split())
    return None
