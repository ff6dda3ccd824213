"""From the options of ``mlip bench`` to a plan: what an operator or a protocol does not take is refused."""

from collections.abc import Sequence
from typing import Any

import torch

from mlip.benchmark.plan import OPERATORS, PASSES, Plan
from mlip.core.errors import ConfigError, did_you_mean
from mlip.ops.tensor_product.base import LARGEST_DEGREE

PAPER_ROUNDS, PAPER_WARMUP, PAPER_ROWS = 100, 10, 10_000
"""Protocol of The Price of Freedom (arXiv 2506.13523): calls timed one by one, calls before, rows."""

DEFAULT_CORRELATION = 3


def plan_of(
    *,
    operator: str,
    mode: str | None,
    weights: str | None,
    correlation: int | None,
    channels: int | None,
    rows: int | None,
    rounds: int | None,
    passes: str | None,
    paper: bool,
    full: bool,
    antisymmetric: bool,
    dtype: str,
    device: str,
    threads: int,
    kernels: str,
    max_memory: float,
) -> Plan:
    """Return a plan in which every entry is what is measured.

    Args:
        operator, mode, weights, correlation, channels, rows, rounds, passes, antisymmetric, dtype, device, threads,
            kernels: as in :class:`Plan`; None for what the user has left open.
        paper: the protocol of The Price of Freedom for what is left open.
        full: outputs up to the sum of the degrees.
        max_memory: GB.

    Raises:
        ConfigError: an unknown name, or an option that would change nothing.
    """
    one_of("operator", operator, OPERATORS)
    if paper and rounds is not None:
        raise ConfigError(f"--paper times {PAPER_ROUNDS} calls one by one: leave out --rounds, or --paper.")
    protocol: dict[str, Any] = {"rounds": 7 if rounds is None else rounds}
    if paper:
        protocol = {"rounds": PAPER_ROUNDS, "round_seconds": 0.0, "warmup": PAPER_WARMUP}
    if correlation is not None and operator != "many-body":
        raise ConfigError(f"--correlation belongs to --operator many-body, not to {operator}: leave it out.")
    mode, weights = _mode_and_weights(operator, mode, weights)
    if antisymmetric and operator == "many-body":
        raise ConfigError("Many-body products are measured with outputs of natural parity: leave out --antisymmetric.")
    return Plan(
        operator=operator,
        mode=mode,
        weights=weights,
        channels=channels or (1 if paper else 64),
        rows=rows or (PAPER_ROWS if paper else 1000),
        correlation=correlation or DEFAULT_CORRELATION,
        truncated=not (full or paper),
        antisymmetric=antisymmetric,
        dtype=one_of("dtype", dtype, ("float32", "float64")),
        device=_device(device),
        threads=threads,
        kernels=kernels,
        passes=tuple(several_of("passes", passes or ("forward" if paper else "all"), PASSES)),
        max_memory=max_memory * 1e9,
        **protocol,
    )


def _mode_and_weights(operator: str, mode: str | None, weights: str | None) -> tuple[str, str]:
    """Fill in what the operator leaves open, and refuse what it does not have."""
    for option, value, known in (
        ("mode", mode, ("uuu", "uvu", "uvuv", "uvw")),
        ("weights", weights, ("none", "free")),
    ):
        if value is not None:
            one_of(option, value, known)
    fixed = {"convolution": ("uvu", "free"), "many-body": ("uuu", "free")}.get(operator)
    if fixed is not None:
        if (mode or fixed[0], weights or fixed[1]) != fixed:
            raise ConfigError(
                f"--operator {operator} is measured in mode {fixed[0]} with free weights: leave out --mode and "
                "--weights."
            )
        return fixed
    if mode == "uvw" and weights == "none":
        raise ConfigError("Mode uvw is nothing without its weights: leave out --weights none.")
    return mode or "uuu", weights or ("free" if mode == "uvw" else "none")


def parse_degrees(text: str) -> list[int]:
    """Read ``3``, ``1-4`` or ``1,2,5``.

    Raises:
        ConfigError: something else, or degrees out of range.
    """
    degrees: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            degrees += range(int(first), int(last if dash else first) + 1)
    except ValueError as error:
        raise ConfigError(f"--lmax takes a degree, a range or a list such as 3, 1-4 or 1,2,5; got '{text}'.") from error
    if not degrees or min(degrees) < 0 or max(degrees) > LARGEST_DEGREE:
        raise ConfigError(f"--lmax takes degrees from 0 to {LARGEST_DEGREE}, in rising ranges; got '{text}'.")
    return sorted(set(degrees))


def one_of(option: str, value: str, known: Sequence[str]) -> str:
    """Return a value that is known.

    Raises:
        ConfigError: it is not.
    """
    if value not in known:
        raise ConfigError(f"--{option} is one of {', '.join(known)}, got '{value}'.{did_you_mean(value, known)}")
    return value


def several_of(option: str, text: str, known: Sequence[str]) -> list[str]:
    """Read a list with commas, ``all`` for every known name, in the order of ``known``."""
    if text.strip() == "all":
        return list(known)
    chosen = {one_of(option, part.strip(), known) for part in text.split(",")}
    return [name for name in known if name in chosen]


def _device(name: str) -> str:
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise ConfigError(f"--device is cpu or cuda, got '{name}'.") from error
    if kind not in ("cpu", "cuda"):
        raise ConfigError(f"--device is cpu or cuda, got '{name}'.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError("There is no CUDA device here, or this PyTorch is built without CUDA: use --device cpu.")
    return name
