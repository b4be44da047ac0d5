"""The bottom of the interpreter stack: runs an operation at once, through the array module of its device."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import apply as _apply
from .array import NDArray, raw_index, storage_of, wrap
from .device import Device, current_device
from .memory import failed
from .op import Op

__all__ = ["Eager"]

_ndarray = np.ndarray


class Eager:
    """Runs ``op.eager`` on the arrays' data and wraps what it returns.

    Raises ValueError for arguments on different devices, and lets a tracer's value that has left its trace raise the
    tracer's own error.
    """

    def process(self, frame: _apply.Frame, op: Op, arrays: tuple[NDArray, ...], attrs: dict[str, Any]) -> Any:
        """The result of `op`, computed now."""
        if arrays:
            device = arrays[0]._device
            data = []
            for a in arrays:
                d = a._data
                if type(d) is not _ndarray and hasattr(d, "concretize"):
                    d.concretize(f"computing {op.name} outside the trace that made this array")
                if a._device is not device:
                    self._mixed(op, arrays)
                data.append(d)
        else:
            device, data = current_device(), []
        module = device._module
        if module is None:
            return self._elsewhere(op, device, arrays, data, attrs)
        try:
            if op.name in device.kernels.offers:
                result = self._run(op, device, data, attrs)
            else:
                result = op.eager(module, *data, **attrs)
        except (RuntimeWarning, FloatingPointError):  # warnings are errors here: infinities and NaNs are results
            with np.errstate(all="ignore"):
                result = self._run(op, device, data, attrs)
        return self._wrapped(op, device, arrays, result)

    def _elsewhere(self, op: Op, device: Device, arrays: tuple, data: Sequence[Any], attrs: dict[str, Any]) -> Any:
        """The same on another device than the CPU, which is made the current one of its kind."""
        with device.active():
            try:
                return self._wrapped(op, device, arrays, op.eager(device.inner, *data, **attrs))
            except MemoryError as error:
                raise failed(device, error) from None

    def _wrapped(self, op: Op, device: Device, arrays: tuple[NDArray, ...], result: Any) -> Any:
        if op.results != 1 or type(result) is tuple:
            return tuple([wrap(r, device) for r in result])
        out = wrap(result, device)
        if arrays and "view" in op.traits:
            _share(arrays[0], out)
        return out

    def _run(self, op: Op, device: Device, data: Sequence[Any], attrs: dict[str, Any]) -> Any:
        if op.name in device.kernels.offers:
            result = device.kernels.run(op.name, data, attrs)
            if result is not NotImplemented:
                return result
        return op.eager(device.module, *data, **attrs)

    def write(self, frame: _apply.Frame, array: NDArray, value: NDArray, index: Any) -> None:
        """``array[index] = value``, in place."""
        for a in (array, value):
            if hasattr(a._data, "concretize"):
                a._data.concretize("writing an array outside the trace that made it")
        if array._device is not value._device:
            raise ValueError(
                f"write: the array is on {array._device}, the value on {value._device}; move it with "
                f"value.to_device({array._device})"
            )
        if array._device._module is None:
            with array._device.active():
                array._data[_placed(raw_index(index), array._device)] = value._data
        else:
            array._data[raw_index(index)] = value._data

    def _mixed(self, op: Op, arrays: tuple[NDArray, ...]) -> None:
        places = ", ".join(f"{n} on {a._device}" for n, a in zip(_names(op, len(arrays)), arrays))
        raise ValueError(f"{op.name}: arguments on different devices ({places}); move them with x.to_device(device)")


def _names(op: Op, count: int) -> tuple[str, ...]:
    return tuple(f"{op.arguments[0][1:]}[{i}]" for i in range(count)) if op.variadic else op.arguments


def _placed(index: Any, device: Device) -> Any:
    """An index with lists and NumPy arrays in it as arrays of the device."""
    if isinstance(index, tuple):
        return tuple([_placed(i, device) for i in index])
    if not isinstance(index, (list, _ndarray)):
        return index
    values = np.asarray(index)
    return device.module.asarray(values if values.size or values.dtype.kind in "biu" else values.astype(np.int64))


def _share(base: NDArray, view: NDArray) -> None:
    """Let a view count its writes in the storage of its base, if it is one."""
    memory = view._data.base
    if view._data is base._data or (memory is not None and (memory is base._data or memory is base._data.base)):
        view._storage = base._storage or storage_of(base)


# Infinities and NaNs are results, eagerly as in compiled code, and not warnings of NumPy. (np.errstate would say so
# too, for as long as a small operation takes.)
warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"ndarray\.")
_apply.install_bottom(Eager())
