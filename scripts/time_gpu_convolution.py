"""Time of the convolution on a GPU: the generated Triton kernel against e3nn and other kernels that are installed.

Gather neighbours' features, product with a weight for each path and channel, sum over receivers, for silicon crystals
(cutoff 5 Å). Variants take turns in every round; a time is the median over the rounds, by CUDA events. Compiling is not
counted. cuEquivariance (cuequivariance_torch) and OpenEquivariance (openequivariance) are measured if they import; what
they compute is theirs to order, so that only results of e3nn and OpenEquivariance are compared with mlip's.

Examples:
  python scripts/time_gpu_convolution.py
  python scripts/time_gpu_convolution.py --atoms 216 4096 --lmax 1 2 3 --channels 64 128 --dtype float64
"""

from __future__ import annotations

import argparse
import csv
import importlib
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ase.build import bulk
from ase.neighborlist import neighbor_list
from e3nn.o3 import TensorProduct as E3nnProduct
from torch import Tensor

from mlip.ops.layout import natural_irreps, to_e3nn
from mlip.ops.segment import first_edges
from mlip.ops.tensor_product.clebsch_gordan_dense import ClebschGordanDense

CUTOFF = 5.0
CALLS = 10
"""Calls between two CUDA events."""

Convolve = Callable[[Tensor, Tensor, Tensor], Tensor]
COLUMNS = ("atoms", "edges", "lmax", "channels", "dtype", "variant", "forward_us", "faster", "both_us", "both_faster")


class Task:
    """A crystal, a product and its operands on a device.

    Args:
        atoms: about how many; a cube of whole cells.
        lmax, channels: of the features, the filter and the output.
    """

    def __init__(self, atoms: int, lmax: int, channels: int, dtype: torch.dtype, device: torch.device) -> None:
        cells = max(1, round((atoms / 8) ** (1 / 3)))
        crystal = bulk("Si", cubic=True) * (cells, cells, cells)
        receivers, senders = (torch.from_numpy(index).to(device) for index in neighbor_list("ij", crystal, CUTOFF))
        self.nodes, self.senders, self.receivers = len(crystal), senders, receivers
        self.starts = first_edges(receivers, self.nodes)
        irreps = natural_irreps(lmax, channels)
        self.product = ClebschGordanDense(irreps, natural_irreps(lmax), natural_irreps(lmax), mode="uvu").to(device)
        self.product.kernels = "on"
        sizes = (self.nodes, irreps.dim), (len(senders), (lmax + 1) ** 2), (len(senders), self.product.weight_numel)
        generator = torch.Generator().manual_seed(0)
        x, y, w = (torch.randn(*size, generator=generator).to(device, dtype) for size in sizes)
        self.operands = {"ir_mul": (x, y, w), "mul_ir": (to_e3nn(x, irreps).contiguous(), y, w)}

    def leaves(self, layout: str) -> tuple[Tensor, ...]:
        """Return x, Y and w as leaves of a graph of derivatives, x in the layout that a variant wants."""
        return tuple(t.clone().requires_grad_() for t in self.operands[layout])


def instructions(product: ClebschGordanDense) -> list[tuple[int, int, int, str, bool]]:
    """Return the paths of a product as e3nn and OpenEquivariance take them."""
    return [(path.in1, path.in2, target, "uvu", True) for path, target in zip(product.paths, product.targets)]


def mlip_kernel(task: Task) -> Convolve:
    """Return the fused convolution."""
    return lambda x, y, w: task.product.convolve(x, y, w, task.senders, task.receivers, task.nodes, task.starts)


def mlip_plain(task: Task) -> Convolve:
    """Return the convolution in plain torch."""
    return lambda x, y, w: task.product.sum_messages(x, y, w, task.senders, task.receivers, task.nodes)


def e3nn(task: Task) -> Convolve:
    """Return gather, e3nn's product and a sum over receivers."""
    product = task.product
    irreps = product.irreps_in1, product.irreps_in2, product.irreps_out
    reference = E3nnProduct(*irreps, instructions(product), shared_weights=False, internal_weights=False)
    reference = reference.to(task.senders.device, task.operands["mul_ir"][0].dtype)

    def convolve(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        messages = reference(x[task.senders], y, w)
        return messages.new_zeros(task.nodes, messages.shape[1]).index_add_(0, task.receivers, messages)

    return convolve


def cuequivariance(task: Task) -> Convolve:
    """Return cuEquivariance's fused gather, product and sum."""
    cue, cuet = importlib.import_module("cuequivariance"), importlib.import_module("cuequivariance_torch")
    product = task.product
    first, second = (cue.Irreps("O3", str(irreps)) for irreps in (product.irreps_in1, product.irreps_in2))
    outputs = [cue.O3(ir.l, ir.p) for ir in sorted({ir for _, ir in product.irreps_out})]
    made = cuet.ChannelWiseTensorProduct(
        first, second, outputs, layout=cue.ir_mul, shared_weights=False, internal_weights=False,
        device=task.senders.device, dtype=task.operands["ir_mul"][0].dtype,
    )  # fmt: skip
    indices = {"indices_1": task.senders, "indices_out": task.receivers, "size_out": task.nodes}
    return lambda x, y, w: made(x, y, w, **indices)


def openequivariance(task: Task) -> Convolve:
    """Return OpenEquivariance's fused convolution for edges sorted by receiver, the deterministic one."""
    oeq = importlib.import_module("openequivariance")
    product = task.product
    irreps = [oeq.Irreps(str(irreps)) for irreps in (product.irreps_in1, product.irreps_in2, product.irreps_out)]
    types = {"irrep_dtype": oeq_type(task), "weight_dtype": oeq_type(task)}
    problem = oeq.TPProblem(*irreps, instructions(product), shared_weights=False, internal_weights=False, **types)
    made = oeq.TensorProductConv(problem, torch_op=True, deterministic=True)
    order = torch.argsort(task.senders, stable=True)
    return lambda x, y, w: made.forward(x, y, w, task.receivers, task.senders, order)


def oeq_type(task: Task) -> Any:
    """Return numpy's name of the type of numbers."""
    return getattr(importlib.import_module("numpy"), str(task.operands["mul_ir"][0].dtype).removeprefix("torch."))


VARIANTS: dict[str, tuple[Callable[[Task], Convolve], str]] = {
    "e3nn": (e3nn, "mul_ir"),
    "mlip": (mlip_kernel, "ir_mul"),
    "mlip, plain torch": (mlip_plain, "ir_mul"),
    "cuEquivariance": (cuequivariance, "ir_mul"),
    "OpenEquivariance": (openequivariance, "mul_ir"),
}
"""How each is made, and the layout of its x. The first is what the others are compared with."""


def main(arguments: list[str] | None = None) -> None:
    """Measure every task, print a Markdown table and write it as CSV."""
    options = parse(arguments)
    if not torch.cuda.is_available():
        sys.exit("There is no CUDA device here: run this script on a machine with a GPU and a CUDA build of torch.")
    device, dtype = torch.device("cuda"), getattr(torch, options.dtype)
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, {options.rounds} rounds\n")
    rows = []
    for atoms in options.atoms:
        for lmax in options.lmax:
            for channels in options.channels:
                task = Task(atoms, lmax, channels, dtype, device)
                about = (task.nodes, len(task.senders), lmax, channels, options.dtype)
                rows += [dict(zip(COLUMNS, (*about, *row))) for row in measure(task, options.rounds)]
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for row in rows:
        print("| " + " | ".join(f"{v:.1f}" if isinstance(v, float) else str(v) for v in row.values()) + " |")
    if options.output is not None:
        with open(options.output, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)


def measure(task: Task, rounds: int) -> list[tuple[Any, ...]]:
    """Return for each variant its name, microseconds and how many times faster than the first it is, for both ways."""
    made = prepared(task)
    times: dict[tuple[str, bool], list[float]] = {(name, way): [] for name in made for way in (False, True)}
    for _ in range(rounds):
        for name, (convolve, leaves, cotangent) in made.items():
            for way in (False, True):
                times[name, way].append(timed(convolve, leaves, cotangent if way else None))
    first = next(iter(made))
    rows = []
    for name in made:
        row: list[Any] = [name]
        for way in (False, True):
            ratios = [a / b for a, b in zip(times[first, way], times[name, way])]
            row += [statistics.median(times[name, way]), statistics.median(ratios)]
        rows.append(tuple(row))
    return rows


def prepared(task: Task) -> dict[str, tuple[Convolve, tuple[Tensor, ...], Tensor]]:
    """Return what can be run here, warmed up; print what cannot, and where results are not mlip's."""
    made: dict[str, tuple[Convolve, tuple[Tensor, ...], Tensor]] = {}
    results = {}
    for name, (make, layout) in VARIANTS.items():
        leaves = task.leaves(layout)
        try:
            convolve = make(task)
            out = convolve(*leaves)
            cotangent = torch.ones_like(out)
            for _ in range(3):
                torch.autograd.grad(convolve(*leaves), leaves, cotangent)
        except (ImportError, AttributeError, TypeError, ValueError, RuntimeError, NotImplementedError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            print(f"{name} is not measured: {reason}")
            continue
        made[name], results[name] = (convolve, leaves, cotangent), out.detach()
    for name in ("e3nn", "OpenEquivariance"):
        if name in results and "mlip" in results:
            wanted = to_e3nn(results["mlip"], task.product.irreps_out)
            gap = float((results[name] - wanted).abs().max() / wanted.abs().max())
            if not gap < 1e-4:
                print(f"{name} and mlip differ by {gap:.1e} of the largest number.")
    return made


def timed(convolve: Convolve, leaves: tuple[Tensor, ...], cotangent: Tensor | None) -> float:
    """Return microseconds of a call, with the gradients of all operands if there is a cotangent."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for _ in range(CALLS):
        if cotangent is None:
            with torch.no_grad():
                convolve(*leaves)
        else:
            torch.autograd.grad(convolve(*leaves), leaves, cotangent)
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) * 1000 / CALLS


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, nargs="+", default=[216, 1728, 8000])
    parser.add_argument("--lmax", type=int, nargs="+", default=[2])
    parser.add_argument("--channels", type=int, nargs="+", default=[64])
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--output", type=Path, help="CSV file to write")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
