"""`save` and `load`: lists and dicts of arrays in files of NumPy (``.npz``), safetensors, or MXNet's own format."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import allocation
from .array import NDArray, wrap
from .device import Device
from .device import device as _device
from .dtypes import canonical
from .files import FileFormatError, load_arrays, mapped, save_arrays, write_atomically
from .mxnet_files import MAGIC, load_params, save_params
from .operands import as_array

if TYPE_CHECKING:
    import zipfile

__all__ = ["load", "load_named", "save"]

_LIST = {"content": "list"}
_DEFLATE = 1100  # no deflated byte stands for more


def save(fname: str | os.PathLike, data: NDArray | Sequence[NDArray] | Mapping[str, NDArray]) -> None:
    """Write an array, a list or a dict of them, atomically: a crash leaves the old file or the new one.

    The suffix says how: ``.npz`` (NumPy's), ``.safetensors``, or else MXNet's binary format (``.params``). A single array is
    a list of one. Raises TypeError for a dtype that the format can't hold.

    >>> import tempfile, ndarray as nd
    >>> path = tempfile.mkdtemp() + "/weights.npz"
    >>> nd.save(path, {"w": nd.array([1.0, 2.0])})
    >>> nd.load(path)
    {'w': array([1., 2.])}
    """
    if isinstance(data, Mapping):
        for name in data:
            if not isinstance(name, str):
                raise TypeError(f"save: data: the keys of a dict must be str, got {name!r}")
        names, values = list(data), list(data.values())
    else:
        names, values = [], [data] if isinstance(data, (NDArray, np.ndarray)) else list(data)
    arrays = [as_array("save", f"data[{i}]", v).asnumpy() for i, v in enumerate(values)]
    suffix = os.path.splitext(os.fspath(fname))[1].lower()
    if suffix == ".npz":
        _save_npz(fname, arrays, names or [f"arr_{i}" for i in range(len(arrays))])
    elif suffix == ".safetensors":
        numbered = names or [str(i) for i in range(len(arrays))]
        save_arrays(fname, dict(zip(numbered, arrays)), None if isinstance(data, Mapping) else _LIST)
    else:
        save_params(fname, arrays, names)


def load(fname: str | os.PathLike, mmap: bool = False, device: Device | None = None) -> list[NDArray] | dict[str, NDArray]:
    """The list or dict of arrays that `save`, NumPy, MXNet or another writer of safetensors put into a file.

    What the file holds decides, not its name. With `mmap` nothing is read before it is used; writes to the arrays never
    reach the file. The file is not trusted: FileFormatError, naming the file and what is wrong, for anything but a
    well-formed one, before memory is allocated.

    >>> import tempfile, ndarray as nd
    >>> path = tempfile.mkdtemp() + "/two.params"
    >>> nd.save(path, [nd.array([1, 2]), nd.zeros((0, 3))])
    >>> [x.shape for x in nd.load(path, mmap=True)]
    [(2,), (0, 3)]
    """
    arrays, names = load_named(fname, mmap)
    where = _device(device)
    made = [wrap(a if where.kind == "cpu" else where.module.array(a), where) for a in arrays]
    return made if names is None else dict(zip(names, made))


def load_named(path: str | os.PathLike, mmap: bool = False) -> tuple[list[np.ndarray], list[str] | None]:
    """The arrays in a file and their names; None for a list."""
    with open(path, "rb") as file:
        start = file.read(8)
    if start == MAGIC:
        arrays, names = load_params(path, mmap)
        return arrays, names or (None if arrays else [])
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        named = _load_npz(path, mmap)
        listed = [f"arr_{i}" for i in range(len(named))]
        return ([named[n] for n in listed], None) if named and set(named) == set(listed) else (list(named.values()), list(named))
    found, metadata = load_arrays(path, mmap)
    if metadata.get("content") == "list" and set(found) == {str(i) for i in range(len(found))}:
        return [found[str(i)] for i in range(len(found))], None
    return list(found.values()), list(found)


def _save_npz(path: Any, arrays: Sequence[np.ndarray], names: Sequence[str]) -> None:
    import zipfile

    for name, a in zip(names, arrays):
        if "\0" in name:
            raise ValueError(f"save: an array can't be named {name!r} in an npz file: names there end at \\0")
        if a.dtype.kind == "V":
            raise TypeError(f"save: array {name!r} has dtype {a.dtype}, which npz can't hold; use a .safetensors file")
    with write_atomically(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, a in zip(names, arrays):
            with archive.open(name + ".npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, a, allow_pickle=False)


def _load_npz(path: Any, mmap: bool) -> dict[str, np.ndarray]:
    import zipfile

    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if name in arrays:
                    raise FileFormatError(f"{path}: two arrays have the name {name!r}")
                arrays[name] = _load_npy(path, archive, info, mmap)
    except FileFormatError:
        raise
    except Exception as error:  # zipfile and zlib raise many kinds
        what = f"{type(error).__name__}: {error}"
        raise FileFormatError(f"{path}: no valid npz file ({what}); it is truncated or corrupt") from None
    return arrays


def _load_npy(path: Any, archive: zipfile.ZipFile, info: zipfile.ZipInfo, mmap: bool) -> np.ndarray:
    label = f"{path}: array {info.filename!r}"
    if info.file_size > max(1 << 16, info.compress_size * _DEFLATE) or info.flag_bits & 1:
        raise FileFormatError(f"{label} claims {info.file_size} bytes in {info.compress_size}, or is encrypted")
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        if version not in ((1, 0), (2, 0)):
            raise FileFormatError(f"{label} has version {version} of NumPy's format")
        read_header: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(member)
        try:
            native = canonical(dtype)
        except TypeError:
            raise FileFormatError(f"{label} has dtype {dtype}, which arrays can't have") from None
        header = member.tell()
        if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != info.file_size - header:
            have = info.file_size - header
            raise FileFormatError(f"{label}, {dtype} of shape {shape}, isn't {have} bytes long; the file is corrupt")
        if mmap and info.compress_size == info.file_size and info.compress_type == 0 and dtype == native:
            view = _view(path, info, header, shape, dtype, fortran)
            if view.flags.aligned:
                return view
        data = allocation.empty(shape[::-1] if fortran else shape, dtype)
        flat = data.reshape(-1).view(np.uint8)
        done = 0
        while done < flat.size:
            got = member.readinto(flat[done:].data)  # type: ignore[attr-defined]
            if not got:
                raise FileFormatError(f"{label} is truncated")
            done += got
        if member.read(1):
            raise FileFormatError(f"{label} is longer than its shape says")
    return np.asarray(data.T if fortran else data, native, order="C")


def _view(path: Any, info: zipfile.ZipInfo, header: int, shape: tuple, dtype: np.dtype, fortran: bool) -> np.ndarray:
    buffer = mapped(path)
    local = info.header_offset
    names = int.from_bytes(buffer[local + 26 : local + 28], "little") + int.from_bytes(buffer[local + 28 : local + 30], "little")
    begin = local + 30 + names + header
    if begin + math.prod(shape) * dtype.itemsize > len(buffer):
        raise FileFormatError(f"{path}: array {info.filename!r} is truncated")
    return np.ndarray(shape, dtype, buffer, begin, order="F" if fortran else "C")
