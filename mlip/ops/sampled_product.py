"""Products of functions by their values at points: evaluate, multiply point by point, project back.

``out_k = Σ_p C_pk (Σ_i A_pi a_i) (Σ_j B_pj b_j)`` is one trilinear form in (a, b, cotangent of out). Its gradients
are the same form with the three sides exchanged, so one loop serves all derivatives of any order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mlip.ops.constants import ConstantsModule

BLOCK_BYTES = 1 << 20
"""Values of one function and parity that are worked on at a time on a CPU: the half dozen of such blocks that are
alive stay in the cache. Measured on one core: 1/2 and 1 MiB are the same, 1/8 and 2 MiB lose a fifth, and whole
tensors take 2 to 3 times as long (fresh memory from the operating system)."""


@dataclass(frozen=True)
class Side:
    """How one of the three functions is evaluated at the points.

    Attributes:
        matrices: for each parity ``(points, coefficients of that parity)``, in the order of the parities.
        order: index of the coefficients that sorts them by parity, or None where they are sorted.
        inverse: the inverse of ``order``.
    """

    matrices: dict[int, Tensor]
    order: Tensor | None
    inverse: Tensor | None

    @property
    def size(self) -> int:
        """Number of coefficients."""
        return sum(matrix.shape[1] for matrix in self.matrices.values())


class SampledProduct(ConstantsModule):
    """Multiply coefficient tensors ``(rows, K, channels)`` as functions, channel by channel.

    Differentiable any number of times; memory for the backward pass is that of the inputs, the values at the points
    are computed again.

    Args:
        matrices: for both inputs and the output ``(points, K)``: the values of the basis functions at the points;
            those of the output carry the quadrature weights (and may carry the scale of the result). Or, for points
            that stand for themselves and their antipodes, a mapping from parity (0 even, 1 odd) to such matrices.
        order: for each side the index of the coefficients that sorts them by parity; None where they are sorted.
    """

    def __init__(
        self,
        matrices: Sequence[Tensor | Mapping[int, Tensor]],
        order: Sequence[Tensor | None] = (None, None, None),
    ) -> None:
        super().__init__()
        self.parities: list[list[int]] = []
        self.sorted: list[bool] = []
        for side, (parts, index) in enumerate(zip(matrices, order)):
            parts = {0: parts} if isinstance(parts, Tensor) else parts
            parts = {parity: matrix for parity, matrix in sorted(parts.items()) if matrix.shape[1]}
            self.parities.append(list(parts))
            for parity, matrix in parts.items():
                self.register_constant(f"values{side}_{parity}", matrix)
            self.sorted.append(index is None or bool((index == torch.arange(len(index))).all()))
            if not self.sorted[side]:
                self.register_constant(f"order{side}", index, keep_dtype=True)
                self.register_constant(f"inverse{side}", index.argsort(), keep_dtype=True)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return ``(rows, K_out, channels)`` of ``a`` (rows, K1, channels) and ``b`` (rows, K2, channels or 1)."""
        sides = [self._side(k, a) for k in range(3)]
        if torch.compiler.is_compiling() or not isinstance(a.shape[0], int):
            return _whole(sides, a, b)
        return _Product.apply(sides, (0, 1), max(a.shape[2], b.shape[2]), a, b)

    def _side(self, side: int, like: Tensor) -> Side:
        matrices = {parity: self.constant_like(f"values{side}_{parity}", like) for parity in self.parities[side]}
        if self.sorted[side]:
            return Side(matrices, None, None)
        return Side(matrices, self._buffers[f"order{side}"], self._buffers[f"inverse{side}"])


class _Product(torch.autograd.Function):
    """The product of two sides, read on the third one with ``width`` channels (1: summed over the channels)."""

    @staticmethod
    def forward(ctx: Any, sides: list[Side], pair: tuple[int, int], width: int, x: Tensor, y: Tensor) -> Tensor:
        ctx.sides, ctx.pair = sides, pair
        ctx.save_for_backward(x, y)
        return _in_blocks(sides, {pair[0]: x, pair[1]: y}, {3 - sum(pair): width})[0]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        i, j = ctx.pair
        k = 3 - i - j
        gx = gy = None
        if all(ctx.needs_input_grad[3:]):
            gx, gy = _Gradients.apply(ctx.sides, ctx.pair, x, y, g)
        elif ctx.needs_input_grad[3]:
            gx = _Product.apply(ctx.sides, (j, k), x.shape[2], y, g)
        else:
            gy = _Product.apply(ctx.sides, (i, k), y.shape[2], x, g)
        return None, None, None, gx, gy


class _Gradients(torch.autograd.Function):
    """Both gradients of :class:`_Product` in one sweep, which evaluates each of the three functions once."""

    @staticmethod
    def forward(ctx: Any, sides: list[Side], pair: tuple[int, int], x: Tensor, y: Tensor, g: Tensor) -> Any:
        ctx.sides, ctx.pair = sides, pair
        ctx.save_for_backward(x, y, g)
        ctx.set_materialize_grads(False)
        i, j = pair
        return tuple(_in_blocks(sides, {i: x, j: y, 3 - i - j: g}, {i: x.shape[2], j: y.shape[2]}))

    @staticmethod
    def backward(ctx: Any, u: Tensor | None, v: Tensor | None) -> tuple[Tensor | None, ...]:
        x, y, g = ctx.saved_tensors
        sides, (i, j) = ctx.sides, ctx.pair
        k = 3 - i - j
        dx = dy = dg = None
        if u is not None and v is not None:
            dx, dy = _Gradients.apply(sides, (i, j), u, v, g)
            dg = _Product.apply(sides, (i, j), g.shape[2], u, y) + _Product.apply(sides, (i, j), g.shape[2], x, v)
        elif u is not None:
            dy = _Product.apply(sides, (i, k), y.shape[2], u, g)
            dg = _Product.apply(sides, (i, j), g.shape[2], u, y)
        elif v is not None:
            dx = _Product.apply(sides, (j, k), x.shape[2], v, g)
            dg = _Product.apply(sides, (i, j), g.shape[2], x, v)
        return None, None, dx, dy, dg


def _in_blocks(sides: list[Side], inputs: dict[int, Tensor], widths: dict[int, int]) -> list[Tensor]:
    """Multiply and project on every side of ``widths`` the product of the two others, some rows at a time.

    The memory of a block is used again for the next one: on a CPU fresh memory costs more than the arithmetic.
    """
    first = next(iter(inputs.values()))
    rows, channels = first.shape[0], max(x.shape[2] for x in inputs.values())
    points = next(iter(sides[0].matrices.values())).shape[0]
    step = rows
    if first.device.type == "cpu":
        step = min(rows, max(1, BLOCK_BYTES // max(1, points * channels * first.element_size())))
    results = {k: first.new_empty(rows, sides[k].size, width) for k, width in widths.items()}
    space = _Workspace(first, step)
    for start in range(0, rows, max(1, step)):
        count = min(step, rows - start)
        values = {k: _evaluate(space, k, sides[k], x[start : start + count]) for k, x in inputs.items()}
        for k, width in widths.items():
            others = [values[other] for other in values if other != k]
            target = results[k][start : start + count]
            _project(space, sides[k], others, width, channels, target)
    return list(results.values())


class _Workspace:
    """Named blocks of memory that live as long as the loop over the rows."""

    def __init__(self, like: Tensor, rows: int) -> None:
        self.like, self.rows = like, rows
        self.blocks: dict[tuple[Any, ...], Tensor] = {}

    def take(self, name: Any, count: int, *shape: int) -> Tensor:
        """Return an uninitialised ``(count, *shape)``, contiguous; the same name and shape give the same memory."""
        key = (name, *shape)
        if key not in self.blocks:
            self.blocks[key] = self.like.new_empty(self.rows, *shape)
        return self.blocks[key][:count]


def _evaluate(space: _Workspace, name: int, side: Side, x: Tensor) -> dict[int, Tensor]:
    """Return the values ``(rows, points, channels)`` of each parity for coefficients ``(rows, K, channels)``."""
    count, size, channels = x.shape
    if side.order is None:
        x = x.contiguous()
    else:
        x = torch.index_select(x, 1, side.order, out=space.take("sorted", count, size, channels))
    parts = x.split([matrix.shape[1] for matrix in side.matrices.values()], dim=1)
    return {
        parity: _apply(matrix, part, space.take((name, parity), count, matrix.shape[0], channels))
        for (parity, matrix), part in zip(side.matrices.items(), parts)
    }


def _project(
    space: _Workspace, side: Side, factors: list[dict[int, Tensor]], width: int, channels: int, target: Tensor
) -> None:
    """Write the coefficients of the product of two functions to ``target`` (rows, K, width)."""
    count, parts = len(target), []
    for parity, matrix in side.matrices.items():
        terms = [(p, q) for p in factors[0] for q in factors[1] if p ^ q == parity]
        product = space.take("product", count, matrix.shape[0], channels)
        if not terms:
            product.zero_()
        for number, (p, q) in enumerate(terms):
            if number:
                product.addcmul_(factors[0][p], factors[1][q])
            else:
                torch.mul(factors[0][p], factors[1][q], out=product)
        if width < channels:
            product = product.sum(dim=2, keepdim=True)
        alone = len(side.matrices) == 1 and side.order is None
        place = target if alone else space.take(("part", parity), count, matrix.shape[1], width)
        parts.append(_apply(matrix.T, product, place))
    if side.order is not None:
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, 1, out=space.take("joined", count, side.size, width))
        torch.index_select(joined, 1, side.inverse, out=target)
    elif len(parts) > 1:
        torch.cat(parts, 1, out=target)


def _apply(matrix: Tensor, x: Tensor, out: Tensor) -> Tensor:
    """Return ``matrix @ x`` for ``x`` (rows, K, channels), written to ``out``."""
    if x.shape[2] == 1:
        torch.mm(x[:, :, 0], matrix.T, out=out[:, :, 0])
        return out
    return torch.bmm(matrix.expand(len(x), -1, -1), x, out=out)


def _whole(sides: list[Side], a: Tensor, b: Tensor) -> Tensor:
    """Do the same with plain operations on whole tensors, for compilers, which find their own blocks."""
    values = []
    for side, x in zip(sides, (a, b)):
        x = x if side.order is None else x.index_select(1, side.order)
        parts = x.split([matrix.shape[1] for matrix in side.matrices.values()], dim=1)
        values.append({parity: matrix @ part for (parity, matrix), part in zip(side.matrices.items(), parts)})
    parts = []
    for parity, matrix in sides[2].matrices.items():
        terms = [f * g for p, f in values[0].items() for q, g in values[1].items() if p ^ q == parity]
        product = sum(terms) if terms else a.new_zeros(len(a), len(matrix), max(a.shape[2], b.shape[2]))
        parts.append(matrix.T @ product)
    joined = torch.cat(parts, dim=1)
    return joined if sides[2].order is None else joined.index_select(1, sides[2].inverse)
