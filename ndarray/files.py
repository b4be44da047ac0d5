"""Named arrays in files: safetensors, written atomically, read as untrusted input.

A write goes to a temporary file in the same folder, which replaces the old one when it is complete: a crash leaves
the old file or the new one. Reading checks the header's size, the dtypes, shapes and offsets before any array is
allocated.
"""

from __future__ import annotations

import contextlib
import json
import mmap as mmap_module
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from . import allocation

__all__ = ["FileFormatError", "load_arrays", "load_json", "mapped", "save_arrays", "save_json", "write_atomically"]

_MAX_HEADER = 100 << 20
_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
}
_CODES = {name: code for code, name in _DTYPES.items()}


class FileFormatError(ValueError):
    """A file that is truncated, corrupt, of another format, or from a newer version."""


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike, mode: str = "wb") -> Iterator[IO[Any]]:
    """A temporary file beside `path` that replaces it when the block ends without an error."""
    import tempfile  # brings compressors and more: 5 ms of an import that writes no file

    path = Path(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _dtype(code: str) -> np.dtype:
    if code == "BF16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(_DTYPES[code])


def save_arrays(
    path: str | os.PathLike, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named arrays as a safetensors file, atomically. Raises TypeError for a dtype that the format lacks."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    blobs, offset = [], 0
    for name, array in sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        if name == "__metadata__":
            raise ValueError(f"save: an array can't be named {name!r} in a safetensors file, where it is a word of the format")
        if array.dtype.name not in _CODES:
            raise TypeError(
                f"save: array {name!r} has dtype {array.dtype}, which safetensors can't hold; cast it first"
            )
        array = np.asarray(array, order="C")
        if array.dtype.byteorder == ">":
            array = array.astype(array.dtype.newbyteorder("<"))
        header[name] = {
            "dtype": _CODES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
        blobs.append(array)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with write_atomically(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for array in blobs:
            file.write(array.reshape(-1).view(np.uint8).data)


def mapped(path: str | os.PathLike) -> Any:
    """The bytes of a file, mapped into memory; what is written there stays in this process."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return b""
        return mmap_module.mmap(file.fileno(), 0, access=mmap_module.ACCESS_COPY)


def load_arrays(path: str | os.PathLike, mmap: bool = False) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The named arrays of a safetensors file, and its metadata.

    The arrays are writable copies; with `mmap` copy-on-write views of the file where their position allows it. Raises
    FileFormatError, naming the file and what is wrong, for anything but a well-formed file.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise FileFormatError(
                f"{path}: {size} bytes are too few for a safetensors file; it is truncated or of another format"
            )
        length = int.from_bytes(start, "little")
        if length > min(_MAX_HEADER, size - 8):
            raise FileFormatError(
                f"{path}: the header claims {length} bytes, the file has {size - 8} after its length (limit "
                f"{_MAX_HEADER}); "
                "it is truncated or no safetensors file"
            )
        header = _parse_json(path, file.read(length), "header")
        if not isinstance(header, dict):
            raise FileFormatError(f"{path}: the header is no JSON object")
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
            raise FileFormatError(f"{path}: __metadata__ must map strings to strings")
        entries = _check_entries(path, header, size - 8 - length)
        arrays: dict[str, np.ndarray] = {}
        buffer = mapped(path) if mmap else b""
        for name, (dtype, shape, begin, end) in entries.items():
            if mmap:
                array = np.ndarray(shape, dtype, buffer, 8 + length + begin)
                arrays[name] = array if array.flags.aligned else array.copy()
                continue
            array = allocation.empty(shape, dtype)
            file.seek(8 + length + begin)
            if end > begin and file.readinto(array.reshape(-1).view(np.uint8).data) != end - begin:
                raise FileFormatError(f"{path}: array {name!r} is truncated")
            arrays[name] = array
    return arrays, metadata


def _check_entries(path: Any, header: dict, available: int) -> dict[str, tuple[np.dtype, tuple[int, ...], int, int]]:
    entries = {}
    for name, entry in header.items():
        try:
            code, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        except (TypeError, KeyError, ValueError):
            raise FileFormatError(f"{path}: array {name!r} lacks dtype, shape or two data_offsets") from None
        if code not in _DTYPES:
            raise FileFormatError(f"{path}: array {name!r} has unknown dtype {code!r}; known: {', '.join(_DTYPES)}")
        whole = [begin, end, *shape] if isinstance(shape, list) and len(shape) <= 64 else [None]
        if not all(type(n) is int and 0 <= n < 1 << 62 for n in whole):
            raise FileFormatError(
                f"{path}: array {name!r} has a bad shape or offset: {shape!r}, {entry['data_offsets']!r}"[:300]
            )
        dtype, count = _dtype(code), 1
        for n in shape:
            count *= n
        if not begin <= end <= available or end - begin != count * dtype.itemsize:
            raise FileFormatError(
                f"{path}: array {name!r}, {code} of shape {tuple(shape)}, needs {count * dtype.itemsize} bytes; the "
                "offsets "
                f"{begin}:{end} in {available} bytes of data don't hold it; the file is truncated or corrupt"
            )
        entries[name] = (dtype, tuple(shape), begin, end)
    reached = 0
    for name, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != reached:
            raise FileFormatError(
                f"{path}: array {name!r} starts at {begin}, expected {reached}: arrays overlap or leave a gap"
            )
        reached = end
    if reached != available:
        raise FileFormatError(f"{path}: {available - reached} bytes after the last array belong to nothing")
    return entries


def save_json(path: str | os.PathLike, value: Any) -> None:
    """Write plain data as readable JSON, atomically."""
    with write_atomically(path, "w") as file:
        json.dump(value, file, indent=1)
        file.write("\n")


def load_json(path: str | os.PathLike, limit: int = 256 << 20) -> Any:
    """Plain data from a JSON file of at most `limit` bytes. Raises FileFormatError where it isn't that."""
    size = os.path.getsize(path)
    if size > limit:
        raise FileFormatError(f"{path}: {size} bytes, more than the limit of {limit}")
    with open(path, "rb") as file:
        return _parse_json(path, file.read(limit + 1), "file")


def _parse_json(path: Any, data: bytes, what: str) -> Any:
    try:
        return json.loads(data.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(
            f"{path}: the {what} is no valid JSON ({error}); the file is truncated or of another format"
        ) from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
