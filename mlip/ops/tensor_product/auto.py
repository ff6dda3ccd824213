"""The fastest of several backends of one operator, found by measurement on the user's machine."""

import functools
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from typing import Any

import torch
from e3nn.o3 import Irrep, Irreps
from torch import Tensor

import mlip
from mlip.core.errors import ConfigError
from mlip.ops.constants import ConstantsModule
from mlip.ops.spherical_harmonics import spherical_harmonics
from mlip.ops.tensor_product.base import Expressivity, Mode, Normalization, TensorProduct, Weights
from mlip.ops.tensor_product.choices import Choice, machine, read_choice, write_choice
from mlip.ops.timing import time_interleaved

Factory = Callable[..., TensorProduct]

HOPELESS = 4.0
"""A candidate that takes this many times as long as the fastest in the first calls is not measured further."""

LONG_CALL = 0.1
"""Seconds from which two rounds are enough."""

EDGES_A_NODE = 16
"""Neighbours of an atom in the convolution that is measured."""

log = logging.getLogger(__name__)


class Auto(TensorProduct):
    """One of the candidates: the one whose forward and backward pass together take least time here.

    Measured when it is built, for the irreps, options and sizes given, by a dozen calls of each candidate (in modes
    with a filter of one channel of ``convolve``, which is what models call there, else of ``forward``);
    the choice is kept in the cache folder (:mod:`mlip.ops.tensor_product.choices`). All candidates compute the same
    numbers, so that a choice changes nothing but the time.

    Args:
        irreps_in1, irreps_in2, irreps_out, mode, weights, normalization: as for every backend.
        candidates: factories by name. Those that refuse the irreps or options are left out.
        harmonic_candidates: further ones that read the direction from the second input, used only with
            ``filter_is_harmonics``.
        filter_is_harmonics: the second input will always be spherical harmonics of unit vectors.
        rows: rows of a typical call, rounded to a power of two.
        dtype: ``float32`` or ``float64``.
        device: where it will run.

    Attributes:
        backend: the chosen product, to which everything is delegated.
        choice: its name.
        timings: seconds of a forward and backward pass, by name.

    Raises:
        ConfigError: candidates of different operators, none that can do it, or unknown options.
    """

    def __init__(
        self,
        irreps_in1: Irreps,
        irreps_in2: Irreps,
        irreps_out: Irreps,
        mode: Mode = "uvu",
        weights: Weights | None = None,
        normalization: Normalization = "component",
        *,
        candidates: Mapping[str, Factory],
        harmonic_candidates: Mapping[str, Factory] | None = None,
        filter_is_harmonics: bool = False,
        rows: int = 1000,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        # Not TensorProduct's: the candidates check the irreps and options, each for itself.
        ConstantsModule.__init__(self)
        self.filter_is_harmonics = filter_is_harmonics
        factories = dict(candidates)
        if filter_is_harmonics:
            factories.update(harmonic_candidates or {})
        size = _measured_rows(rows)
        setting = (_dtype(dtype), _device(device))
        arguments = (Irreps(irreps_in1), Irreps(irreps_in2), Irreps(irreps_out), mode, weights, normalization)
        question = {
            "version": mlip.__version__,
            "machine": machine(setting[1]),
            "candidates": {name: _description(factory) for name, factory in factories.items()},
            "arguments": [str(argument) for argument in arguments],
            "filter_is_harmonics": filter_is_harmonics,
            "rows": size,
            "dtype": dtype,
            "device": device,
        }
        # Constants made in inference mode could not be used in training, nor measured with gradients.
        with torch.inference_mode(False), torch.enable_grad():
            self.backend, found = self._choose(question, factories, arguments, size, *setting)
        self.choice, self.timings = found.name, found.timings
        times = ", ".join(f"{name} {seconds * 1e3:.3g} ms" for name, seconds in sorted(self.timings.items()))
        log.info("%s for %s x %s: %s (%s)", self.operator, self.irreps_in1, self.irreps_in2, self.choice, times)

    def _choose(
        self,
        question: dict[str, Any],
        factories: dict[str, Factory],
        arguments: tuple[Any, ...],
        rows: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> tuple[TensorProduct, Choice]:
        known = read_choice(question)
        if known is not None and known.name in factories:
            # A stored answer that refuses these arguments is from another version: ask again.
            with suppress(ConfigError):
                return factories[known.name](*arguments), known
        products = _build_all(factories, arguments)
        _check_same(products, self.filter_is_harmonics)
        if len(products) == 1:
            # Nothing to measure, and nothing to keep: who is alone depends on the candidates only.
            return next(iter(products.values())), Choice(next(iter(products)), {})
        if device.type == "cuda" and not torch.cuda.is_available():
            name = next(iter(products))
            log.warning("auto is set to measure on %s, which is not here: it takes %s.", device, name)
            return products[name], Choice(name, {})
        timings = _measure(products, rows, dtype, device)
        found = Choice(min(timings, key=timings.__getitem__), timings)
        write_choice(question, found)
        return products[found.name], found

    def __getattr__(self, name: str) -> Any:
        # Irreps, paths, weight_numel, operator and what else describes a product are the backend's.
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "backend" or name.startswith("__"):
                raise
            return getattr(self.backend, name)

    def forward(self, x1: Tensor, x2: Tensor, weight: Tensor | None = None) -> Tensor:
        return self.backend(x1, x2, weight)

    def multiply(self, x1: Tensor, x2: Tensor, weight: Tensor | None) -> Tensor:
        return self.backend.multiply(x1, x2, weight)

    def convolve(
        self,
        x1: Tensor,
        x2: Tensor,
        weight: Tensor | None,
        senders: Tensor,
        receivers: Tensor,
        num_nodes: int,
        starts: Tensor | None = None,
    ) -> Tensor:
        return self.backend.convolve(x1, x2, weight, senders, receivers, num_nodes, starts)

    def kernel_key(self, like: Tensor, num_edges: int | None = None) -> str | None:
        return self.backend.kernel_key(like, num_edges)

    def takes(self, ir: Irrep) -> bool:
        return self.backend.takes(ir)

    @property
    def weights_by_path(self) -> tuple[int, ...] | None:
        return self.backend.weights_by_path

    def keep(self, paths: Sequence[int]) -> TensorProduct:
        return self.backend.keep(paths)

    @property
    def expressivity(self) -> Expressivity:
        return self.backend.expressivity


def _measured_rows(rows: int) -> int:
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise ConfigError(f"rows must be a whole number from 1 on, got {rows!r}.")
    return 2 ** round(math.log2(rows))


def _dtype(name: str) -> torch.dtype:
    known = {"float32": torch.float32, "float64": torch.float64}
    if name not in known:
        raise ConfigError(f"dtype must be one of {', '.join(known)}, got '{name}'.")
    return known[name]


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"device must be cpu, cuda or cuda:N, got {name!r}.") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device must be cpu, cuda or cuda:N, got {name!r}.")
    return device


def _description(factory: Factory) -> str:
    """Name a factory and its options, the same in every process."""
    if isinstance(factory, functools.partial):
        options = ", ".join(f"{name}={value!r}" for name, value in sorted(factory.keywords.items()))
        return f"{_description(factory.func)}({options})"
    return f"{factory.__module__}.{factory.__qualname__}"


def _build_all(factories: dict[str, Factory], arguments: tuple[Any, ...]) -> dict[str, TensorProduct]:
    products, refusals = {}, {}
    for name, factory in factories.items():
        try:
            products[name] = factory(*arguments)
        except ConfigError as error:
            refusals[name] = error
    if not products:
        raise none_can(refusals)
    return products


def none_can(refusals: Mapping[str, ConfigError]) -> ConfigError:
    """Return one sentence about candidates that all refuse: they form one product, so one reason stands for all."""
    reason = next(iter(refusals.values()), "there are no candidates.")
    return ConfigError(f"None of the candidates ({', '.join(refusals)}) can do this: {reason}")


def _check_same(products: dict[str, TensorProduct], filter_is_harmonics: bool) -> None:
    """Refuse candidates that do not compute what the first one does."""
    (first, product), *others = products.items()
    for name, other in others:
        for what in ("operator", "irreps_out", "weight_numel"):
            if getattr(product, what) != getattr(other, what):
                raise ConfigError(
                    f"Candidates must compute the same: {what} is {getattr(product, what)} for {first} and "
                    f"{getattr(other, what)} for {name}. Remove one of them."
                )
    for name, other in products.items():
        if other.filter_is_harmonics and not filter_is_harmonics:
            raise ConfigError(
                f"Candidate {name} needs spherical harmonics as second input: list it under harmonic_candidates, and "
                "set filter_is_harmonics if that is what the product gets."
            )


def _measure(
    products: dict[str, TensorProduct], rows: int, dtype: torch.dtype, device: torch.device
) -> dict[str, float]:
    """Return seconds of a forward and backward pass; candidates far behind are timed once."""
    copies = {name: deepcopy(product).to(device=device, dtype=dtype) for name, product in products.items()}
    product = next(iter(copies.values()))
    inputs = _random_inputs(product, any(p.filter_is_harmonics for p in copies.values()), rows, dtype, device)
    calls = {name: functools.partial(_pass, copy, inputs) for name, copy in copies.items()}
    first: dict[str, float] = {}
    for name, call in calls.items():
        call()
        # The better of two: one slow call must not drop a candidate for good.
        first[name] = min(_seconds(call, device), _seconds(call, device))
    near = {name: call for name, call in calls.items() if first[name] <= HOPELESS * min(first.values())}
    rounds = 5 if max(first[name] for name in near) < LONG_CALL else 2
    timed = time_interleaved(near, rounds=rounds, round_seconds=0.015, device=device)
    return {name: timed[name].wall if name in timed else first[name] for name in products}


def _seconds(call: Callable[[], None], device: torch.device) -> float:
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _random_inputs(
    product: TensorProduct, harmonics: bool, rows: int, dtype: torch.dtype, device: torch.device
) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    x1, x2 = (torch.randn(rows, ir.dim, generator=generator) for ir in (product.irreps_in1, product.irreps_in2))
    if harmonics:
        vectors = torch.nn.functional.normalize(torch.randn(rows, 3, generator=generator, dtype=torch.float64), dim=1)
        values = spherical_harmonics(product.irreps_in2.lmax, vectors)
        x2 = torch.cat([values[:, ir.l**2 : (ir.l + 1) ** 2] for _, ir in product.irreps_in2], dim=1)
    # Weights of a fully connected product are shared in practice, and too many to draw for every row.
    shape = (product.weight_numel,) if product.mode == "uvw" else (rows, product.weight_numel)
    weight = torch.randn(shape, generator=generator) if product.weight_numel else None
    return [None if x is None else x.to(device, dtype).requires_grad_() for x in (x1, x2, weight)]


def _pass(product: TensorProduct, inputs: list[Tensor | None]) -> None:
    x1, x2, weight = inputs
    if product.mode == "uvu":
        nodes = max(1, len(x1) // EDGES_A_NODE)
        receivers = torch.arange(len(x1), device=x1.device) % nodes
        result = product.convolve(x1[:nodes], x2, weight, receivers.flip(0), receivers.sort().values, nodes)
    else:
        result = product(x1, x2, weight)
    torch.autograd.grad(result, [x for x in inputs if x is not None], torch.ones_like(result))
