"""The convolution of GPUs: when it is chosen, what Triton compiles without a GPU, and results where there is one."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from e3nn.o3 import Irreps
from torch import Tensor

from mlip.core.errors import ConfigError
from mlip.ops.kernels import convolution, library, triton_convolution
from mlip.ops.kernels.convolution_table import convolution_table
from mlip.ops.kernels.table import evaluate, tabulate_functions
from mlip.ops.layout import natural_irreps
from mlip.ops.segment import first_edges
from mlip.ops.tensor_product.clebsch_gordan_dense import ClebschGordanDense
from mlip.ops.tensor_product.fused import kernel_of

OPERATORS = (
    "convolution", "convolution_backward", "convolution_tangent", "convolution_backward_tangent",
    "convolution_table", "convolution_table_backward",
)  # fmt: skip
CASES = [
    ("64x0e+64x1o+64x2e", 2, "0e+1o+2e"),
    ("5x0e+3x1o+2x2e", 2, "0e+1o+2e+1e"),
    ("70x0e+40x1o", 1, "0e+1o"),
    ("16x0e+16x1o+16x2e+16x3o", 3, "0e+1o+2e+3o"),
]
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
TYPES = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
LIKE = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)


def product(case: tuple[str, int, str], dtype: torch.dtype = torch.float64, kernels: str = "off") -> ClebschGordanDense:
    irreps_in, lmax, irreps_out = case
    made = ClebschGordanDense(Irreps(irreps_in), natural_irreps(lmax), Irreps(irreps_out), mode="uvu").to(dtype)
    made.kernels = kernels
    return made


def gap(found: Tensor, expected: Tensor) -> float:
    return float((found.cpu().double() - expected.cpu()).detach().abs().max() / expected.detach().abs().max())


@pytest.fixture(autouse=True)
def _nothing_is_known_of_gpus() -> Iterator[None]:
    """Reasons why a GPU cannot be used are kept, those of a test are not."""
    known = triton_convolution.trouble
    known.cache_clear()
    yield
    known.cache_clear()


def test_the_operators_of_gpus_are_there() -> None:
    for name in OPERATORS:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"mlip::{name}", "CUDA")


def test_gpus_need_no_compiler_of_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")

    def none(source: str) -> None:
        raise AssertionError("C++ is compiled")

    monkeypatch.setattr(library, "library_path", none)
    monkeypatch.setattr(triton_convolution, "trouble", lambda index: None)
    made = product(CASES[1], kernels="auto")
    assert kernel_of(made, LIKE, None) == made.form.key
    path = Path(triton_convolution.module(made.form.key, LIKE.dtype).__file__)
    # A file that is not what it should be is written anew.
    text = path.read_text(encoding="utf-8")
    path.write_text("half a", encoding="utf-8")
    triton_convolution.module.cache_clear()
    assert Path(triton_convolution.module(made.form.key, LIKE.dtype).__file__) == path
    assert path.read_text(encoding="utf-8") == text


def test_without_triton_convolutions_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setitem(sys.modules, "triton.runtime", None)
    assert kernel_of(product(CASES[1], kernels="auto"), LIKE, None) is None
    with pytest.raises(ConfigError, match=r"kernels=on .* Triton cannot be imported .* pip install triton"):
        kernel_of(product(CASES[1], kernels="on"), LIKE, None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_reason_is_said() -> None:
    pytest.importorskip("triton")
    with pytest.raises(ConfigError, match="Triton does not work here"):
        kernel_of(product(CASES[1], kernels="on"), LIKE, None)


def test_other_devices_have_none() -> None:
    like = SimpleNamespace(device=torch.device("meta"), dtype=torch.float32)
    with pytest.raises(ConfigError, match="for CPUs and for CUDA, not for meta"):
        kernel_of(product(CASES[1], kernels="on"), like, None)


@pytest.mark.slow
@pytest.mark.parametrize("case", [CASES[0], ("5x0e+3x1o", 1, "0e+1o+1e")])
@pytest.mark.parametrize(("dtype", "other"), [(torch.float32, "f64"), (torch.float64, "f32")])
def test_kernels_compile_for_a_gpu_that_is_not_there(case, dtype, other, monkeypatch, tmp_path) -> None:
    triton = pytest.importorskip("triton")
    compiled, target = (importlib.import_module(f"triton.{part}") for part in ("compiler", "backends.compiler"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    made = product(case)
    convolution.register(made.form)
    module = triton_convolution.module(made.form.key, dtype)
    number = "*fp32" if dtype == torch.float32 else "*fp64"
    types = dict.fromkeys(("senders", "starts", "order", "receivers"), "*i64") | {"cells": "i32", "num_edges": "i32"}
    for name in (f"{base}{kind}" for base in ("forward", "edges", "sources") for kind in ("", "_tangent", "_table")):
        function = getattr(module, name)
        fixed = {argument: True for argument in function.arg_names if argument.startswith("WANT")}
        signature = {a: "constexpr" if a in fixed else types.get(a, number) for a in function.arg_names}
        places = {(function.arg_names.index(argument),): True for argument in fixed}
        source = compiled.ASTSource(function, signature, places)
        options = {"num_warps": 1, "num_stages": 1, "enable_fp_fusion": True}
        result = triton.compile(source, target=target.GPUTarget("cuda", 80, 32), options=options)
        assert result.asm["cubin"]
        # Nothing is computed in another precision, nor passed through shared memory.
        assert not re.search(rf"\.{other}\b", result.asm["ptx"])
        assert result.metadata.shared == 0
        # The only products of 32 bits are those of a part with the channels it has: places of rows have 64.
        narrow = re.findall(r"arith\.muli .* : i32", result.asm["ttir"])
        assert len(narrow) <= (module.SOURCE_PARTS if "sources" in name else module.SUM_PARTS)


class Problem:
    """A product, a random graph sorted by receiver, and operands, on the CPU in double precision and on the GPU."""

    def __init__(self, case: tuple[str, int, str], dtype: torch.dtype, nodes: int = 40, edges: int = 900) -> None:
        generator = torch.Generator().manual_seed(0)
        self.plain = product(case)
        self.nodes = nodes
        self.receivers = torch.randint(nodes, (edges,), generator=generator).sort().values
        self.senders = torch.randint(nodes, (edges,), generator=generator)
        sizes = (nodes, self.plain.irreps_in1.dim), (edges, self.plain.irreps_in2.dim), (edges, self.plain.weight_numel)
        on_gpu = [torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes]
        self.cpu = [t.double().requires_grad_() for t in on_gpu]
        self.gpu = [t.cuda().requires_grad_() for t in on_gpu]
        self.cotangent = torch.randn(nodes, self.plain.irreps_out.dim, generator=generator, dtype=torch.float64)
        self.edges = (
            self.senders.cuda(), first_edges(self.receivers, nodes).cuda(),
            triton_convolution.prepare(self.plain.form, dtype, torch.device("cuda")),
        )  # fmt: skip

    def expected(self, *tensors: Tensor) -> Tensor:
        return self.plain.sum_messages(*tensors, self.senders, self.receivers, self.nodes)

    def found(self, *tensors: Tensor) -> Tensor:
        return convolution.convolution(*tensors, *self.edges)


@CUDA
@TYPES
@pytest.mark.parametrize("case", CASES)
def test_a_gpu_agrees_with_the_cpu(case, dtype, tolerance) -> None:
    problem = Problem(case, dtype)

    def all_of(function, tensors: list[Tensor]) -> list[Tensor]:
        out = function(*tensors)
        first = torch.autograd.grad(out, tensors, problem.cotangent.to(out), create_graph=True)
        second = torch.autograd.grad(sum(t.square().sum() for t in first), tensors)
        return [out, *first, *second]

    found = all_of(problem.found, problem.gpu)
    for one, other in zip(found, all_of(problem.expected, problem.cpu)):
        assert gap(one, other) < tolerance
    # Bit by bit, and in another stream.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        again = all_of(problem.found, problem.gpu)
    torch.cuda.synchronize()
    assert all(torch.equal(one, other) for one, other in zip(found, again))


@CUDA
@TYPES
def test_a_gpu_reads_tables_as_the_cpu(dtype, tolerance) -> None:
    problem = Problem(CASES[0], dtype)
    rates = torch.linspace(0.2, 1, problem.plain.weight_numel, dtype=torch.float64)
    table = tabulate_functions(lambda r: torch.sin(3 * rates * r[:, None]), 1e-3, 4.0, 1e-4)
    cells, r = table.cells.to(dtype), torch.linspace(0.3, 3.9, len(problem.senders), dtype=dtype)
    cpu, gpu = [*problem.cpu[:2], r.double().requires_grad_()], [*problem.gpu[:2], r.cuda().requires_grad_()]
    expected = problem.expected(*cpu[:2], evaluate(table._replace(cells=cells.double()), cpu[2]))
    found = convolution_table(*gpu, cells.cuda(), table.steps, *problem.edges)
    assert gap(found, expected) < tolerance
    pairs = [torch.autograd.grad(out, to, problem.cotangent.to(out)) for out, to in ((found, gpu), (expected, cpu))]
    for one, other in zip(*pairs):
        assert gap(one, other) < 10 * tolerance


@CUDA
def test_derivatives_on_a_gpu_are_those_of_finite_differences() -> None:
    problem = Problem(("2x0e+1x1o", 1, "0e+1o+1e"), torch.float64, nodes=4, edges=7)
    assert torch.autograd.gradcheck(problem.found, tuple(problem.gpu))
    assert torch.autograd.gradgradcheck(problem.found, tuple(problem.gpu))


@CUDA
def test_a_gpu_takes_graphs_without_edges_and_without_nodes() -> None:
    for nodes in (0, 1, 3):
        problem = Problem(CASES[1], torch.float64, nodes=max(nodes, 1), edges=0)
        tensors = [problem.gpu[0].detach()[:nodes].requires_grad_(), *problem.gpu[1:]]
        starts = torch.zeros(nodes + 1, dtype=torch.long, device="cuda")
        out = convolution.convolution(*tensors, problem.edges[0], starts, problem.edges[2])
        assert out.shape == (nodes, problem.plain.irreps_out.dim)
        assert not out.any()
        assert not torch.autograd.grad(out.sum(), tensors[0])[0].any()


@CUDA
def test_products_on_a_gpu_take_the_kernel() -> None:
    problem = Problem(CASES[1], torch.float32)
    fused = product(CASES[1], torch.float32, kernels="on").cuda()
    found = fused.convolve(*problem.gpu, problem.senders.cuda(), problem.receivers.cuda(), problem.nodes)
    assert "mlip_convolution" in type(found.grad_fn).__name__
    assert gap(found, problem.expected(*problem.cpu)) < 1e-5
    torch.library.opcheck(torch.ops.mlip.convolution.default, (*problem.gpu, *problem.edges))
