"""Short cuts for elementwise functions and operators of plain arrays: no interpreter stack, no inference.

Where nothing traces, both arguments are arrays of one dtype and device (or one is a Python number) and the dtype needs no
conversion, the ufunc is called straight away. Under ``autograd.record()`` the node that `tape.Tape` would hang on the result
is made on the spot. Everything else goes to the function itself (`slow`), which also finds the words for an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import apply as _apply
from .array import NDArray, _new, literal
from .device import KERNEL_BYTES
from .op import NONDIFF, OPS, Op
from .precision import WIDE_OPS
from .tape import RECORDING, Node, Plan, _check_entry, _kept_out

__all__ = ["BINARY", "UNARY", "binary", "unary"]

_ndarray, _asarray = np.ndarray, np.asarray
_top_get = _apply._top.get
_NO_ATTRIBUTES: dict = {}
_NOTHING: tuple = ((), (), (), _NO_ATTRIBUTES)  # what a node keeps whose gradient needs nothing

BINARY: dict[str, tuple[Callable, str]] = {
    "add": (np.add, "iufc"), "subtract": (np.subtract, "iufc"), "multiply": (np.multiply, "iufc"),
    "divide": (np.divide, "fc"), "remainder": (np.remainder, "f"), "maximum": (np.maximum, "iuf"), "minimum": (np.minimum, "iuf"),
    "bitwise_and": (np.bitwise_and, "biu"), "bitwise_or": (np.bitwise_or, "biu"), "bitwise_xor": (np.bitwise_xor, "biu"),
    "equal": (np.equal, "iufc"), "not_equal": (np.not_equal, "iufc"), "less": (np.less, "iuf"),
    "less_equal": (np.less_equal, "iuf"), "greater": (np.greater, "iuf"), "greater_equal": (np.greater_equal, "iuf"),
}
"""Name of an op with two arguments -> (the ufunc that is its eager function, the dtype kinds that need no conversion)."""

UNARY: dict[str, tuple[Callable, str]] = {
    "negative": (np.negative, "ifc"), "abs": (np.abs, "if"), "sign": (np.sign, "if"),
    "exp": (np.exp, "f"), "expm1": (np.expm1, "f"), "log": (np.log, "f"), "log1p": (np.log1p, "f"), "sqrt": (np.sqrt, "f"),
    "sin": (np.sin, "f"), "cos": (np.cos, "f"), "tanh": (np.tanh, "f"), "floor": (np.floor, "f"), "ceil": (np.ceil, "f"),
    "trunc": (np.trunc, "f"),
}
"""The same for ops with one argument."""


def binary(name: str, slow: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A function of two arguments that takes the short cut of an op, or else calls `slow`."""
    ufunc, kinds = BINARY[name]
    op = OPS[name]
    plans = [None, *(_plan(op, tracked) for tracked in ((0,), (1,), (0, 1)))]

    def short(x1: Any, x2: Any, /) -> Any:
        top = _top_get()
        if (top is None or top is RECORDING) and type(x1) is NDArray:
            a = x1._data
            if type(a) is _ndarray and (dtype := a.dtype).kind in kinds and a.nbytes <= KERNEL_BYTES:
                device = x1._device
                if type(x2) is NDArray:
                    b = x2._data
                    if type(b) is not _ndarray or b.dtype is not dtype or x2._device is not device:
                        return slow(x1, x2)
                elif ((type(x2) is float and dtype.kind == "f") or (type(x2) is int and dtype.kind != "b")):
                    if top is not None:
                        return number_beside(x1, x2, False)
                    b = x2
                else:
                    return slow(x1, x2)
                try:
                    data = ufunc(a, b if b is not x2 else dtype.type(x2))
                except Exception:
                    return slow(x1, x2)  # which tells what is wrong
                out = _new(NDArray)
                out._data = data if type(data) is _ndarray else _asarray(data)
                out._device = device
                out._node = out._storage = None
                if top is not None:
                    first, second = x1._node, x2._node
                    if first is not None or second is not None:
                        record(first, second, x1, x2, a, b, out)
                return out
        return slow(x1, x2)

    def record(first: Any, second: Any, x1: NDArray, x2: NDArray, a: Any, b: Any, out: NDArray) -> None:
        plan = plans[(first is not None) + 2 * (second is not None)]
        if plan is None or out._data.dtype.kind not in "fc":
            return
        if first is not None and first[2] >= 0 and x1._storage is not None:  # less than 0: a leaf
            _check_entry(x1)
        if second is not None and second[2] >= 0 and x2._storage is not None:
            _check_entry(x2)
        node = _new(Node)
        node.step = plan
        node.inputs = (first, second)
        node.shapes = (a.shape, b.shape)
        arguments = plan.arguments
        if plan.outs or len(arguments) > 1:
            node.kept = _kept(plan, (x1, x2), out)
        elif arguments:
            kept = x2 if arguments[0] else x1
            storage = kept._storage
            node.kept = (((kept, 0 if storage is None else storage.version),), (), (), _NO_ATTRIBUTES)
        else:
            node.kept = _NOTHING
        out._node = (node, 0, 0)

    def number_beside(x: NDArray, value: Any, first: bool) -> Any:
        """The same for an array and a Python number, which is the first argument or the second."""
        a, device = x._data, x._device
        try:
            other = literal(value, a.dtype, device)
            data = ufunc(other._data, a) if first else ufunc(a, other._data)
        except Exception:
            return slow(value, x) if first else slow(x, value)
        out = _new(NDArray)
        out._data = data if type(data) is _ndarray else _asarray(data)
        out._device = device
        out._node = out._storage = None
        if x._node is not None and _top_get() is not None:
            if first:
                record(None, x._node, other, x, other._data, a, out)
            else:
                record(x._node, None, x, other, a, other._data, out)
        return out

    def reflected(x2: Any, x1: Any) -> Any:
        """``x1 op x2`` where x2 is an array and x1 is not."""
        top = _top_get()
        if (top is None or top is RECORDING) and type(x2) is NDArray:
            a = x2._data
            if type(a) is _ndarray and a.dtype.kind in kinds and a.nbytes <= KERNEL_BYTES:
                if (type(x1) is float and a.dtype.kind == "f") or (type(x1) is int and a.dtype.kind != "b"):
                    return number_beside(x2, x1, True)
        return slow(x1, x2)

    short.reflected = reflected  # type: ignore[attr-defined]
    return short


def unary(name: str, slow: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of one argument that takes the short cut of an op, or else calls `slow`."""
    ufunc, kinds = UNARY[name]
    plan = _plan(OPS[name], (0,))
    # float16 goes the long way where a precision policy may have a say
    codes = "".join(c for c in np.typecodes["AllInteger"] + np.typecodes["AllFloat"]
                    if np.dtype(c).kind in kinds and not (c == "e" and name in WIDE_OPS))

    def short(x: Any, /) -> Any:
        top = _top_get()
        if (top is None or top is RECORDING) and type(x) is NDArray:
            a = x._data
            if type(a) is _ndarray and a.dtype.char in codes and a.nbytes <= KERNEL_BYTES:
                try:
                    data = ufunc(a)
                except Exception:
                    return slow(x)
                out = _new(NDArray)
                out._data = data if type(data) is _ndarray else _asarray(data)
                out._device = x._device
                out._node = out._storage = None
                if top is not None and plan is not None and (entry := x._node) is not None and a.dtype.kind in "fc":
                    if x._storage is not None:
                        _check_entry(x)
                    node = _new(Node)
                    node.step = plan
                    node.inputs = (entry,)
                    node.shapes = (a.shape,)
                    node.kept = _kept(plan, (x,), out) if plan.arguments or plan.outs else _NOTHING
                    out._node = (node, 0, 0 if out._storage is None else out._storage.version)
                return out
        return slow(x)

    return short


def _plan(op: Op, tracked: tuple[int, ...]) -> Plan | None:
    if op.vjp is NONDIFF:
        return None
    assert all(op.arguments[i] in op.vjp for i in tracked), op  # type: ignore[operator]
    plan = Plan(op, tracked)
    assert not plan.types and not any(call[3] for call in plan.calls), op
    return plan


def _kept(plan: Plan, arrays: tuple, out: NDArray) -> tuple:
    arguments = []
    for i in plan.arguments:
        x = arrays[i]
        storage = x._storage
        arguments.append((x, 0 if storage is None else storage.version))
    return arguments, ([_kept_out(out)] if plan.outs else ()), (), _NO_ATTRIBUTES
