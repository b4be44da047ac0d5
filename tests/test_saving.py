"""nd.save and nd.load: npz, safetensors and MXNet's files, round trips, foreign writers, and files that lie."""

from __future__ import annotations

import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

import ndarray as nd
from blocks import nn
from ndarray.files import FileFormatError, save_arrays

SUFFIXES = [".npz", ".safetensors", ".params", ".nd", ""]
RANDOM = np.random.default_rng(5)
DTYPES = ["float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool", "int16", "uint16", "uint32", "uint64"]


def values(dtypes=DTYPES):
    shapes = [(3, 4), (), (0, 5), (7,), (2, 1, 3), (5,), (1,), (3,), (2, 2), (4,), (3, 3), (2,)]
    return {f"layer{i}.{d}": (RANDOM.standard_normal(s) * 50).astype(d) for i, (d, s) in enumerate(zip(dtypes, shapes))}


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trips(tmp_path, suffix, mmap):
    path = tmp_path / f"file{suffix}"
    want = values()
    nd.save(path, {k: nd.array(v, dtype=v.dtype) for k, v in want.items()})
    found = nd.load(path, mmap=mmap)
    assert set(found) == set(want)
    for k, v in want.items():
        assert (found[k].dtype, found[k].shape) == (v.dtype, v.shape)
        np.testing.assert_array_equal(found[k].asnumpy(), v)
        found[k][...] = 0  # never reaches the file
    np.testing.assert_array_equal(nd.load(path)["layer0.float32"].asnumpy(), want["layer0.float32"])
    listed = [nd.array(v, dtype=v.dtype) for v in want.values()]
    nd.save(path, listed)
    again = nd.load(path, mmap=mmap)
    assert isinstance(again, list) and [a.dtype for a in again] == [v.dtype for v in want.values()]
    for a, b in zip(again, listed):
        np.testing.assert_array_equal(a.asnumpy(), b.asnumpy())
    nd.save(path, listed[0])
    assert len(nd.load(path)) == 1
    nd.save(path, [])
    assert len(nd.load(path)) == 0
    assert not [p for p in tmp_path.iterdir() if p != path], "temporary files are gone"


def test_other_dtypes_and_bad_input(tmp_path):
    small = nd.array([1.5, 2.5], dtype="bfloat16")
    for suffix in (".safetensors", ".params"):
        nd.save(tmp_path / f"b{suffix}", {"x": small})
        assert nd.load(tmp_path / f"b{suffix}", mmap=True)["x"].dtype == nd.bfloat16
    with pytest.raises(TypeError, match=r"'x'.*bfloat16.*safetensors"):
        nd.save(tmp_path / "b.npz", {"x": small})
    with pytest.raises(TypeError, match=r"complex128.*MXNet"):
        nd.save(tmp_path / "c.params", [nd.array([1j], dtype="complex128")])
    nd.save(tmp_path / "c.npz", [nd.array([1j], dtype="complex128")])
    assert nd.load(tmp_path / "c.npz")[0].tolist() == [1j]
    with pytest.raises(TypeError, match="keys"):
        nd.save(tmp_path / "k.npz", {1: small})
    with pytest.raises(FileNotFoundError):
        nd.load(tmp_path / "nothing.npz")


def test_numpys_own_files(tmp_path):
    want = {"a": np.asfortranarray(RANDOM.standard_normal((3, 4))), "b": np.arange(3, dtype=">i4")}
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "x.npz", **want)
        for mmap in (False, True):
            found = nd.load(tmp_path / "x.npz", mmap=mmap)
            np.testing.assert_array_equal(found["a"].asnumpy(), want["a"])
            assert found["b"].tolist() == [0, 1, 2] and found["b"].dtype == np.int32
    np.savez(tmp_path / "y.npz", np.ones(2), np.zeros(3))
    assert [x.shape for x in nd.load(tmp_path / "y.npz")] == [(2,), (3,)]
    nd.save(tmp_path / "z.npz", {"w": nd.ones((2, 3))})
    with np.load(tmp_path / "z.npz") as archive:
        np.testing.assert_array_equal(archive["w"], np.ones((2, 3)))
    np.savez(tmp_path / "o.npz", x=np.array([{}], dtype=object))
    with pytest.raises(FileFormatError, match="dtype object"):
        nd.load(tmp_path / "o.npz")
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f8", "fortran_order": False, "shape": (1 << 60,)})
    with pytest.raises(FileFormatError, match="shape"):
        nd.load(tmp_path / "bomb.npz")


# -- MXNet's format, written here from its description and not by the library

FLAGS = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6, "bool": 7, "int16": 8,
         "uint16": 9, "uint32": 10, "uint64": 11}


def one(a, version, device=(1, 0)):
    tail = struct.pack("<iii", *device, FLAGS[a.dtype.name]) + a.tobytes()
    if version == 0:
        return struct.pack(f"<I{a.ndim}I", a.ndim, *a.shape) + tail
    shape = struct.pack(f"<i{a.ndim}q", a.ndim, *a.shape)
    if version == 1:
        return struct.pack("<I", 0xF993FAC8) + shape + tail
    return struct.pack("<Ii", 0xF993FAC9 if version == 2 else 0xF993FACA, 0) + shape + tail


def file_of(records, names=(), count=None):
    text = b"".join(struct.pack("<Q", len(n.encode())) + n.encode() for n in names)
    head = struct.pack("<QQQ", 0x112, 0, len(records) if count is None else count)
    return head + b"".join(records) + struct.pack("<Q", len(names)) + text


@pytest.mark.parametrize("version", [0, 1, 2, 3])
@pytest.mark.parametrize("mmap", [False, True])
def test_files_of_every_version_of_mxnet(tmp_path, version, mmap):
    arrays = [(RANDOM.standard_normal(s) * 9).astype(d) for d, s in zip(DTYPES, [(3, 4), (5,), (2, 2, 2), *[(3,)] * 9])]
    names = [f"arg:w{i}" for i in range(11)] + ["aux:größe"]
    path = tmp_path / "model-0000.params"
    path.write_bytes(file_of([one(a, version, (2, 3)) for a in arrays], names))
    found = nd.load(path, mmap=mmap)
    assert list(found) == names
    for a, b in zip(found.values(), arrays):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a.asnumpy(), b)
    path.write_bytes(file_of([one(a, version) for a in arrays]))
    assert isinstance(nd.load(path), list)


def test_arrays_of_nothing_and_scalars(tmp_path):
    path = tmp_path / "x.params"
    none = [struct.pack("<I", 0), struct.pack("<Ii", 0xF993FAC8, 0), struct.pack("<Iii", 0xF993FAC9, 0, 0),
            struct.pack("<Iii", 0xF993FACA, 0, -1)]
    path.write_bytes(file_of([*none, one(np.array(3.5), 3), one(np.zeros((0, 2), "int32"), 3)]))
    assert [x.shape for x in nd.load(path)] == [(0,)] * 4 + [(), (0, 2)]


def test_what_is_written_is_what_mxnet_writes(tmp_path):
    a, b = np.arange(6, dtype="float32").reshape(2, 3), np.array([1, 2], "int64")
    nd.save(tmp_path / "x.params", {"a": nd.array(a), "b": nd.array(b)})
    assert (tmp_path / "x.params").read_bytes() == file_of([one(a, 2), one(b, 2)], ["a", "b"])


def test_sparse_arrays_are_refused_by_name(tmp_path):
    path = tmp_path / "x.params"
    for storage, name in ((1, "row_sparse"), (2, "csr")):
        path.write_bytes(file_of([struct.pack("<Ii", 0xF993FAC9, storage) + b"\0" * 40]))
        with pytest.raises(FileFormatError, match=rf"array 0 is sparse \({name}\).*tostype"):
            nd.load(path)


LIES = {
    "more arrays than fit": (file_of([one(np.ones(2), 2)], count=1 << 60), "can't be in it"),
    "a shape beyond the file": (file_of([struct.pack("<Iiiqqiii", 0xF993FAC9, 0, 2, 1 << 40, 1 << 40, 1, 0, 0)]), "are left"),
    "a negative size": (file_of([struct.pack("<Iiiq", 0xF993FAC9, 0, 1, -4) + struct.pack("<iii", 1, 0, 0)]), "has the shape"),
    "axes": (file_of([struct.pack("<Iii", 0xF993FAC9, 0, 1 << 30)]), "axes"),
    "an unknown version": (file_of([struct.pack("<I", 0xF993FACB)]), "0xF993FACB is no version"),
    "dtype": (file_of([struct.pack("<Iiiqiii", 0xF993FAC9, 0, 1, 0, 1, 0, 99)]), "unknown dtype 99"),
    "device": (file_of([struct.pack("<Iiiqiii", 0xF993FAC9, 0, 1, 0, -7, 0, 0)]), "unknown device"),
    "storage": (file_of([struct.pack("<Ii", 0xF993FAC9, 9)]), "unknown storage type 9"),
    "names": (file_of([one(np.ones(2), 2)], ["a", "b"]), "2 names for 1 arrays"),
    "the same name": (file_of([one(np.ones(2), 2)] * 2, ["a", "a"]), "one name"),
    "more": (file_of([one(np.ones(2), 2)]) + b"x", "belong to nothing"),
    "reserved": (struct.pack("<QQQQ", 0x112, 1, 0, 0), "reserved"),
}


@pytest.mark.parametrize("what", LIES)
def test_files_that_lie(tmp_path, what):
    data, message = LIES[what]
    path = tmp_path / "x.params"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError, match=message):
            nd.load(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".params"])
def test_truncated_and_corrupted_files(tmp_path, suffix):
    """Every prefix is refused; a file with some bytes changed is refused or gives arrays of its own size at most."""
    path, broken = tmp_path / f"x{suffix}", tmp_path / f"y{suffix}"
    nd.save(path, {"a": nd.array(RANDOM.standard_normal((3, 5))), "bc": nd.array([1, 2, 3], dtype="uint8")})
    data = path.read_bytes()
    for end in range(len(data)):
        broken.write_bytes(data[:end])
        for mmap in (False, True):
            with pytest.raises(FileFormatError):
                nd.load(broken, mmap=mmap)
    for _ in range(600):
        changed = bytearray(data)
        for at in RANDOM.integers(0, len(data), RANDOM.integers(1, 4)):
            changed[at] = RANDOM.integers(0, 256)
        broken.write_bytes(changed)
        try:
            found = nd.load(broken, mmap=bool(RANDOM.integers(2)))
        except FileFormatError:
            continue
        arrays = found if isinstance(found, list) else list(found.values())
        assert sum(x.nbytes for x in arrays) <= 2 * len(data)


def test_load_parameters_of_mxnet(tmp_path):
    net = nn.HybridSequential()
    net.add(nn.Dense(3, in_units=2), nn.BatchNorm(in_channels=3))
    net.initialize()
    want = {k: p.data().asnumpy() + 1 for k, p in net.collect_params().items()}
    path = tmp_path / "net-0000.params"
    names = [("aux:" if "running" in k else "arg:") + k for k in want]
    path.write_bytes(file_of([one(v, 2) for v in want.values()], names))
    net.load_parameters(path)
    for k, p in net.collect_params().items():
        np.testing.assert_array_equal(p.data().asnumpy(), want[k])
    path.write_bytes(file_of([one(v, 2) for v in want.values()]))
    with pytest.raises(ValueError, match="without names"):
        net.load_parameters(path)
    save_arrays(path, want)
    net.load_parameters(path)
