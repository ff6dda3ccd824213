"""Paths: which irrep of one input couples with which of the other into which irrep of the output."""

from dataclasses import dataclass

from e3nn.o3 import Irrep, Irreps


@dataclass(frozen=True)
class Path:
    """One coupling: block ``in1`` of the first input with block ``in2`` of the second into ``ir_out``."""

    in1: int
    in2: int
    ir_out: Irrep


def coupled_paths(irreps_in1: Irreps, irreps_in2: Irreps, irreps_out: Irreps) -> list[Path]:
    """Enumerate the paths, ordered by first input, second input and output degree."""
    wanted = {ir for _, ir in irreps_out}
    return [
        Path(i, j, ir)
        for i, (_, ir1) in enumerate(irreps_in1)
        for j, (_, ir2) in enumerate(irreps_in2)
        for ir in ir1 * ir2
        if ir in wanted
    ]
