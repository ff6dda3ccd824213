"""The irrep-signal tensor product: fields on the sphere with values in an irrep, multiplied point by point."""

import math
from collections.abc import Sequence

import torch
from e3nn.o3 import Irrep, Irreps
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.row_chunks import in_row_chunks
from mlip.ops.sphere_grid import lebedev_grid
from mlip.ops.spherical_harmonics import spherical_harmonics
from mlip.ops.tensor_product.base import Mode, Normalization, Weights
from mlip.ops.tensor_product.signal_product import Component, SignalProduct
from mlip.ops.wigner import wigner_3j


class IrrepGrid(SignalProduct):
    """Products of fields on the sphere (ISTP; The Price of Freedom, arXiv 2506.13523).

    A feature of degree j and parity p is the field of the irrep s (the fiber) that it and the harmonic degree l
    determine, ``V_a(r̂) = Σ_m x_m Φ^{(ls)j}_{ma}(r̂)``, with the vector spherical harmonics of a general fiber,

        ``Φ^{(ls)j}_{ma}(r̂) = sqrt(2j+1) Σ_m' 3j(l, s, j)_{m' a m} Y_lm'(r̂)``, ``∫ Σ_a Φ² dΩ = 1``.

    It enters by every l in |j - s|..j + s with p = p_s (-1)^l, each with a weight of its own; an irrep without such
    an l (0o in true vector fields) has no signal. The values meet in ``C_abc = sqrt(2 s3 + 1) 3j(s1, s2, s3)_abc``.
    With normalisation ``none`` the map is

        ``out_m3 = Σ over l1, l2, s3, l3 of ∫ Φ^{(l3 s3)j3}_{m3 c} C_abc V1_a V2_b dΩ``,

    that is ``κ 3j(j1, j2, j3)`` for each term, where ``|κ| = sqrt((2j1+1)(2j2+1)(2j3+1)(2s3+1)) g |9j|``,
    ``9j = {l1 s1 j1; l2 s2 j2; l3 s3 j3}`` and the Gaunt coefficient is ``g 3j(l1, l2, l3)``. With scalar fibers it
    is the Gaunt product. Paths with j1 + j2 + j3 odd exist as soon as one 9j is not zero: 1 x 1 -> 1 is the cross
    product of two constant vector fields.

    Args:
        fiber1, fiber2: irreps in which the two fields take their values.
        fiber3: those of the product that are read back, one or several.
        max_degree: leave out harmonics above this degree where an irrep has a lower one too; a smaller grid and
            fewer terms for it. None keeps all.

    Raises:
        ConfigError: a fiber that is no irrep or that fiber1 x fiber2 does not contain, and what
            :class:`SignalProduct` refuses.
    """

    signals = "no spherical harmonic makes it from the values in the fiber"

    def __init__(
        self,
        irreps_in1: Irreps,
        irreps_in2: Irreps,
        irreps_out: Irreps,
        mode: Mode = "uvu",
        weights: Weights | None = None,
        normalization: Normalization = "component",
        *,
        fiber1: str = "1o",
        fiber2: str = "1o",
        fiber3: str | Sequence[str] = ("0e", "1e"),
        max_degree: int | None = None,
    ) -> None:
        names = [fiber3] if isinstance(fiber3, str) else list(fiber3)
        first, second, out = _irrep(fiber1), _irrep(fiber2), [_irrep(name) for name in names]
        allowed = list(first * second)
        for ir in out:
            if ir not in allowed:
                raise ConfigError(
                    f"Values in {first} and {second} have no product in {ir}: fiber3 must be among "
                    f"{', '.join(map(str, allowed))}."
                )
        if max_degree is not None and (type(max_degree) is not int or max_degree < 0):
            raise ConfigError(f"max_degree must be a whole number from 0 on, or null, got {max_degree!r}.")
        if not out or len(set(out)) < len(out):
            raise ConfigError(f"fiber3 needs one or several different irreps, got {names}.")
        self.fibers = [[first], [second], out]
        self.max_degree = max_degree
        limit = "" if max_degree is None else f", l <= {max_degree}"
        self.operator = f"irrep_signal {first} x {second} -> {' + '.join(map(str, out))}{limit}"
        super().__init__(irreps_in1, irreps_in2, irreps_out, mode, weights, normalization)

    def components(self, side: int, block: int, ir: Irrep) -> list[Component]:
        """Return the terms of an irrep, labels (number of the fiber, l): one component each, or all in one.

        Without weights nothing tells the terms of an irrep apart: they are one component, labels one after another.
        """
        terms = []
        for k, fiber in enumerate(self.fibers[side]):
            degrees = [l for l in range(abs(ir.l - fiber.l), ir.l + fiber.l + 1) if fiber.p * (-1) ** l == ir.p]
            if self.max_degree is not None:
                degrees = [l for l in degrees if l <= max(self.max_degree, degrees[0])]
            terms += [(k, l) for l in degrees]
        if self.weights == "none" and terms:
            return [Component(block, ir, tuple(n for term in terms for n in term))]
        return [Component(block, ir, term) for term in terms]

    def prepare(self, scale: Tensor) -> None:
        degrees = [max((l for c in side for _, l in _terms(c)), default=0) for side in self.sides]
        grid = lebedev_grid(sum(degrees))
        self.num_points = len(grid.points)
        harmonics = spherical_harmonics(max(degrees), grid.points)
        for side in (0, 1):
            self.register_constant(f"grid_in{side + 1}", self._fields(side, 0, self.sides[side], harmonics))
        self.sums = [_coupling(self.fibers[0][0], self.fibers[1][0], fiber) for fiber in self.fibers[2]]
        # The mean of a product of three fields of component-normalised harmonics is sqrt(4π) times the integral.
        weighted = harmonics * (grid.weights / math.sqrt(4 * math.pi))[:, None]
        groups: dict[tuple[int, ...], list[int]] = {}
        for n, c in enumerate(self.sides[2]):
            groups.setdefault(tuple(sorted({k for k, _ in _terms(c)})), []).append(n)
        # Output components that need the same fibers are one matrix product.
        scales = scale.split([c.ir.dim for c in self.sides[2]])
        places = torch.arange(len(scale)).split([c.ir.dim for c in self.sides[2]])
        self.groups, order = list(groups), [torch.zeros(0, dtype=torch.long)]
        for number, (fibers, members) in enumerate(groups.items()):
            chosen = [self.sides[2][n] for n in members]
            rows = torch.cat([self._fields(2, k, chosen, weighted) * self.sums[k][0] for k in fibers])
            rows = rows * torch.cat([scales[n] for n in members])
            self.register_constant(f"grid_out{number}", rows.T.contiguous())
            order += [places[n] for n in members]
        order = torch.cat(order)
        self.in_order = bool((order == torch.arange(len(order))).all())
        self.register_constant("back", torch.argsort(order), keep_dtype=True)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        values = sum(fiber.dim for side in self.fibers for fiber in side) * self.num_points
        return in_row_chunks(self._product, a, b, row_bytes=values * a.shape[2] * a.element_size())

    def _product(self, a: Tensor, b: Tensor) -> Tensor:
        first = (self.constant_like("grid_in1", a) @ a).unflatten(1, (-1, self.num_points)).unbind(1)
        second = (self.constant_like("grid_in2", b) @ b).unflatten(1, (-1, self.num_points)).unbind(1)
        needed = {k for fibers in self.groups for k in fibers}
        fields = {k: [_combine(first, second, row) for row in self.sums[k][1]] for k in needed}
        parts = [
            self.constant_like(f"grid_out{number}", a) @ torch.cat([f for k in fibers for f in fields[k]], dim=1)
            for number, fibers in enumerate(self.groups)
        ]
        if not parts:
            # Nothing is reached; the base class, which asks while it is built, says so.
            return a.new_zeros(len(a), 0, a.shape[2])
        return torch.cat(parts, dim=1) if self.in_order else torch.cat(parts, dim=1).index_select(1, self.back)

    def _fields(self, side: int, number: int, components: list[Component], harmonics: Tensor) -> Tensor:
        """Return ``(fiber.dim * points, Σ (2j + 1))``: the fields of components in one of the fibers of a side."""
        fiber = self.fibers[side][number]
        columns = [torch.zeros(fiber.dim, len(harmonics), 0, dtype=torch.float64)]
        for c in components:
            column = torch.zeros(fiber.dim, len(harmonics), c.ir.dim, dtype=torch.float64)
            for k, l in _terms(c):
                if k == number:
                    symbol = wigner_3j(l, fiber.l, c.ir.l) * c.ir.dim**0.5
                    column += torch.einsum("pn,nam->apm", harmonics[:, l * l : (l + 1) ** 2], symbol)
            columns.append(column)
        return torch.cat(columns, dim=2).flatten(0, 1)


def _terms(component: Component) -> list[tuple[int, int]]:
    """Return the (number of the fiber, harmonic degree) of a component's terms."""
    return list(zip(component.label[::2], component.label[1::2]))


def _irrep(name: str) -> Irrep:
    try:
        return Irrep(name)
    except ValueError as error:
        raise ConfigError(f"A fiber is one irrep such as '1o', got {name!r}.") from error


def _coupling(first: Irrep, second: Irrep, out: Irrep) -> tuple[float, list[list[tuple[int, int, float]]]]:
    """Return a factor, and for each component c of the product the (a, b, coefficient / factor) of its sum.

    Every sum begins with its largest coefficient and the factor is the largest of all, so that most sums (all of a
    cross or dot product) begin with a plain product.
    """
    table = wigner_3j(first.l, second.l, out.l) * out.dim**0.5
    factor = float(table.max())
    rows = []
    for c in range(out.dim):
        entries = [(a, b, float(table[a, b, c]) / factor) for a, b in table[:, :, c].nonzero().tolist()]
        rows.append(sorted(entries, key=lambda entry: -entry[2]))
    return factor, rows


def _combine(first: Sequence[Tensor], second: Sequence[Tensor], row: list[tuple[int, int, float]]) -> Tensor:
    """Return ``Σ coefficient * first[a] * second[b]``, one pass over memory a term."""
    a, b, start = row[0]
    total = first[a] * second[b]
    for a, b, coefficient in row[1:]:
        total = torch.addcmul(total, first[a], second[b], value=coefficient / start)
    return total if abs(start - 1) < 1e-12 else total * start
