"""Layouts, segment sums and constants."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from e3nn.o3 import Irreps
from hypothesis import given
from hypothesis import strategies as st

from mlip.ops.constants import ConstantsModule, as_float64
from mlip.ops.layout import from_e3nn, join_blocks, natural_irreps, split_blocks, to_e3nn
from mlip.ops.segment import segment_sum

irreps_lists = st.lists(
    st.tuples(st.integers(1, 4), st.integers(0, 3), st.sampled_from([1, -1])), min_size=1, max_size=5
).map(lambda items: Irreps([(mul, (l, p)) for mul, l, p in items]))


@given(irreps=irreps_lists, rows=st.integers(0, 4))
def test_round_trips(irreps: Irreps, rows: int) -> None:
    x = torch.arange(rows * irreps.dim, dtype=torch.float64).view(rows, irreps.dim)
    assert torch.equal(from_e3nn(to_e3nn(x, irreps), irreps), x)
    assert torch.equal(to_e3nn(from_e3nn(x, irreps), irreps), x)
    assert torch.equal(join_blocks(split_blocks(x, irreps)), x)


def test_order_is_components_then_channels() -> None:
    irreps = Irreps("2x1o+1x0e")
    # e3nn: channel 0 (x, y, z), channel 1 (x, y, z), scalar.
    mul_ir = torch.tensor([[10.0, 11.0, 12.0, 20.0, 21.0, 22.0, 5.0]])
    ours = from_e3nn(mul_ir, irreps)
    assert ours.tolist() == [[10.0, 20.0, 11.0, 21.0, 12.0, 22.0, 5.0]]
    assert split_blocks(ours, irreps)[0][0, :, 1].tolist() == [20.0, 21.0, 22.0]


def test_natural_irreps() -> None:
    assert natural_irreps(3, 2) == Irreps("2x0e+2x1o+2x2e+2x3o")


@given(data=st.data(), edges=st.integers(0, 20), nodes=st.integers(1, 5))
def test_segment_sum_against_a_loop(data: st.DataObject, edges: int, nodes: int) -> None:
    index = torch.tensor(
        data.draw(st.lists(st.integers(0, nodes - 1), min_size=edges, max_size=edges)), dtype=torch.long
    )
    values = torch.randn(edges, 3, generator=torch.Generator().manual_seed(edges), dtype=torch.float64)
    expected = torch.zeros(nodes, 3, dtype=torch.float64)
    for row, k in zip(values, index):
        expected[k] += row
    assert torch.allclose(segment_sum(values, index, nodes), expected, atol=1e-14)


class _Holder(ConstantsModule):
    def __init__(self) -> None:
        super().__init__()
        self.register_constant("third", as_float64([1 / 3]))
        self.register_constant("kept", as_float64([1e10 + 1 / 3]), keep_dtype=True)
        self.register_constant("index", torch.tensor([3, 1]))


def test_constants_keep_their_digits_through_float32() -> None:
    module = torch.nn.Sequential(_Holder()).to(torch.float32)
    assert module[0].third.dtype == torch.float32
    assert module[0].kept.dtype == torch.float64
    module = deepcopy(module).half().double()
    assert float(module[0].third) == 1 / 3
    assert float(module[0].kept) == 1e10 + 1 / 3
    assert module[0].index.dtype == torch.int64
    assert not module.state_dict()


@pytest.mark.parametrize("order", [("meta", torch.float64), (torch.float64, "meta")])
def test_constants_follow_the_device_in_any_order(order: tuple[object, object]) -> None:
    module = _Holder()
    for target in order:
        module = module.to(target)
    assert {buffer.device.type for buffer in module.buffers()} == {"meta"}
    assert module.third.dtype == torch.float64
