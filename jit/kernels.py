"""Compiled kernels for eager work on large arrays: a `ndarray.device.KernelProvider`.

Each kernel is the program of a graph of one equation, compiled when an operation is first met with arrays that are worth
it, and kept: for elementwise functions by dtypes alone (any size), for convolutions, pooling and products by all sizes but
the first axis. Which of NumPy and the compiler computes depends on sizes and dtypes only, never on how often something has
been called: the same call gives the same bits. Products of two matrices are always NumPy's; batches of them are split over
the cores here.

What is the same bit for bit: sums, differences, products, quotients, square roots, extrema, comparisons, choices and pooling
by maximum, whoever computes them. Contractions and sums add in another order than NumPy, and exp, log and the like are a
unit in the last place away from it; they are those of a compiled program, which never depend on the number of threads.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from ndarray import apply as _apply
from ndarray.device import COSTLY, ELEMENTWISE, KERNEL_BYTES, NumpyKernels, current_device
from ndarray.dims import Size, symbol
from ndarray.op import OPS, ArrayType
from ndarray.settings import settings

__all__ = ["CompiledKernels", "provider"]

log = logging.getLogger("hybrid.jit")

PROGRAMS_KEPT = 512
"""Distinct operations compiled at most in a process; what comes later is left to NumPy."""

_UNKNOWN = object()
_FLOATS = frozenset(map(np.dtype, (np.float32, np.float64)))
_PLAIN = _FLOATS | {np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.bool_)}
_AS_FAST_ALONE = ELEMENTWISE - {"cos", "erf", "exp", "expm1", "log", "log1p", "relu", "sigmoid", "sin", "where"}
"""Where NumPy is as fast on one thread."""

_FIRST_AXIS = {  # contraction: the arguments that have the batch on their first axis, and whether the attribute `shape` has
    "convolution": ((0,), False),
    "convolution_data_gradient": ((0,), True),
    "convolution_weight_gradient": ((0, 1), False),
    "max_pool": ((0,), False), "max_unpool": ((0, 1), True), "max_pool_gather": ((0, 1), False),
    "sum_pool": ((0,), False), "sum_unpool": ((0,), True),
}


class CompiledKernels(NumpyKernels):
    """See the module."""

    name = "jit"
    offers = frozenset(COSTLY) | ELEMENTWISE

    def __init__(self) -> None:
        self._programs: dict[Hashable, Any] = {}  # None where there is none
        self._busy = threading.local()

    def run(self, op: str, arrays: Sequence[Any], attrs: dict[str, Any]) -> Any:
        """The result from a compiled program, or NotImplemented."""
        if op in COSTLY:
            return self._contract(op, arrays, attrs)
        return self._elementwise(op, arrays, attrs)

    def total(self, arrays: Sequence[Any], out: Any = None) -> Any:
        """The sum of arrays of one shape and dtype, in their order, in one pass where they are large."""
        first, count = arrays[0], len(arrays)
        plain = first.dtype in _FLOATS and all(a.flags.c_contiguous for a in arrays)
        if count > 2 and first.nbytes > KERNEL_BYTES and plain:

            def add_all(xs: Sequence[Any]) -> Any:
                result = xs[0]
                for x in xs[1:]:
                    result = _apply.apply(OPS["add"], result, x)
                return result

            flat = [a.reshape(-1) for a in arrays]
            types = lambda: [ArrayType((symbol("n", first.size),), first.dtype)] * count
            program = self._program(("total", count, first.dtype), "total", types, add_all)
            if program is not None:
                result = program(flat)[0].reshape(first.shape)
                if out is None:
                    return result
                np.copyto(out, result)
                return out
        return super().total(arrays, out)

    def _elementwise(self, op: str, arrays: Sequence[Any], attrs: dict[str, Any]) -> Any:
        if op in _AS_FAST_ALONE and settings.num_threads == 1:
            return NotImplemented
        shape: tuple[int, ...] | None = None
        for a in arrays:
            if a.dtype not in _PLAIN:
                return NotImplemented
            if a.ndim:
                if not a.flags.c_contiguous or (shape is not None and shape != a.shape):
                    return NotImplemented
                shape = a.shape
        if shape is None or not any(a.dtype in _FLOATS for a in arrays):
            return NotImplemented
        count = int(np.prod(shape))
        key = op, tuple([(a.ndim > 0, a.dtype) for a in arrays]), tuple(attrs.items())

        def types() -> list[ArrayType]:
            return [ArrayType((symbol("n", count),) if a.ndim else (), a.dtype) for a in arrays]

        program = self._program(key, op, types, lambda xs: _apply.apply(OPS[op], *xs, **attrs))
        if program is None:
            return NotImplemented
        return program([a.reshape(-1) if a.ndim else a for a in arrays])[0].reshape(shape)

    def _contract(self, op: str, arrays: Sequence[Any], attrs: dict[str, Any]) -> Any:
        if any(a.dtype not in _FLOATS and a.dtype != np.int32 for a in arrays) or arrays[0].dtype not in _FLOATS:
            return NotImplemented
        if any(a.size == 0 for a in arrays) or (op == "dot_general" and not attrs["batch"][0]):
            return NotImplemented  # NumPy's products of two matrices are as fast
        batched, in_shape = _FIRST_AXIS.get(op, ((), False))
        if "kernel" in attrs and arrays[0].ndim == len(attrs["kernel"]):
            batched, in_shape = (), False  # pooling of an array that has no other axes
        shapes = [a.shape[1:] if i in batched else a.shape for i, a in enumerate(arrays)]
        fixed = {**attrs, "shape": attrs["shape"][1:]} if in_shape else attrs
        winograd = settings.winograd if op.startswith("convolution") else 0
        key = op, tuple([(s, a.dtype) for s, a in zip(shapes, arrays)]), tuple(sorted(fixed.items())), winograd

        def types() -> list[ArrayType]:
            n: Size = symbol("n", arrays[0].shape[0]) if batched else 0
            return [ArrayType((n, *s) if i in batched else s, a.dtype) for i, (s, a) in enumerate(zip(shapes, arrays))]

        def computed(xs: Sequence[Any]) -> Any:
            given = {**attrs, "shape": (xs[0].shape[0], *fixed["shape"])} if in_shape else attrs
            return _apply.apply(OPS[op], *xs, **given)

        program = self._program(key, op, types, computed)
        if program is None:
            return NotImplemented
        found = program(arrays)
        return found[0] if len(found) == 1 else tuple(found)

    def _program(
        self, key: Hashable, name: str, types: Callable[[], list[ArrayType]], function: Callable
    ) -> Any:
        """The program of a function of arrays, or None where NumPy is to compute."""
        known = self._programs.get(key, _UNKNOWN)
        if known is not _UNKNOWN:
            return known
        if len(self._programs) >= PROGRAMS_KEPT:
            return None
        if getattr(self._busy, "compiling", False):  # the compiler itself folds constants
            return None
        self._busy.compiling = True
        try:
            program = self._programs[key] = _compile(name, types(), function)
        except Exception as error:
            log.warning("no compiled kernel for %s (%s: %s); NumPy computes it", name, type(error).__name__, error)
            program = self._programs[key] = None
        finally:
            self._busy.compiling = False
        return program


def _compile(name: str, types: Sequence[ArrayType], function: Callable) -> Any:
    from hybrid.passes import optimize
    from hybrid.trace import Tracer

    from .backend import backend

    with _apply.eagerly():
        tracer = Tracer(f"eager_{name}")
        device = current_device()
        arguments = [tracer.argument(t, device, f"x{i}") for i, t in enumerate(types)]
        with tracer.under():
            result = function(arguments)
        trace = tracer.finish(result if isinstance(result, tuple) else (result,))
        if trace.captured or trace.guards:
            raise ValueError(f"its graph has {len(trace.captured)} more inputs and {len(trace.guards)} conditions on sizes")
        return backend.compile(optimize(trace.graph))


provider = CompiledKernels()
