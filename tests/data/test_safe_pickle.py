"""Pickles and torch.save files of strangers: right values, and no code of theirs."""

import collections
import contextlib
import functools
import io
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data

from mlip.core.errors import DataError
from mlip.data.formats.safe_pickle import loads, torch_load

TENSORS = {
    "float": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "double": torch.tensor([1 / 3, -0.0], dtype=torch.float64),
    "transposed": torch.arange(6).reshape(2, 3).t(),
    "part": torch.arange(10)[4:7],
    "expanded": torch.tensor([2.5]).expand(3),
    "bytes": torch.tensor([0, 255], dtype=torch.uint8),
    "truth": torch.tensor([True, False]),
    "half": torch.tensor([1.5], dtype=torch.bfloat16),
    "complex": torch.tensor([1 + 2j]),
    "empty": torch.empty(0, 3),
    "scalar": torch.tensor(7),
}
ARRAYS = {
    "plain": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big_endian": np.array([1, 2], ">i4"),
    "text": np.array(["Å", "bc"]),
    "truth": np.array([True, False]),
    "empty": np.zeros((0, 3)),
    "scalar": np.float64(1 / 3),
    "integer": np.int32(-5),
}


def same(found, expected) -> bool:
    if isinstance(expected, torch.Tensor):
        return isinstance(found, torch.Tensor) and found.dtype == expected.dtype and torch.equal(found, expected)
    return found.dtype == expected.dtype and np.array_equal(found, expected) and found.shape == expected.shape


@pytest.mark.parametrize("protocol", range(2, 6))
def test_tensors_and_arrays_of_all_protocols(protocol):
    found = loads(pickle.dumps({"t": TENSORS, "a": ARRAYS}, protocol=protocol), "x")
    for name, value in TENSORS.items():
        assert same(found["t"][name], value), name
    for name, value in ARRAYS.items():
        assert same(found["a"][name], value), name


def test_old_and_new_module_paths_of_numpy():
    data = pickle.dumps(ARRAYS, protocol=2)
    new, old = data.replace(b"numpy.core.", b"numpy._core."), data.replace(b"numpy._core.", b"numpy.core.")
    assert new != old
    assert all(same(loads(new, "x")[name], value) for name, value in ARRAYS.items())
    assert all(same(loads(old, "x")[name], value) for name, value in ARRAYS.items())


@pytest.mark.parametrize("protocol", range(6))
def test_plain_containers(protocol):
    value = {
        "a": [1, -1, 2**40, -(2**70), 0.1, None, True, b"\x00\xff", "Å\n'", (), (1,), (1, 2, 3, 4)],
        (1, 2): {3: {"x"}, b"k": frozenset({1}), 1.5: [[]], None: False},
        "o": collections.OrderedDict(b=1, a=2),
        "d": collections.defaultdict(list, {"k": [1]}),
        "b": bytearray(b"12"),
        "c": 1 - 2j,
        "many": list(range(3000)),
    }
    assert loads(pickle.dumps(value, protocol=protocol), "x") == value | {"b": b"12"}


def test_graphs_of_both_versions_of_pyg():
    graph = Data(pos=torch.rand(3, 3), y=1.5, natoms=3, name="x")
    graph["tags"] = np.arange(3)
    found = loads(pickle.dumps(graph), "x")
    assert set(found) == {"pos", "y", "natoms", "name", "tags"}
    assert torch.equal(found["pos"], graph.pos)
    assert (found["y"], found["natoms"], found["name"]) == (1.5, 3, "x")
    # As version 1 wrote it: fields as attributes, those that are not used None.
    old = Data.__new__(Data)
    old.__dict__.update(x=None, edge_index=None, pos=graph.pos, y=2)
    data = pickle.dumps(old.__dict__)
    head = b"\x80\x02ctorch_geometric.data.data\nData\n)\x81"
    found = loads(head + data[2:-1] + b"b.", "x")
    assert list(found) == ["pos", "y"]
    assert torch.equal(found["pos"], graph.pos)


@pytest.mark.parametrize("new", [True, False])
def test_torch_files(tmp_path, new):
    torch.save(
        (TENSORS, ARRAYS, {"g": Data(z=TENSORS["part"])}, Data), tmp_path / "å.pt", _use_new_zipfile_serialization=new
    )
    tensors, arrays, graphs, kind = torch_load(tmp_path / "å.pt")
    assert all(same(tensors[name], value) for name, value in TENSORS.items())
    assert all(same(arrays[name], value) for name, value in ARRAYS.items())
    assert same(graphs["g"]["z"], TENSORS["part"])
    assert kind == "torch_geometric.data.data.Data"
    tensors["float"][0, 0] = 5  # Writable, as torch's are.


def nested(payload):
    """A pickle inside of a tensor storage inside of a pickle."""
    stream = io.BytesIO()
    torch.save(torch.zeros(2).untyped_storage(), stream, _use_new_zipfile_serialization=False)
    inner = stream.getvalue()
    cut = pickle.dumps(payload, protocol=2)
    return _Call(torch.storage._load_from_bytes, (inner[:-16] + cut + inner[-16:],)), _Call(
        torch.storage._load_from_bytes, (cut,)
    )


class _Call:
    def __init__(self, function, arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def payloads(marker):
    command = f"touch {marker}"
    source = f"open({str(marker)!r}, 'w').close()"
    return {
        "posix.system": _Call(os.system, (command,)),
        "subprocess.Popen": _Call(subprocess.Popen, (["touch", str(marker)],)),
        "builtins.eval": _Call(eval, (source,)),
        "builtins.exec": _Call(exec, (source,)),
        "builtins.getattr": _Call(getattr, ("x", "upper")),
        "builtins.__import__": _Call(__import__, ("antigravity",)),
        "torch.serialization.load": _Call(torch.load, ("x",)),
        "functools.partial": _Call(functools.partial, (os.system, command)),
        "numpy.load": _Call(np.load, ("x", None, True)),
        "io.open": _Call(open, (str(marker), "w")),
        "collections.Counter": _Call(collections.Counter, ([],)),
    }


@pytest.mark.parametrize("name", payloads("x"))
def test_payloads_do_not_run(tmp_path, name):
    marker = tmp_path / "marker"
    payload = payloads(marker)[name]
    for protocol in range(6):
        with pytest.raises(DataError, match=r"folder/x\.lmdb is a pickle that names '.*'.*not trusted") as caught:
            loads(pickle.dumps({"pos": [payload]}, protocol=protocol), "folder/x.lmdb")
        assert protocol < 3 or f"'{name}'" in str(caught.value)
        assert name.rpartition(".")[2] in str(caught.value)
    torch.save([payload], tmp_path / "x.pt")
    torch.save([payload], tmp_path / "y.pt", _use_new_zipfile_serialization=False)
    for file in ("x.pt", "y.pt"):
        with pytest.raises(DataError, match=r"\.pt' is a pickle that names '.*'.*not trusted"):
            torch_load(tmp_path / file)
    for inner in nested(payload):
        with pytest.raises(DataError):
            loads(pickle.dumps(inner), "x")
    assert not marker.exists()
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("numpy.f2py.diagnose.run", b"cnumpy.f2py.diagnose\nrun\n)R."),
        ("numpy.f2py.os.system", b"\x80\x04\x8c\x05numpy\x8c\x0ef2py.os.system\x93\x8c\x02ls\x85R."),
        ("os.system", b"ios\nsystem\n."),
        ("os.system", b"(ios\nsystem\n."),
        ("os.system", b"(cos\nsystem\nS'x'\no."),
        (
            "torch.storage._load_from_bytes.__globals__",
            b"\x80\x04\x8c\rtorch.storage\x8c\x1c_load_from_bytes.__globals__\x93.",
        ),
        ("pickle.loads", b"cpickle\nloads\n(C\x01.tR."),
        ("torch.hub.load", b"ctorch.hub\nload\n)R."),
    ],
)
def test_names_of_other_kinds_are_refused(name, data):
    with pytest.raises(DataError, match=f"names '{name}'"):
        loads(data, "x")


@pytest.mark.parametrize(
    ("message", "data"),
    [
        ("may not be called", b"cnumpy\nndarray\n(K\x01tR."),
        ("may not be called", b"\x8c\x01a)R."),
        ("instruction b'\\\\x82'", b"\x82\x01."),
        ("outside itself", b"K\x01Q."),
        ("as key", b"}]K\x01s."),
        ("levels of nesting", b"]" * 1000 + b"a" * 999 + b"."),
        ("contains itself", b"]q\x00h\x00a."),
        ("as key", b"\x80\x02})" + b"\x85" * 50_000 + b"K\x01s."),
        ("absurd length", b"\x8b\xff\xff\xff\x00" + bytes(2**24) + b"."),
        ("absurd length", b"I" + b"9" * 10000 + b"\n."),
        ("200000000 values", pickle.dumps(functools.reduce(lambda inner, _: [inner] * 10, range(12), [1]))),
        ("damaged pickle", b"\x80\x02K\x01r" + (2**31).to_bytes(4, "little")),
        ("damaged pickle", b"\x96" + (10**12).to_bytes(8, "little") + b"."),
        ("damaged pickle", b"(."),
        ("damaged pickle", b""),
        ("damaged pickle", b"0."),
        ("damaged pickle", b"(2q\x00."),
        ("Python objects", pickle.dumps(np.array([{}], dtype=object))),
        ("not read", pickle.dumps(np.zeros(1, dtype=[("a", "f4")]))),
        (
            "shape \\(1000000000000,\\)",
            pickle.dumps(np.zeros(1)).replace(b"K\x01\x85", b"\x8a\x06\0\x10\xa5\xd4\xe8\0\x85"),
        ),
        ("not made of a list", b"cbuiltins\nlist\n(\x8a\x06\0\x10\xa5\xd4\xe8\0tR."),
        ("pickle", b"cbuiltins\nbytearray\n(\x8a\x06\0\x10\xa5\xd4\xe8\0tR."),
        ("pickle", b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(J\0\0\0\x7ftC\x01btR."),
    ],
)
def test_bombs_and_damage_are_errors(message, data):
    with pytest.raises(DataError, match=message):
        loads(data, "x")


def test_arrays_cannot_be_multiplied():
    """One megabyte of the file, referred to as the content of a thousand arrays."""
    raw = bytes(2**20)
    data = pickle.dumps([_Again(raw) for _ in range(1000)])
    assert len(data) < 1.2 * 2**20
    with pytest.raises(DataError, match="larger than the file"):
        loads(data, "x")


class _Again:
    def __init__(self, raw):
        self.raw = raw

    def __reduce__(self):
        function, arguments, state = np.zeros(1, np.uint8).__reduce__()
        return function, arguments, (1, (len(self.raw),), state[2], False, self.raw)


def test_damaged_torch_files(tmp_path):
    path = tmp_path / "x.pt"
    torch.save(TENSORS, path)
    content = path.read_bytes()
    packed = tmp_path / "packed.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(DataError, match="is compressed, which torch"):
        torch_load(packed)
    with pytest.raises(DataError, match="No such file"):
        torch_load(tmp_path / "none.pt")
    path.write_bytes(content[:-40])
    with pytest.raises(DataError, match=r"x\.pt' is a damaged"):
        torch_load(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="damaged"):
        torch_load(path)


GRAPH = pickle.dumps(Data(pos=torch.rand(3, 3), z=torch.arange(3), cell=np.eye(3), natoms=3, sid="ab", y=-1.5))


@given(st.integers(0, len(GRAPH)), st.lists(st.tuples(st.integers(0, len(GRAPH) - 1), st.integers(0, 255)), max_size=4))
def test_changed_bytes_give_a_value_or_an_error(end, changes):
    data = bytearray(GRAPH)
    for place, byte in changes:
        data[place] = byte
    for pickled in (bytes(data), bytes(data[:end])):
        with contextlib.suppress(DataError):
            loads(pickled, "x")
    if end < len(GRAPH):
        with pytest.raises(DataError):
            loads(GRAPH[:end], "x")


@given(st.binary(max_size=200))
def test_arbitrary_bytes_give_a_value_or_an_error(data):
    with contextlib.suppress(DataError):
        loads(data, "x")


@pytest.mark.reference
def test_the_indices_of_sphnet(reference_data):
    """Permutations, the same as torch itself reads them."""
    files = sorted((reference_data / "qh9" / "sphnet_index").glob("*.pt"))
    if not files:
        pytest.skip("no SPHNet indices")
    for file in files:
        parts = torch_load(file)
        expected = torch.load(file, weights_only=False)
        assert all(same(found, wanted) for found, wanted in zip(parts, expected, strict=True))
        everything = np.concatenate(parts)
        assert np.array_equal(np.sort(everything), np.arange(len(everything)))
