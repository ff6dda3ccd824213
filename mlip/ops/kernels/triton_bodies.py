"""The innermost loops of a convolution in Triton: straight-line in the components, with channels as a tile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlip.ops.kernels.form import ConvolutionForm, Coupling, Factors


@dataclass(frozen=True)
class Tile:
    """What a program works on at once: ``(edges, channels)``, or ``(channels,)`` and numbers where it is one edge.

    Attributes:
        edges, channels: powers of two.
        mul: channels of the block; those beyond are masked.
        scalar: name of the type of numbers in Triton and torch.
    """

    edges: int
    channels: int
    mul: int
    scalar: str

    @property
    def blocks(self) -> int:
        """Programs that share the channels of the block."""
        return -(-self.mul // self.channels)

    @property
    def zeros(self) -> str:
        """Expression of a tile of zeros."""
        shape = [self.channels] if self.edges == 1 else [self.edges, self.channels]
        return f"tl.full({shape}, 0.0, tl.{self.scalar})"

    def channel_lines(self, first: int) -> list[str]:
        """Return lines that define ``u``, the channels of a part, the block's parts beginning at number ``first``."""
        row = "" if self.edges == 1 else "[None, :]"
        lines = [f"u = (part - {first}) * {self.channels} + tl.arange(0, {self.channels}){row}"]
        if self.blocks * self.channels != self.mul:
            lines.append(f"inside = u < {self.mul}")
        return lines

    def mask(self, edges: bool, channels: bool) -> str:
        """Return the mask of a load or store over edges, channels or both; nothing where there is none."""
        names = ["valid"] if edges and self.edges > 1 else []
        if channels and self.blocks * self.channels != self.mul:
            names.append("inside")
        return f", mask={' & '.join(names)}" if names else ""

    def load(self, target: str, place: str, edges: bool, channels: bool, other: str = "0.0") -> str:
        """Return a line that loads what is masked out as zero: zeros, not what lies there, are multiplied on."""
        mask = self.mask(edges, channels)
        return f"{target} = tl.load({place}{mask}{f', other={other}' if mask else ''})"

    def loop(self, index: str) -> list[str]:
        """Return the head of a loop over the edges of a row, some at once."""
        if self.edges == 1:
            return [f"for {index} in range(begin, end):"]
        return [
            f"for first in range(begin, end, {self.edges}):",
            f"    {index} = first + tl.arange(0, {self.edges})[:, None]",
            f"    valid = {index} < end",
        ]

    def over_edges(self, value: str) -> str:
        """Return the expression of a sum over the edges of a tile, which is stored as ``u`` is laid out."""
        return value if self.edges == 1 else f"tl.sum({value}, axis=0)[None, :]"

    def over_channels(self, value: str) -> str:
        """Return the expression of a sum over the channels of a tile, a number for each edge."""
        return f"tl.sum({value}, axis=0)" if self.edges == 1 else f"tl.sum({value}, axis=1)[:, None]"


def indented(lines: Iterable[str], depth: int) -> str:
    """Return lines of code at a depth of blocks."""
    return "".join(f"{'    ' * depth}{line}\n" for line in lines)


class _Edge:
    """Lines inside a loop over edges, in which factors are computed where they are first needed."""

    def __init__(self, form: ConvolutionForm, group: Sequence[Coupling], tile: Tile, kind: str) -> None:
        self.form, self.tile, self.kind = form, tile, kind
        self.prefixes = ("", "h") if kind == "_tangent" else ("",)
        self.factors = Factors.of(group)
        self.places = dict(zip(group, self.factors.places))
        self.lines: list[str] = []
        self.made: set[str] = set()

    def add(self, *lines: str) -> None:
        self.lines += lines

    def needs(self, coupling: Coupling) -> None:
        """Define the factors of a coupling, ``f…``, and of its tangents, ``hf…``."""
        for place in sorted(self.places[coupling].values()):
            terms = self.factors.sums[place]
            for p in self.prefixes:
                for k, _ in terms:
                    if f"{p}y{k}" not in self.made:
                        self.add(self.tile.load(f"{p}y{k}", f"{p}y + e * {self.form.y_size} + {k}", True, False))
                if f"{p}f{place}" not in self.made:
                    self.add(f"{p}f{place} = {' + '.join(f'{c!r} * {p}y{k}' for k, c in terms)}")
                self.made |= {f"{p}f{place}", *(f"{p}y{k}" for k, _ in terms)}

    def cell(self) -> None:
        """Find the cell of a table that an edge is in; a NaN stays one but reads no foreign memory."""
        if self.kind == "_table":
            self.add(
                self.tile.load("s", "place + e", True, False),
                "cell = tl.minimum(tl.maximum(s.to(tl.int64), 0), cells - 1)",
                f"t = s - cell.to(tl.{self.tile.scalar})",
                f"cubic = table + cell * {4 * self.form.weight_size}",
            )

    def weights(self, coupling: Coupling, slope: bool = False) -> None:
        """Load ``w0`` of a coupling, its tangent ``hw0``, or compute it and its slope ``dw`` from the table."""
        size, start = self.form.weight_size, coupling.weight
        if self.kind == "_table":
            for k in range(4):
                self.add(self.tile.load(f"c{k}", f"cubic + {k * size + start} + u", True, True))
            self.add("w0 = c0 + t * (c1 + t * (c2 + t * c3))")
            if slope:
                self.add("dw = c1 + t * (2.0 * c2 + t * (3.0 * c3))")
            return
        for p in self.prefixes:
            self.add(self.tile.load(f"{p}w0", f"{p}w + e * {size} + {start} + u", True, True))

    def features(self, block: Coupling) -> None:
        """Load the block of the sender's features, ``x…``, and its tangent."""
        self.add(self.tile.load("sender", "senders + e", True, False, "0"))
        for p in self.prefixes:
            for m in range(block.dims[0]):
                place = f"{p}x + sender * {self.form.x_size} + {block.x + m * block.mul} + u"
                self.add(self.tile.load(f"{p}x{m}", place, True, True))

    def contracted(self, coupling: Coupling, g: str) -> None:
        """Compute ``s = M(y) g`` and its tangent ``hs = M(hy) g`` for every component of x."""
        for p in self.prefixes:
            for m1 in range(coupling.dims[0]):
                terms = [f"{p}f{f} * {g}{m3}" for (k, m3), f in sorted(self.places[coupling].items()) if k == m1]
                self.add(f"{p}s{m1} = {' + '.join(terms) or self.tile.zeros}")


def sum_body(form: ConvolutionForm, group: Sequence[Coupling], tile: Tile, kind: str) -> list[str]:
    """Return what sums the outputs of some couplings over the edges of a receiver; tangents as in C++."""
    mul, dim, tangent = group[0].mul, group[0].dims[0], kind == "_tangent"
    written = sorted({c.out + m * mul for c in group for m in range(c.dims[2])})
    edge = _Edge(form, group, tile, kind)
    edge.cell()
    edge.features(group[0])
    for coupling in group:
        edge.needs(coupling)
        edge.weights(coupling)
        pairs = sorted(edge.places[coupling].items())
        # The weight is multiplied with whichever has fewer components.
        early = tangent or dim < coupling.dims[2]
        if early:
            edge.add(*(f"z{m} = w0 * x{m}" for m in range(dim)))
        if tangent:
            edge.add(*(f"hz{m} = w0 * hx{m} + hw0 * x{m}" for m in range(dim)))
        for m3 in range(coupling.dims[2]):
            here = [(m1, f) for (m1, k), f in pairs if k == m3]
            target = f"a{coupling.out + m3 * mul}"
            if tangent:
                edge.add(*(f"{target} += f{f} * hz{m1} + hf{f} * z{m1}" for m1, f in here))
            elif early:
                edge.add(*(f"{target} += f{f} * z{m1}" for m1, f in here))
            elif here:
                edge.add(f"{target} += w0 * ({' + '.join(f'f{f} * x{m1}' for m1, f in here)})")
    return [
        *(f"a{column} = {tile.zeros}" for column in written),
        *tile.loop("e"),
        *(f"    {line}" for line in edge.lines),
        *(
            f"tl.store(out + row * {form.out_size} + {column} + u, {tile.over_edges(f'a{column}')}"
            f"{tile.mask(False, True)})"
            for column in written
        ),
    ]


def edges_body(form: ConvolutionForm, group: Sequence[Coupling], tile: Tile, kind: str) -> list[str]:
    """Return what writes the gradients of y and of the weights, or of the place in the table, of every edge.

    ``gw = x s`` with ``s = M(y) g``, its tangent ``hx s + x hs``; ``gy = C w x g``, its tangent ``C (w hx + hw x) g``.
    """
    mul, dim, tangent = group[0].mul, group[0].dims[0], kind == "_tangent"
    filters = sorted({c.y + m2 for c in group for _, m2, _, _ in c.entries})
    edge = _Edge(form, group, tile, kind)
    edge.cell()
    edge.features(group[0])
    if kind == "_table":
        edge.add(f"slope = {tile.zeros}")
    edge.add("if WANT_Y:", *(f"    b{k} = {tile.zeros}" for k in filters))
    for coupling in group:
        edge.weights(coupling, slope=True)
        edge.needs(coupling)
        g = f"g{coupling.out}_"
        # What only one gradient needs is dropped by the compiler where that is not wanted.
        edge.contracted(coupling, g)
        weighed = [f"hx{m} * s{m} + x{m} * hs{m}" if tangent else f"x{m} * s{m}" for m in range(dim)]
        edge.add(f"t_w = {' + '.join(weighed)}")
        if kind == "_table":
            edge.add("slope += t_w * dw")
        else:
            place = f"gw + e * {form.weight_size} + {coupling.weight} + u"
            edge.add("if WANT_W:", f"    tl.store({place}, t_w{tile.mask(True, True)})")
        early = tangent or dim < coupling.dims[2]
        scaled = "w0 * hx{0} + hw0 * x{0}" if tangent else "w0 * x{0}" if early else f"w0 * {g}{{0}}"
        edge.add("if WANT_Y:")
        edge.add(*(f"    z{m} = {scaled.format(m)}" for m in range(dim if early else coupling.dims[2])))
        for m1, m3 in sorted(edge.places[coupling]):
            edge.add(f"    q = {f'z{m1} * {g}{m3}' if early else f'x{m1} * z{m3}'}")
            for a, m2, b, c in coupling.entries:
                if (a, b) == (m1, m3):
                    edge.add(f"    b{coupling.y + m2} += {c!r} * q")
    edge.add("line = part.to(tl.int64) * num_edges + e")
    mask = tile.mask(True, False)
    if kind == "_table":
        edge.add("if WANT_W:", f"    tl.store(gw + line, {tile.over_channels('slope')}{mask})")
    edge.add("if WANT_Y:")
    for k in range(form.y_size):
        value = tile.over_channels(f"b{k}") if k in filters else "0.0"
        edge.add(f"    tl.store(gy + line * {form.y_size} + {k}, {value}{mask})")
    columns = sorted({(c.out, m) for c in group for m in range(c.dims[2])})
    loads = (
        tile.load(f"g{out}_{m}", f"g + row * {form.out_size} + {out + m * mul} + u", False, True) for out, m in columns
    )
    return [*loads, *tile.loop("e"), *(f"    {line}" for line in edge.lines)]


def sources_body(form: ConvolutionForm, block: Sequence[Coupling], tile: Tile, kind: str) -> list[str]:
    """Return what sums the gradient of a block of x over the edges of a sender: ``w s``, tangent ``w hs + hw s``."""
    mul, dim, tangent = block[0].mul, block[0].dims[0], kind == "_tangent"
    edge = _Edge(form, block, tile, kind)
    edge.add(tile.load("e", "order + k", True, False, "0"), tile.load("receiver", "receivers + k", True, False, "0"))
    edge.cell()
    for coupling in block:
        edge.needs(coupling)
        edge.weights(coupling)
        for m in range(coupling.dims[2]):
            place = f"g + receiver * {form.out_size} + {coupling.out + m * mul} + u"
            edge.add(tile.load(f"g{m}", place, True, True))
        edge.contracted(coupling, "g")
        gained = "w0 * hs{0} + hw0 * s{0}" if tangent else "w0 * s{0}"
        edge.add(*(f"a{m} += {gained.format(m)}" for m in range(dim)))
    return [
        *(f"a{m} = {tile.zeros}" for m in range(dim)),
        *tile.loop("k"),
        *(f"    {line}" for line in edge.lines),
        *(
            f"tl.store(gx + row * {form.x_size} + {block[0].x + m * mul} + u, {tile.over_edges(f'a{m}')}"
            f"{tile.mask(False, True)})"
            for m in range(dim)
        ),
    ]
