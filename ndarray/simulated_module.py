"""The functions of CuPy for the arrays of ``sim(i)``: NumPy's, as far as CuPy has them with these parameters and dtypes."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from .cupy_rules import SCATTER_DTYPES, Parameters, functions, loops
from .cupy_table import VERSION
from .simulated import SimArray, _elementwise, _index, _made, _raw, _result, _run, refuse_in_capture, use

__all__ = ["SimModule"]

_PARTS = ("linalg", "fft", "lib", "lib.stride_tricks")
_HOST_RESULT = frozenset(("ndim", "shape", "size", "result_type", "can_cast", "promote_types", "iscomplexobj", "isrealobj",
                          "may_share_memory", "shares_memory", "isscalar", "broadcast_shapes", "einsum_path", "min_scalar_type"))
_CONSTANTS = frozenset(("pi", "e", "inf", "nan", "newaxis", "ogrid", "mgrid", "r_", "c_", "s_", "index_exp", "euler_gamma"))


class SimModule:
    """The functions of CuPy for one device: ``sim(i).module``."""

    ndarray = SimArray

    def __init__(self, index: int, source: Any = np, part: str = ""):
        self._index, self._source, self._part = index, source, part
        self.__name__ = part if part.startswith("cupyx") else f"cupy.{part}" if part else "cupy"

    def __getattr__(self, name: str) -> Any:
        part = f"{self._part}.{name}" if self._part else name
        if part in _PARTS:
            made: Any = SimModule(self._index, getattr(self._source, name), part)
        elif not self._part and name in loops():
            made = _Ufunc(self._index, getattr(np, name), name)
        elif self._part != "lib" and name in functions(self._part):
            made = _Function(self._index, getattr(self._source, name), functions(self._part)[name], name in _HOST_RESULT)
        elif not self._part and (name in _CONSTANTS or isinstance(getattr(np, name, None), type)):
            made = _Grid(self._index, getattr(np, name)) if name in ("ogrid", "mgrid") else getattr(np, name)
        else:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} (nor has CuPy {VERSION})")
        setattr(self, name, made)
        return made

    def scipy(self, part: str) -> SimModule:
        """What stands for ``cupyx.scipy``'s module `part`."""
        return SimModule(self._index, importlib.import_module(f"scipy.{part}"), f"cupyx.scipy.{part}")

    # -- what takes values of the host
    def array(self, obj: Any, dtype: Any = None, copy: bool = True, order: str = "K", *, blocking: bool = False) -> SimArray:
        """A new array with the values of numbers, lists, NumPy arrays or arrays of any device."""
        refuse_in_capture("an array was made")
        with use(self._index):
            return _made(np.array(_values(obj), dtype=dtype, order=order))  # type: ignore[call-overload]

    def asarray(self, a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False) -> SimArray:
        """The array itself where it is one of this device and dtype, else a new one."""
        if type(a) is SimArray and a._memory.device_id == self._index and (dtype is None or a.dtype == dtype) and not copy:
            return a
        return self.array(a, dtype)

    asanyarray = asarray

    def full(self, shape: Any, fill_value: Any, dtype: Any = None, order: str = "C") -> SimArray:
        """A new array of one value."""
        with use(self._index):
            value = _values(fill_value)
            return _made(np.full(shape, value, np.asarray(value).dtype if dtype is None else dtype))

    def empty(self, shape: Any, dtype: Any = float, order: str = "C") -> SimArray:
        """A new array whose contents are NaN, or as odd as can be."""
        with use(self._index):
            return SimArray(shape, dtype, order)

    def empty_like(
        self, prototype: SimArray, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None,
    ) -> SimArray:
        """`empty` of the shape and dtype of another array."""
        return self.empty(prototype.shape if shape is None else shape, prototype.dtype if dtype is None else dtype)

    def asnumpy(self, a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> np.ndarray:
        """A NumPy array with the values."""
        return a.get(stream, order, out) if type(a) is SimArray else np.asarray(a)

    def shape(self, a: Any) -> tuple[int, ...]:
        """The shape of an array or number."""
        return tuple(np.shape(_values(a)))

    def copyto(self, dst: SimArray, src: Any, casting: str = "same_kind", where: Any = None) -> None:
        """Write values into an array, where a mask is true."""
        functions("")["copyto"].check(2, ())
        with use(self._index):
            _run(np.copyto, "copyto", (dst, src), {"casting": casting, **({} if where is None else {"where": where})})


def _values(obj: Any) -> Any:
    """Host values of what an array can be made from."""
    if type(obj) is SimArray:
        return obj._host
    if isinstance(obj, (list, tuple)):
        return [_values(v) for v in obj]
    return obj


class _Function:
    """A function of NumPy for arrays of one device, with CuPy's parameters."""

    def __init__(self, index: int, function: Any, parameters: Parameters, plain: bool = False):
        self._index, self._function, self._parameters, self._plain = index, function, parameters, plain
        self.__name__ = parameters.name

    def __call__(self, *args: Any, **options: Any) -> Any:
        self._parameters.check(len(args), options)
        if self.__name__ in ("argsort", "sort"):
            options = {**options, "kind": "stable"}
        with use(self._index):
            out = _run(self._function, self.__name__, args, options)
            return _made(np.asarray(out)) if isinstance(out, bool) and not self._plain else out


class _Ufunc:
    """A ufunc for arrays of one device: CuPy's loops decide which dtypes it takes and gives."""

    def __init__(self, index: int, function: Any, name: str):
        self._index, self._function, self.__name__ = index, function, name

    def __call__(self, *args: Any, **options: Any) -> Any:
        for option in options:
            if option not in ("out", "dtype", "casting"):
                raise TypeError(f"cupy.{self.__name__}: Wrong arguments {{{option!r}: ...}}; it has out, dtype, casting")
        with use(self._index):
            return _elementwise(self._function, self.__name__, args, options)

    def at(self, a: SimArray, indices: Any, b: Any = None) -> None:
        """``ufunc.at``: unbuffered operation in place at positions."""
        known = SCATTER_DTYPES.get(self.__name__)
        if known is None:
            raise NotImplementedError(f"cupy.{self.__name__}.at is not supported")
        if a.dtype.name not in known:
            raise TypeError(f"cupy.{self.__name__}.at only supports {', '.join(known)} as data type, got {a.dtype}")
        with use(self._index):
            raw, _ = _index(indices, a.shape)
            values = _raw(b, self.__name__)
            _run(lambda host: self._function.at(host, raw, values), f"{self.__name__}.at", (a,), {})

    def reduce(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        """``ufunc.reduce``."""
        with use(self._index):
            return _run(self._function.reduce, f"{self.__name__}.reduce", (array, axis, dtype, out, keepdims), {})

    def accumulate(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None) -> Any:
        """``ufunc.accumulate``."""
        with use(self._index):
            return _run(self._function.accumulate, f"{self.__name__}.accumulate", (array, axis, dtype, out), {})

    def reduceat(self, array: Any, indices: Any, axis: Any = 0, dtype: Any = None, out: Any = None) -> Any:
        """``ufunc.reduceat``, of sums only."""
        if self.__name__ != "add":
            raise NotImplementedError(f"cupy.{self.__name__}.reduceat is not supported")
        with use(self._index):
            return _run(np.add.reduceat, "add.reduceat", (array, indices, axis, dtype, out), {})


class _Grid:
    """``ogrid`` and ``mgrid``."""

    def __init__(self, index: int, grid: Any):
        self._index, self._grid = index, grid

    def __getitem__(self, key: Any) -> Any:
        with use(self._index):
            return _result(self._grid[key], [])
