"""Clebsch–Gordan products with harmonics of edges in the frame of the edge (eSCN, arXiv 2302.03655)."""

from collections.abc import Iterator

import torch
from e3nn.o3 import Irrep
from torch import Tensor

from mlip.ops.edge_rotation import EdgeRotation, check_directions, edge_direction_columns, frame_axes, pair_sizes
from mlip.ops.tensor_product.path_product import PathProduct


class SO2(PathProduct):
    """The numbers of ``clebsch_gordan_dense`` where the second input is harmonics of edges, ``x2 = Y(r̂)``.

    In the frame of the edge a path multiplies each order m by one number, ``t_m = c_p sqrt(2 l2 + 1) 3j(l1 m,
    l2 0, l3 ±m)``. What follows from it depends on the mode.

    - ``uvw``: the paths of an order are one linear map of SO(2), ``W_m[(l1, u), (l3, w)] = Σ_l2 t_m w_p[u, w]``,
      hence one matrix product for each order, over degrees and channels, between turning ``irreps_in1`` there
      and ``irreps_out`` back: O(L³) operations a pair of channels instead of O(L⁴). This is the mode to use it in.
    - ``uvu``: every path is a block of its own, and turning them all back is what the plain product costs. Only
      its matrices are built in another way, ``D_l3ᵀ diag(t) D_l1``, which gains nothing up to degree 6.

    Filters of degree 0 need no frame: they multiply. Zero vectors (``Y_0 = 1``, all else 0) have no frame either
    and get nothing from the other degrees.

    ``irreps_in2`` must be harmonics: parities (-1)^l, multiplicity 1, with 1o (from which the direction is
    read) unless it is 0e alone. The gradient to x2 goes to 0e and 1o: it is right for what depends on x2 through
    the vector.
    """

    filter_is_harmonics = True
    supported_modes = ("uvu", "uvw")

    def set_up(self) -> None:
        edge_direction_columns(self.irreps_in2, type(self).__name__, "clebsch_gordan_dense")
        self.scalar_paths: list[int] = []
        self.groups: dict[tuple[int, Irrep], list[int]] = {}
        for number, path in enumerate(self.paths):
            if self.irreps_in2[path.in2].ir.l == 0:
                self.scalar_paths.append(number)
            else:
                self.groups.setdefault((path.in1, path.ir_out), []).append(number)
        self.inputs = sorted({in1 for in1, _ in self.groups})
        self.outputs = sorted({ir for _, ir in self.groups})
        self.degree1 = [ir.l for _, ir in self.irreps_in2].index(1) if self.groups else -1
        if self.groups:
            irreps = [self.irreps_in1[k].ir for k in self.inputs]
            self.max_order = min(max(ir.l for ir in irreps), max(ir.l for ir in self.outputs))
            self.turned_irreps = sorted({ir for ir in [*irreps, *self.outputs] if ir.l})
            self.rotation = EdgeRotation(self.turned_irreps, self.max_order)
        for (in1, ir_out), numbers in self.groups.items():
            couplings = torch.stack([self._frame_coupling(number) for number in numbers], dim=1)
            if self.mode == "uvw":
                couplings = torch.cat([couplings[:1], couplings[1::2]])
            self.register_constant(f"coupling_{in1}_{ir_out}", couplings)

    def _frame_coupling(self, number: int) -> Tensor:
        """Return t_m of a path, sqrt(2 l2 + 1) included, for the components in the frame: ``(2 min(l1, l3) + 1,)``."""
        path = self.paths[number]
        ir1, ir2 = self.irreps_in1[path.in1].ir, self.irreps_in2[path.in2].ir
        order = min(ir1.l, path.ir_out.l)
        first, last = frame_axes(ir1, order), frame_axes(path.ir_out, order)
        return ir2.dim**0.5 * torch.einsum("ma,ac,mc->m", first, self.symbol(number)[:, ir2.l], last)

    def couple(self, blocks1: list[Tensor], blocks2: list[Tensor]) -> Iterator[Tensor]:
        parts: dict[int, Tensor] = {number: self._scale(number, blocks1, blocks2) for number in self.scalar_paths}
        frames = self._frames(blocks2)
        for in1 in self.inputs:
            numbers, matrices = self._back_matrices(in1, frames)
            back, block = torch.cat(matrices, dim=2).transpose(1, 2), blocks1[in1]
            coupled = _multiply_chain(back, frames[self.irreps_in1[in1].ir], block)
            parts.update(zip(numbers, coupled.split([self.paths[n].ir_out.dim for n in numbers], dim=1)))
        yield from (parts[number] for number in range(len(self.paths)))

    def _back_matrices(self, in1: int, frames: dict[Irrep, Tensor]) -> tuple[list[int], list[Tensor]]:
        """Return the paths of an input, and their ``diag(t) D_l3`` side by side: ``(rows, 2 l1 + 1, Σ(2 l3 + 1))``."""
        numbers, matrices = [], []
        rows = min(self.irreps_in1[in1].ir.l, self.max_order) * 2 + 1
        for ir_out in (ir for k, ir in self.groups if k == in1):
            coupling = self.constant_like(f"coupling_{in1}_{ir_out}", frames[ir_out])
            matrix = (frames[ir_out][:, : len(coupling), None] * coupling[:, :, None]).flatten(2)
            matrices.append(torch.nn.functional.pad(matrix, (0, 0, 0, rows - len(coupling))))
            numbers += self.groups[in1, ir_out]
        return numbers, matrices

    def _blocks(self, blocks1: list[Tensor], blocks2: list[Tensor], weight: Tensor | None) -> list[Tensor]:
        if self.mode != "uvw":
            return super()._blocks(blocks1, blocks2, weight)
        weights = [
            w.unflatten(-1, (self._channels(path), self.irreps_out[target].mul))
            for path, target, w in zip(self.paths, self.targets, weight.split(self.weight_sizes, dim=-1))
        ]
        blocks: dict[Irrep, Tensor] = {}
        for number in self.scalar_paths:
            ir = self.paths[number].ir_out
            blocks[ir] = self._scale(number, blocks1, blocks2) @ weights[number]
        if self.groups:
            frames = self._frames(blocks2)
            turned = {k: _turn(blocks1[k], frames[self.irreps_in1[k].ir]) for k in self.inputs}
            mixed = self._mix(turned, self._linear_maps(weights))
            for ir, block in zip(self.outputs, mixed):
                blocks[ir] = _turn_back(block, frames[ir], blocks.get(ir))
        return [blocks[ir].flatten(1) for _, ir in self.irreps_out]

    def _scale(self, number: int, blocks1: list[Tensor], blocks2: list[Tensor]) -> Tensor:
        """Couple a filter of degree 0: 3j(l, 0, l) is the unit matrix over sqrt(2l + 1)."""
        path = self.paths[number]
        factor = self.coefficients[number] * path.ir_out.dim**-0.5
        return blocks1[path.in1] * (factor * blocks2[path.in2])

    def _frames(self, blocks2: list[Tensor]) -> dict[Irrep, Tensor]:
        """Return for every irrep its matrix to the frame of the edge, zero for zero vectors; scalars have 1."""
        ones = blocks2[0].new_ones(len(blocks2[0]), 1, 1)
        frames = {Irrep(0, 1): ones, Irrep(0, -1): ones}
        if self.groups:
            check_directions(blocks2[self.degree1][:, :, 0], type(self).__name__)
            direction = blocks2[self.degree1][:, :, 0] * 3**-0.5
            present = (direction.detach().square().sum(dim=1, keepdim=True) > 0.5).to(direction.dtype)
            frames.update(zip(self.turned_irreps, self.rotation(direction, present)))
        return frames

    def _linear_maps(self, weights: list[Tensor]) -> list[Tensor]:
        """Return W_m for every order: ``(channels in, channels out)`` of all degrees >= m, a row each as weights."""
        lead = weights[0].shape[:-2]
        maps: list[list[Tensor]] = [[] for _ in range(self.max_order + 1)]
        for in1 in self.inputs:
            mul1, ir1 = self.irreps_in1[in1]
            columns: list[list[Tensor]] = [[] for _ in range(self.max_order + 1)]
            for ir in self.outputs:
                mul3, orders = self._mul_out(ir), min(ir1.l, ir.l) + 1
                if (in1, ir) in self.groups:
                    path_weights = torch.stack([weights[n].flatten(-2) for n in self.groups[in1, ir]], dim=-2)
                    coupling = self.constant_like(f"coupling_{in1}_{ir}", path_weights)
                    blocks = (coupling @ path_weights).unflatten(-1, (mul1, mul3))
                else:
                    blocks = weights[0].new_zeros(*lead, orders, mul1, mul3)
                for m, block in enumerate(blocks.unbind(-3)):
                    columns[m].append(block)
            for m in range(min(ir1.l, self.max_order) + 1):
                maps[m].append(torch.cat(columns[m], dim=-1))
        return [torch.cat(rows, dim=-2) for rows in maps]

    def _mix(self, turned: dict[int, Tensor], maps: list[Tensor]) -> list[Tensor]:
        """Apply W_m order by order to blocks in the frame, and return the blocks of ``outputs``."""
        # Components m and -m, side by side; the gradient of a split is one concatenation.
        pairs = {k: block.split(pair_sizes(block.shape[1]), dim=1) for k, block in turned.items()}
        orders: list[list[Tensor]] = [[] for _ in self.outputs]
        for m, matrix in enumerate(maps):
            x = torch.cat([parts[m] for parts in pairs.values() if len(parts) > m], dim=2)
            active = [k for k, ir in enumerate(self.outputs) if ir.l >= m]
            parts = (x @ matrix).split([self._mul_out(self.outputs[k]) for k in active], dim=2)
            for k, part in zip(active, parts):
                orders[k].append(part)
        return [torch.cat(parts, dim=1) for parts in orders]

    def _mul_out(self, ir: Irrep) -> int:
        return next(mul for mul, other in self.irreps_out if other == ir)


def _turn(block: Tensor, frame: Tensor) -> Tensor:
    """Turn a block ``(rows, 2l + 1, channels)`` to the frame; scalars are what they are."""
    return block if block.shape[1] == 1 else torch.bmm(frame, block)


def _multiply_chain(back: Tensor, frame: Tensor, block: Tensor) -> Tensor:
    """Return ``back @ frame @ block`` in the cheaper order; few channels are turned, of many the matrices."""
    size, orders, dim, channels = back.shape[1], *frame.shape[1:], block.shape[2]
    if dim == 1:
        # With one component the matrix product is an outer product, which broadcasting does faster.
        return back * block
    if size * dim * (orders + channels) < orders * channels * (dim + size):
        return torch.bmm(torch.bmm(back, frame), block)
    return torch.bmm(back, torch.bmm(frame, block))


def _turn_back(block: Tensor, frame: Tensor, other: Tensor | None) -> Tensor:
    """Invert :func:`_turn` and add ``other``, in one pass over the result."""
    if frame.shape[2] == 1:
        return block if other is None else block + other
    back = frame.transpose(1, 2)
    return torch.bmm(back, block) if other is None else torch.baddbmm(other, back, block)
