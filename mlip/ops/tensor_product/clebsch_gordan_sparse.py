"""Clebsch–Gordan over nonzero coefficients only: no operation for what symmetry makes zero."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby

import torch
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.ops.tensor_product.base import Mode, Normalization, TensorProduct, Weights
from mlip.ops.tensor_product.evaluators import evaluator_of, runs_native, sources_of
from mlip.ops.tensor_product.nonzeros import Form, NonzeroTable, WeightedTable, contract, operands_of
from mlip.ops.tensor_product.path_product import PathProduct
from mlip.ops.tensor_product.unrolled import choose_evaluator


class ClebschGordanSparse(PathProduct):
    """The numbers of ``clebsch_gordan_dense`` from tables of nonzeros; nothing is saved but inputs and weights.

    Blocks with equally many channels are multiplied together: all their paths are one contraction, weights and the
    sum of the paths into one irrep included (in mode ``uvw`` the weights are matrices and come after it).

    On a CPU with a compiler, and where there is enough to do, each contraction and each of its derivatives is one
    function of generated C++ (``kernels``, see :mod:`mlip.ops.tensor_product.evaluators`): the fastest there is where
    both inputs have channels (mode ``uuu``). Eagerly every nonzero is one operation of torch on all rows and channels:
    faster than ``clebsch_gordan_dense`` up to degree 2 in mode ``uuu``, up to degree 1 with a single-channel filter.

    Args:
        compile: where there is no generated C++, write straight-line code and build it with ``torch.compile`` (needs
            a C++ compiler, or Triton on a GPU) at the first call, and at the first of each order of derivative: seconds
            at L = 2, a minute at L = 4. Where nothing can be compiled, and for large tables, the product is eager, with
            one warning.

    Attributes:
        forms: the coefficients of each contraction, normalisation included: data that a generator of code can read.
        evaluator: what computes them without generated C++.
    """

    def __init__(
        self,
        irreps_in1: Irreps,
        irreps_in2: Irreps,
        irreps_out: Irreps,
        mode: Mode = "uvu",
        weights: Weights | None = None,
        normalization: Normalization = "component",
        compile: bool = False,
        kept_paths: Sequence[int] | None = None,
    ) -> None:
        super().__init__(irreps_in1, irreps_in2, irreps_out, mode, weights, normalization, kept_paths)
        self.options = {"compile": compile}
        self.weights_in_form = mode != "uvw" and self.weights != "none"
        runs2 = equal_channels(self.irreps_in2)
        # Paths are ordered by the first input, then the second: several runs of the second divide each block.
        runs1 = equal_channels(self.irreps_in1) if len(runs2) == 1 else [[k] for k in range(len(self.irreps_in1))]
        self.runs: list[tuple[list[int], list[int], list[int]]] = []
        for run1 in runs1:
            for run2 in runs2:
                numbers = [k for k, path in enumerate(self.paths) if path.in1 in run1 and path.in2 in run2]
                if numbers:
                    self.runs.append((run1, run2, numbers))
        self.forms: list[Form] = [self._form(*run) for run in self.runs]
        self.evaluator = choose_evaluator(self.forms, compile)

    def _form(self, run1: list[int], run2: list[int], numbers: list[int]) -> Form:
        """Return the coefficients for a run of blocks of each input and the paths between them."""
        dims1, dims2 = [self.irreps_in1[k].ir.dim for k in run1], [self.irreps_in2[k].ir.dim for k in run2]
        first1, first2 = dict(zip(run1, _starts(dims1))), dict(zip(run2, _starts(dims2)))
        paths, dims = [self.paths[number] for number in numbers], self._dims(numbers)
        apart = into = _starts(dims)
        if self.mode == "uuu":
            together = _starts([ir.dim for _, ir in self.irreps_out])
            into = [together[self.targets[number]] for number in numbers]
        places = apart if self.weights_in_form else into
        size = max(place + dim for place, dim in zip(places, dims))
        blocks = [
            ((first1[path.in1], first2[path.in2], place), self.symbol(number))
            for number, path, place in zip(numbers, paths, places)
        ]
        table = NonzeroTable.from_blocks((sum(dims1), sum(dims2), size), blocks)
        if not self.weights_in_form:
            return table
        outputs = tuple(start + m for start, dim in zip(into, dims) for m in range(dim))
        return WeightedTable(table, outputs, tuple(k for k, dim in enumerate(dims) for _ in range(dim)))

    def _dims(self, numbers: list[int]) -> list[int]:
        return [self.paths[number].ir_out.dim for number in numbers]

    def multiply(self, x1: Tensor, x2: Tensor, weight: Tensor | None) -> Tensor:
        if self.mode == "uvw":
            return super().multiply(x1, x2, weight)
        return self._multiply(self._operands(x1, x2, weight))

    def multiply_natively(self, x1: Tensor, x2: Tensor, weight: Tensor | None) -> Tensor | None:
        """Do what ``multiply`` does if generated C++ does all of it (not in mode ``uvw``); else return None.

        Raises:
            ConfigError: ``kernels`` is ``on`` and there can be none.
        """
        operands = self._operands(x1, x2, weight)
        for form, arguments in zip(self.forms, operands):
            slots, shared = operands_of(*arguments)
            if not runs_native(self.kernels, self.training, form, (2,), shared, slots):
                return None
        return self._multiply(operands)

    def kernel_sources(self, dtype: torch.dtype) -> list[str]:
        if self.mode != "uuu":
            return super().kernel_sources(dtype)
        channels, single = self.irreps_in1[0].mul, self.weights == "path"
        return [source for form in self.forms for source in sources_of(self.kernels, form, channels, dtype, single)]

    def _operands(self, x1: Tensor, x2: Tensor, weight: Tensor | None) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        """Return both inputs and the weights of every contraction, ``(rows or 1, components, channels or 1)``."""
        parts1, parts2 = self._parts(x1, self.irreps_in1, 0), self._parts(x2, self.irreps_in2, 1)
        if self.mode == "uvuv":
            parts1, parts2 = zip(*map(_pairs, parts1, parts2))
        weights: Sequence[Tensor | None] = [None] * len(self.runs)
        if self.weights_in_form:
            sizes = [sum(self.weight_sizes[number] for number in numbers) for _, _, numbers in self.runs]
            rows = weight if weight.dim() == 2 else weight.unsqueeze(0)
            weights = [
                part.unflatten(1, (len(numbers), -1))
                for part, (_, _, numbers) in zip(rows.split(sizes, dim=1), self.runs)
            ]
        return list(zip(parts1, parts2, weights))

    def _multiply(self, operands: Sequence[tuple[Tensor, Tensor, Tensor | None]]) -> Tensor:
        results = [self._contract(k, *arguments).flatten(1) for k, arguments in enumerate(operands)]
        return results[0] if len(results) == 1 else torch.cat(results, dim=1)

    def _parts(self, x: Tensor, irreps: Irreps, side: int) -> list[Tensor]:
        """View the blocks of every run as ``(rows, components, channels)``."""
        slices, parts = irreps.slices(), []
        for run in (runs[side] for runs in self.runs):
            columns = x[:, slices[run[0]].start : slices[run[-1]].stop]
            parts.append(columns.unflatten(1, (-1, irreps[run[0]].mul)))
        return parts

    def _contract(self, position: int, a: Tensor, b: Tensor, weight: Tensor | None = None) -> Tensor:
        evaluator = evaluator_of(self.kernels, self.evaluator, self.training)
        return contract(self.forms[position], a, b, weight, evaluator)

    def couple(self, blocks1: list[Tensor], blocks2: list[Tensor]) -> Iterator[Tensor]:
        # Only mode uvw comes here: its weights mix channels path by path.
        for position, (run1, run2, numbers) in enumerate(self.runs):
            a, b = (torch.cat([blocks[k] for k in run], dim=1) for blocks, run in ((blocks1, run1), (blocks2, run2)))
            yield from self._contract(position, *_pairs(a, b)).split(self._dims(numbers), dim=1)

    def _couple_pairs(self, blocks1: list[Tensor], blocks2: list[Tensor]) -> Iterator[Tensor]:
        return self.couple(blocks1, blocks2)

    def sum_messages(
        self, x1: Tensor, x2: Tensor, weight: Tensor | None, senders: Tensor, receivers: Tensor, num_nodes: int
    ) -> Tensor:
        return TensorProduct.sum_messages(self, x1, x2, weight, senders, receivers, num_nodes)


def equal_channels(irreps: Irreps) -> list[list[int]]:
    """Divide the blocks into runs of neighbours of the same multiplicity.

    >>> equal_channels(Irreps("4x0e+4x1o+2x2e"))
    [[0, 1], [2]]
    """
    return [list(run) for _, run in groupby(range(len(irreps)), key=lambda k: irreps[k].mul)]


def _pairs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Give both ``(rows, components, channels)`` a channel for every pair of channels."""
    if b.shape[2] == 1:
        return a, b
    pairs = (-1, -1, a.shape[2], b.shape[2])
    return a.unsqueeze(3).expand(pairs).flatten(2), b.unsqueeze(2).expand(pairs).flatten(2)


def _starts(dims: Sequence[int]) -> list[int]:
    return [0, *accumulate(dims)][:-1]
