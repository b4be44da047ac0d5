"""MXNet's binary files of arrays (``.params``, ``.nd``): read as untrusted input, and written.

    file    uint64 0x112, uint64 0, uint64 count, arrays, uint64 number of names (0: a list), names
    name    uint64 length, bytes (UTF-8)
    array   by its first uint32:
            0xF993FAC9  int32 storage type (0: dense), shape, then as below; a shape without axes: no array
            0xF993FACA  the same, but -1 axes mean no array and a shape may be () or hold zeros (NumPy's shapes)
            0xF993FAC8  shape, then as below
            other       it is the number of axes, uint32 sizes follow (the first versions of MXNet)
            then: int32 device type, int32 device number, int32 dtype, the elements in row-major order
    shape   int32 number of axes, an int64 each

All little-endian. Source: ``src/ndarray/ndarray.cc`` and ``src/c_api/c_api.cc`` of Apache MXNet 1.9, and its mshadow's
``base.h`` for the dtypes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import allocation
from .dtypes import canonical
from .files import FileFormatError, mapped, write_atomically

__all__ = ["MAGIC", "load_params", "save_params"]

MAGIC = (0x112).to_bytes(8, "little")
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_DTYPES = (
    "float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool", "int16", "uint16", "uint32", "uint64", "bfloat16",
)
_STORAGE = {1: "row_sparse", 2: "csr"}
_MAX_AXES = 32


class _Reader:
    """Reads numbers from a buffer and never beyond its end."""

    def __init__(self, path: Any, buffer: Any):
        self.path, self.buffer, self.at, self.size = path, buffer, 0, len(buffer)

    def fail(self, what: str) -> FileFormatError:
        return FileFormatError(f"{self.path}: {what} (at byte {self.at} of {self.size}); the file is truncated or corrupt")

    def take(self, count: int, what: str) -> int:
        """The position of the next `count` bytes."""
        begin = self.at
        if count > self.size - begin:
            raise self.fail(f"{what} needs {count} bytes, {self.size - begin} are left")
        self.at += count
        return begin

    def number(self, form: str, what: str) -> int:
        return struct.unpack_from("<" + form, self.buffer, self.take(struct.calcsize(form), what))[0]


def load_params(path: str | os.PathLike, mmap: bool = False) -> tuple[list[np.ndarray], list[str]]:
    """The arrays and their names (none for a list) of one of MXNet's files.

    With `mmap` the arrays are copy-on-write views of the file where their position allows it. An entry that holds no array
    is an empty one. Raises FileFormatError for anything but a well-formed file, and for sparse arrays.
    """
    buffer = mapped(path)
    reader = _Reader(path, buffer)
    begin = reader.take(8, "the magic number")
    if bytes(buffer[begin : begin + 8]) != MAGIC:
        raise FileFormatError(f"{path}: it doesn't begin with 0x112; this is no file of MXNet arrays")
    if reader.number("Q", "the reserved word") != 0:
        raise reader.fail("the reserved word isn't 0")
    count = reader.number("Q", "the number of arrays")
    if count > (reader.size - reader.at) // 4:
        raise reader.fail(f"{count} arrays can't be in it")
    arrays = [_array(reader, i, mmap) for i in range(count)]
    named = reader.number("Q", "the number of names")
    if named not in (0, count):
        raise reader.fail(f"{named} names for {count} arrays")
    names = []
    for i in range(named):
        length = reader.number("Q", f"the length of name {i}")
        begin = reader.take(length, f"name {i}")
        try:
            names.append(bytes(buffer[begin : begin + length]).decode())
        except UnicodeDecodeError:
            raise reader.fail(f"name {i} is no UTF-8") from None
    if reader.at != reader.size:
        raise reader.fail(f"{reader.size - reader.at} bytes after the last name belong to nothing")
    if len(set(names)) != len(names):
        raise reader.fail("two arrays have one name")
    return arrays, names


def _array(reader: _Reader, number: int, mmap: bool) -> np.ndarray:
    what = f"array {number}"
    version = reader.number("I", f"{what}: the version")
    size_form = "q"
    if version in (_V2, _V3):
        storage = reader.number("i", f"{what}: the storage type")
        if storage in _STORAGE:
            raise FileFormatError(
                f"{reader.path}: {what} is sparse ({_STORAGE[storage]}), which can't be loaded; in MXNet save "
                f"x.tostype('default') instead"
            )
        if storage != 0:
            raise reader.fail(f"{what} has the unknown storage type {storage}")
        axes = reader.number("i", f"{what}: the number of axes")
    elif version == _V1:
        axes = reader.number("i", f"{what}: the number of axes")
    else:
        axes, size_form = version, "I"
    if axes == (-1 if version == _V3 else 0):
        return np.empty((0,), np.float32)  # MXNet's array of nothing
    if not 0 <= axes <= _MAX_AXES:
        raise reader.fail(f"{what} can't have {axes} axes (0x{axes & 0xFFFFFFFF:08X} is no version either)")
    shape = tuple([reader.number(size_form, f"{what}: its shape") for _ in range(axes)])
    device, _ = reader.number("i", f"{what}: the device"), reader.number("i", f"{what}: the device")
    if not 0 <= device <= 16:
        raise reader.fail(f"{what} has the unknown device type {device}")
    flag = reader.number("i", f"{what}: the dtype")
    if not 0 <= flag < len(_DTYPES):
        raise reader.fail(f"{what} has the unknown dtype {flag}")
    dtype, count = canonical(_DTYPES[flag]), 1
    for n in shape:
        if n < 0:
            raise reader.fail(f"{what} has the shape {shape}")
        count *= n
    begin = reader.take(count * dtype.itemsize, f"{what}, {dtype.name} of shape {shape},")
    try:
        view: np.ndarray = np.ndarray(shape, dtype, reader.buffer, begin)
    except ValueError:  # no elements, but sizes that are beyond NumPy
        raise reader.fail(f"{what} can't have the shape {shape}") from None
    return view if mmap and view.flags.aligned else allocation.array(view)


def save_params(path: str | os.PathLike, arrays: Sequence[np.ndarray], names: Sequence[str] = ()) -> None:
    """Write arrays as MXNet does (version 2; version 3 for those without axes or elements), atomically.

    Raises TypeError for a dtype that the format lacks.
    """
    for i, a in enumerate(arrays):
        if a.dtype.name not in _DTYPES:
            which = repr(names[i]) if names else i
            raise TypeError(f"save: array {which} has dtype {a.dtype}, which MXNet's format can't hold; cast it")
    with write_atomically(path) as file:
        file.write(MAGIC + struct.pack("<QQ", 0, len(arrays)))
        for a in arrays:
            version = _V3 if a.size == 0 or a.ndim == 0 else _V2
            file.write(struct.pack(f"<Iii{a.ndim}q", version, 0, a.ndim, *a.shape))
            file.write(struct.pack("<iii", 1, 0, _DTYPES.index(a.dtype.name)))
            file.write(np.ascontiguousarray(a).reshape(-1).view(np.uint8).data)
        file.write(struct.pack("<Q", len(names)))
        for name in names:
            text = name.encode()
            file.write(struct.pack("<Q", len(text)) + text)
