"""The settings in which tensor products are compared: single or multiple irreps in, single or multiple out."""

from typing import Literal, get_args

from e3nn.o3 import Irrep, Irreps

from mlip.core.errors import ConfigError, did_you_mean
from mlip.ops.layout import natural_irreps

Setting = Literal["siso", "simo", "mimo"]
"""``siso``: one irrep of degree L in each input, degree L out. ``simo``: one irrep of degree L in each input,
every degree 0..2L out. ``mimo``: every degree 0..L in both inputs, every degree 0..2L out (The Price of Freedom,
arXiv 2506.13523). Inputs have the parity (-1)^l of spherical harmonics."""

SETTINGS: tuple[str, ...] = get_args(Setting)


def setting_irreps(
    setting: str, lmax: int, num_channels: int = 1, *, antisymmetric: bool = True, truncated: bool = False
) -> tuple[Irreps, Irreps, Irreps]:
    """Return the irreps of both inputs and of the output of a setting.

    Args:
        setting: see :data:`Setting`.
        lmax: the degree L.
        num_channels: multiplicity of every irrep.
        antisymmetric: the output has every irrep that the inputs can reach, also those with l1 + l2 + l3 odd
            such as the cross product 1o ⊗ 1o → 1e. Otherwise those of parity (-1)^l only.
        truncated: no output beyond degree L.

    Raises:
        ConfigError: an unknown setting, a negative degree, or SISO of an odd degree without antisymmetric paths:
            L ⊗ L → L is one for odd L.
    """
    if setting not in SETTINGS:
        raise ConfigError(
            f"A setting is one of {', '.join(SETTINGS)}, got '{setting}'.{did_you_mean(str(setting), SETTINGS)}"
        )
    if lmax < 0 or num_channels < 1:
        raise ConfigError(f"A setting needs a degree >= 0 and channels >= 1, got {lmax} and {num_channels}.")
    single = Irreps([(num_channels, (lmax, (-1) ** lmax))])
    inputs = natural_irreps(lmax, num_channels) if setting == "mimo" else single
    reached = {ir for _, ir1 in inputs for _, ir2 in inputs for ir in ir1 * ir2}
    wanted = [ir for ir in sorted(reached, key=_order) if _is_wanted(ir, setting, lmax, antisymmetric, truncated)]
    if not wanted:
        raise ConfigError(f"SISO of the odd degree {lmax} is the antisymmetric path {lmax} ⊗ {lmax} → {lmax} alone.")
    return inputs, inputs, Irreps([(num_channels, ir) for ir in wanted])


def _is_wanted(ir: Irrep, setting: str, lmax: int, antisymmetric: bool, truncated: bool) -> bool:
    if setting == "siso" and ir.l != lmax:
        return False
    return (antisymmetric or ir.p == (-1) ** ir.l) and not (truncated and ir.l > lmax)


def _order(ir: Irrep) -> tuple[int, bool]:
    """By degree, the parity of spherical harmonics first."""
    return ir.l, ir.p != (-1) ** ir.l
