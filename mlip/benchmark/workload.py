"""One candidate of a benchmark: a function, its inputs, and the passes through it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Workload:
    """A bilinear (or many-body) map with inputs of a certain size.

    Attributes:
        function: takes ``inputs``, returns one tensor.
        inputs: leaves that want gradients.
        operator: the map that it computes: candidates with the same operator give the same numbers.
        paths: the (l1, l2, l3) that carry signal.
        width: numbers in a row of the output.
        standard: brings the result to the layout of :mod:`mlip.ops.layout`.
        weights: weights a row.
        note: what else is to be known, such as what an automatic choice has chosen.
    """

    function: nn.Module
    inputs: tuple[Tensor, ...]
    operator: str
    paths: int
    width: int
    standard: Callable[[Tensor], Tensor] = lambda result: result
    weights: int = 0
    note: str = ""

    @property
    def input_bytes(self) -> int:
        """Memory of the inputs."""
        return sum(t.numel() * t.element_size() for t in self.inputs)

    def result(self) -> Tensor:
        """Return the output in the common layout, without gradients."""
        with torch.no_grad():
            return self.standard(self.function(*self.inputs))

    def call(self, name: str) -> Callable[[], object]:
        """Return a function that runs a pass: see :data:`mlip.benchmark.plan.PASSES`."""
        if name == "forward":
            return self._forward
        cotangent = torch.ones_like(self._forward())
        if name == "backward":
            return lambda: torch.autograd.grad(self.function(*self.inputs), self.inputs, cotangent)
        return lambda: self._double_backward(cotangent)

    def _forward(self) -> Tensor:
        with torch.no_grad():
            return self.function(*self.inputs)

    def _double_backward(self, cotangent: Tensor) -> object:
        """Differentiate the gradients of all inputs, as the loss of forces does."""
        first = torch.autograd.grad(self.function(*self.inputs), self.inputs, cotangent, create_graph=True)
        dependent = [gradient for gradient in first if gradient.requires_grad]
        # The gradients themselves as cotangents: those of half the sum of their squares.
        return torch.autograd.grad(
            dependent, self.inputs, [gradient.detach() for gradient in dependent], allow_unused=True
        )
