"""What a step needs at the very least: operations and bytes if everything between two layers stayed in the caches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mlip.benchmark.profile_count import Work
from mlip.benchmark.profile_forms import edge_flops
from mlip.benchmark.profile_scopes import BACKWARD, FORWARD, SECOND, Where
from mlip.benchmark.profile_steps import Step
from mlip.nn.convolution import Convolution
from mlip.nn.edges import Edges
from mlip.ops.tensor_product.base import TensorProduct


def needed_flops(work: Mapping[Where, Work], step: Step) -> float:
    """Return the operations that were counted, with those of convolutions in plain torch replaced by the kernels'.

    Plain torch multiplies zeros with zeros; what is needed is what a kernel of the same coefficients does.
    """
    forms = [
        product.form
        for convolution in step.model.modules()
        if isinstance(convolution, Convolution)
        for product in convolution.modules()
        if isinstance(product, TensorProduct) and getattr(product, "form", None) is not None
    ]
    forward, backward = (step.num_edges * sum(each) for each in zip(*map(edge_flops, forms))) if forms else (0, 0)
    of_kernels = {FORWARD: forward, BACKWARD: backward, SECOND: 3 * (forward + backward)}
    total = 0.0
    for (part, direction), one in work.items():
        plain = part == "convolution" and not one.kernels
        total += min(one.flops, of_kernels[direction]) if plain else one.flops
    return total


class CompulsoryBytes:
    """Adds up what no fusion within layers avoids, in a step that runs while it is installed.

    Of every layer its features in and out, of every convolution the harmonics, distances and senders of its edges, of
    the model its weights: each once for every forward pass's worth of work.

    Attributes:
        moved: bytes of a forward pass.
    """

    def __init__(self, model: nn.Module) -> None:
        self.moved = sum(_size(weight) for weight in model.parameters())
        self._handles = [module.register_forward_hook(self._add) for module in model.modules()]
        self._edges: int | None = None

    def __enter__(self) -> CompulsoryBytes:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _add(self, module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        edges = next((arg for arg in args if isinstance(arg, Edges)), None)
        if edges is None:
            return
        if isinstance(module, Convolution):
            self.moved += sum(_size(tensor) for tensor in (edges.harmonics, edges.distances, edges.senders))
        if isinstance(args[0], Tensor) and isinstance(result, Tensor):
            # A layer and the convolution in it both read the features; the caches have them for the second.
            self.moved += 0 if isinstance(module, Convolution) else _size(args[0]) + _size(result)


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
