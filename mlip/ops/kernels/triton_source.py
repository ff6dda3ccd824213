"""Triton of a convolution, of its gradients and of the tangents of both, for GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlip.ops.kernels.convolution_bodies import groups_of
from mlip.ops.kernels.form import ConvolutionForm, Coupling
from mlip.ops.kernels.triton_bodies import Tile, edges_body, indented, sources_body, sum_body

NUMBERS_A_THREAD = {"float32": 2, "float64": 1}
"""Channels of a component that a thread keeps at most: sums of 24 components then fit its 255 registers of 32 bits."""

THREADS = 32

_HEAD = """\
import triton
import triton.language as tl

"""

_FUNCTION = """
@triton.jit(do_not_specialize={counts})
def {name}({arguments}):
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    begin = tl.load(starts + row)
    end = tl.load(starts + row + 1)
"""

_PART = """\
    if (part >= {first}) & (part < {last}):
"""


class SharedOutputs(ValueError):
    """Programs that run at the same time would add to one place of the result."""


def tile_of(mul: int, scalar: str) -> Tile:
    """Return how many edges and channels of a block a program takes at once.

    A program is one warp. Few channels leave threads for several edges; many are divided among programs so that the
    fewest threads idle.
    """
    if mul < THREADS:
        channels = 1 << (mul - 1).bit_length()
        return Tile(THREADS // channels, channels, mul, scalar)
    sizes = [THREADS << k for k in range(NUMBERS_A_THREAD[scalar].bit_length())]
    channels = min(sizes, key=lambda size: (-(-mul // size) * size, -size))
    return Tile(1, channels, mul, scalar)


def triton_source(form: ConvolutionForm, scalar: str) -> str:
    """Return a module with the kernels of a form, and how many programs each row of their grids has.

    ``forward…`` has one program for each receiver and part, a part being some couplings of one block of x and some
    channels; it loops over the receiver's edges and writes each output once. ``edges…`` likewise writes the gradients
    of the weights, and a share of those of y for each part, to be summed. ``sources…`` has one program for each sender
    and part, and loops over the sender's edges, which ``order`` lists. No two programs write to one place: results do
    not depend on the order in which programs run. ``…_tangent`` are derivatives along (hx, hy, hw), in ``…_table``
    weights are read from a table of cubics.

    Args:
        form: what is computed.
        scalar: ``float32`` or ``float64``.

    Raises:
        SharedOutputs: couplings that are not computed together have a block of the result in common.
    """
    groups = [group for block in form.blocks for group in groups_of(block) if group]
    written = [place for group in groups for place in {coupling.out for coupling in group}]
    if len(written) != len(set(written)):
        raise SharedOutputs("couplings of several groups add to one block of the result")
    parts = [_HEAD, f"SUM_PARTS = {_count(groups, scalar)}\n", f"SOURCE_PARTS = {_count(form.blocks, scalar)}\n"]
    for kind in ("", "_tangent", "_table"):
        operands = _operands(kind)
        parts += [
            _function(f"forward{kind}", f"x, {operands}, senders, starts, out", groups, scalar, form, sum_body, kind),
            _function(
                f"edges{kind}",
                f"x, {operands}, g, senders, starts, gy, gw, num_edges, WANT_Y: tl.constexpr, WANT_W: tl.constexpr",
                groups, scalar, form, edges_body, kind,
            ),
            _function(
                f"sources{kind}", f"{operands.replace('hx, ', '')}, g, order, receivers, starts, gx",
                form.blocks, scalar, form, sources_body, kind,
            ),
        ]  # fmt: skip
    return "".join(parts)


def _operands(kind: str) -> str:
    return {"": "y, w", "_tangent": "y, w, hx, hy, hw", "_table": "y, place, table, cells"}[kind]


def _count(groups: Sequence[Sequence[Coupling]], scalar: str) -> int:
    return sum(tile_of(group[0].mul, scalar).blocks for group in groups)


def _function(
    name: str,
    arguments: str,
    groups: Sequence[Sequence[Coupling]],
    scalar: str,
    form: ConvolutionForm,
    body: Callable[[ConvolutionForm, Sequence[Coupling], Tile, str], list[str]],
    kind: str,
) -> str:
    # Triton would compile anew for numbers of edges that are multiples of 16, and for one edge.
    counts = [count for count in ("cells", "num_edges") if count in arguments]
    text, first = [_FUNCTION.format(name=name, arguments=arguments, counts=counts)], 0
    for group in groups:
        tile = tile_of(group[0].mul, scalar)
        # Side by side rather than if and else: Triton wants what two branches define to have one type.
        text.append(_PART.format(first=first, last=first + tile.blocks))
        text.append(indented([*tile.channel_lines(first), *body(form, group, tile, kind)], 2))
        first += tile.blocks
    return "".join(text)
