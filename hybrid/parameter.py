"""Parameter: a named weight of a Block, with one array and one gradient per device.

A size that is not known yet (0, -1 or None) is completed when the first batch passes: initialization is then
deferred until that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

import ndarray as nd
from ndarray import NDArray, autograd
from ndarray.apply import eagerly
from ndarray.array import wrap
from ndarray.dtypes import canonical

from . import initializer
from .epoch import raise_epoch

__all__ = ["Constant", "DeferredInitializationError", "Parameter", "ParameterDict"]

_GRAD_REQS = ("write", "add", "null")


class DeferredInitializationError(RuntimeError):
    """A parameter was read before its shape was known."""


def _known(shape: tuple[int, ...] | None) -> bool:
    return shape is not None and all(n > 0 for n in shape)


def _normalize(shape: Any) -> tuple[int, ...] | None:
    if shape is None:
        return None
    if isinstance(shape, int):
        shape = (shape,)
    return tuple(-1 if n is None or int(n) <= 0 else int(n) for n in shape)


def _device_list(device: Any, ctx: Any) -> list[Any]:
    device = ctx if device is None else device
    if device is None:
        return [nd.current_device()]
    devices = list(device) if isinstance(device, (list, tuple)) else [device]
    if len(set(devices)) != len(devices):
        raise ValueError(f"initialize: a device is named twice: {devices}")
    return devices


class Parameter:
    """A weight of a Block.

    name        "weight", "bias" ...; messages show the name it has in its network once that has been collected
    grad_req    "write" (each backward replaces the gradient), "add" (adds to it; call `zero_grad`), "null" (none)
    shape       a tuple; sizes 0, -1 or None are unknown until the first batch
    lr_mult, wd_mult  multiply the optimizer's learning rate and weight decay for this parameter
    init        its own initializer, which goes before the network's
    """

    def __init__(
        self,
        name: str = "weight",
        grad_req: str = "write",
        shape: Any = None,
        dtype: Any = "float32",
        lr_mult: float = 1.0,
        wd_mult: float = 1.0,
        init: Any = None,
        allow_deferred_init: bool = True,
        differentiable: bool = True,
        stype: str = "default",
        grad_stype: str = "default",
    ):
        if (stype, grad_stype) != ("default", "default"):
            raise NotImplementedError(
                f"Parameter {name!r}: sparse storage ({stype}, {grad_stype}) is not supported; use 'default'"
            )
        self.name = name
        self.path = ""  # its name in the network that collected it last, such as "0.weight"
        self.lr_mult = lr_mult
        self.wd_mult = wd_mult
        self.init = init
        self.allow_deferred_init = allow_deferred_init
        self._differentiable = differentiable
        self._shape = _normalize(shape)
        self._dtype = canonical(dtype)
        self._devices: list[Any] = []
        self._data: list[NDArray] | None = None
        self._deferred: tuple[Any, list[Any], Any, Any] | None = None
        self.generation = 0  # rises when the arrays are replaced by others: a trace that captured them is then void
        self._grad_req = "null"
        self.grad_req = grad_req

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.path or self.name} (shape={self.shape}, dtype={self._dtype.name})"

    # -- description

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape; -1 stands for a size that is not known yet. Writing it completes unknown sizes."""
        return self._shape

    @shape.setter
    def shape(self, shape: Any) -> None:
        new, old = _normalize(shape), self._shape
        if old is not None:
            fits = new is not None and len(new) == len(old) and all(b in (-1, a) or a == -1 for a, b in zip(new, old))
            if not fits:
                raise ValueError(
                    f"Parameter {self.path or self.name!r}: expected a shape that completes {old}, got {shape}; "
                    "the layer was made for, or first called with, another input size"
                )
            assert new is not None
            new = tuple(b if a == -1 else a for a, b in zip(new, old))
        self._shape = new

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the data; writing it is `cast`."""
        return self._dtype

    @dtype.setter
    def dtype(self, dtype: Any) -> None:
        self.cast(dtype)

    @property
    def grad_req(self) -> str:
        """How backward treats the gradient: "write", "add" or "null"."""
        return self._grad_req

    @grad_req.setter
    def grad_req(self, grad_req: str) -> None:
        if grad_req not in _GRAD_REQS:
            raise ValueError(f"Parameter {self.name!r}: grad_req must be one of {_GRAD_REQS}, got {grad_req!r}")
        grad_req = grad_req if self._differentiable else "null"
        if grad_req == self._grad_req:
            return
        self._grad_req = grad_req
        raise_epoch()
        if self._data is not None:
            self._attach_grad()

    # -- initialization

    def initialize(
        self,
        init: Any = None,
        device: Any = None,
        default_init: Any = None,
        force_reinit: bool = False,
        *,
        ctx: Any = None,
    ) -> None:
        """Make the arrays, or, where the shape is incomplete, note to do so at the first batch.

        `init` goes before the parameter's own initializer, which goes before `default_init`. `device` (or `ctx`) is a
        device or a list of them: each gets a copy. Without `force_reinit`, an initialized parameter is left alone.
        """
        if self._data is not None and not force_reinit:
            return
        devices = _device_list(device, ctx)
        if self._data is not None:
            self._data = None
        self._deferred = (init if init is not None else self.init, devices, default_init, None)
        if _known(self._shape):
            self._finish_deferred_init()
        elif not self.allow_deferred_init:
            self._deferred = None
            raise ValueError(
                f"Parameter {self.path or self.name!r}: can't initialize, its shape {self._shape} is incomplete"
            )

    def _finish_deferred_init(self) -> None:
        """Make the arrays if that was waiting for the shape."""
        if self._deferred is None:
            return
        if not _known(self._shape):
            raise DeferredInitializationError(
                f"Parameter {self.path or self.name!r}: its shape {self._shape} is still incomplete after the layer "
                "has seen an "
                "input; give in_units, in_channels or the like, or define infer_shape(self, *args) in the Block "
                "that owns it"
            )
        init, devices, default_init, data = self._deferred
        with eagerly(), autograd.pause():
            if data is None:
                data = nd.zeros(self._shape, dtype=self._dtype, device=devices[0])
                if init is not None:
                    initializer.create(init)._init_weight(self.path or self.name, data)
                else:
                    initializer.create(default_init)(self.path or self.name, data)
            self._set_arrays(
                [data if i == 0 and data.device == d else _copy_to(data, d) for i, d in enumerate(devices)]
            )
        self._deferred = None

    def _set_arrays(self, arrays: Sequence[NDArray]) -> None:
        self._data = list(arrays)
        self._devices = [a.device for a in arrays]
        self.generation += 1
        raise_epoch()
        self._attach_grad()

    def _attach_grad(self) -> None:
        assert self._data is not None
        for array in self._data:
            array.attach_grad(self._grad_req)

    @property
    def is_initialized(self) -> bool:
        """Whether the arrays exist."""
        return self._data is not None

    # -- access

    def _index(self, device: Any, what: str = "data") -> int:
        if self._data is None:
            name = self.path or self.name
            if self._deferred is not None:
                raise DeferredInitializationError(
                    f"Parameter {name!r}: its shape {self._shape} is known only after the first batch; pass one "
                    "through the "
                    "network first, or give in_units, in_channels or the like to its layer"
                )
            raise RuntimeError(
                f"Parameter {name!r} has not been initialized; call net.initialize() (or initialize() on it) first"
            )
        if device is None:
            if len(self._data) == 1:
                return 0
            device = nd.current_device()
        try:
            return self._devices.index(device)
        except ValueError:
            raise RuntimeError(
                f"Parameter {self.path or self.name!r} has no {what} on {device}; it was initialized on "
                f"{', '.join(map(str, self._devices))}. Move the input there, or call reset_device()"
            ) from None

    def data(self, device: Any = None, *, ctx: Any = None) -> NDArray:
        """The array on `device` (by default the only one, or that of the current device)."""
        return self._data[self._index(ctx if device is None else device)]  # type: ignore[index]

    def list_data(self) -> list[NDArray]:
        """The arrays on all devices."""
        self._index(self._devices[0] if self._devices else None)
        return list(self._data or ())

    def grad(self, device: Any = None, *, ctx: Any = None) -> NDArray:
        """The gradient on `device`. Raises RuntimeError where grad_req is "null"."""
        self._check_grad()
        return _grad(self.data(device, ctx=ctx))

    def list_grad(self) -> list[NDArray]:
        """The gradients on all devices."""
        self._check_grad()
        return [_grad(array) for array in self.list_data()]

    def _check_grad(self) -> None:
        if self._grad_req == "null":
            raise RuntimeError(f"Parameter {self.path or self.name!r} has no gradient because its grad_req is 'null'")

    def list_device(self) -> list[Any]:
        """The devices that it is, or will be, initialized on."""
        if self._data is None and self._deferred is not None:
            return list(self._deferred[1])
        self._index(self._devices[0] if self._devices else None)
        return list(self._devices)

    list_ctx = list_device

    def zero_grad(self) -> None:
        """Set the gradients on all devices to 0."""
        if self._grad_req != "null" and self._data is not None:
            with autograd.pause():
                for array in self._data:
                    _grad(array)[...] = 0

    def set_data(self, data: Any, copy: bool = True) -> None:
        """Write `data` (an array of the same shape) into the arrays of all devices; completes unknown sizes.

        With ``copy=False`` the memory of a NumPy array becomes the parameter's, if its dtype is the parameter's and it lies
        on the CPU in row-major order, so large weights are never held twice; the parameter need not be initialized before.
        Nobody may write to that memory in another way afterwards: what compiled functions keep of it would be out of date.
        """
        self.shape = tuple(data.shape)
        if not copy:
            self._adopt(data)
            return
        if self._data is None:
            if self._deferred is None:
                raise RuntimeError(f"Parameter {self.path or self.name!r}: call initialize() before set_data()")
            init, devices, default_init, _ = self._deferred
            with eagerly(), autograd.pause():
                data = nd.array(data, dtype=self._dtype, device=devices[0])
            self._deferred = (init, devices, default_init, data)
            self._finish_deferred_init()
            return
        with autograd.pause():
            data = data if isinstance(data, NDArray) else nd.array(data, dtype=self._dtype, device=self._devices[0])
            for array, device in zip(self._data, self._devices):
                array[...] = (data if data.device == device else data.to_device(device)).astype(self._dtype)

    def _adopt(self, data: Any) -> None:
        """Make the parameter's arrays anew, the first of them of the memory of `data` where that can be."""
        devices = self._devices if self._data is not None else self._deferred[1] if self._deferred else _device_list(None, None)
        with eagerly(), autograd.pause():
            first = nd.array(data, dtype=self._dtype, device=devices[0]) if not self._is_usable(data, devices[0]) else (
                wrap(data.view(), devices[0]))  # an object of its own: traces know arrays by it
            self._deferred = None
            self._set_arrays([first if i == 0 else _copy_to(first, d) for i, d in enumerate(devices)])

    def _is_usable(self, data: Any, device: Any) -> bool:
        """Whether memory can be the parameter's as it is."""
        if type(data) is not np.ndarray or data.dtype != self._dtype or device.kind != "cpu":
            return False
        return data.dtype.isnative and bool(data.flags.carray)

    def _check_fits(self, data: np.ndarray, cast_dtype: bool, where: str) -> None:
        """Raise ValueError unless a value read from `where` has this parameter's shape and dtype."""
        label = f"{where}: parameter {self.path or self.name!r}"
        if self._shape is not None and (
            len(self._shape) != data.ndim or any(a not in (-1, b) for a, b in zip(self._shape, data.shape))
        ):
            raise ValueError(f"{label} has shape {tuple(data.shape)} there, expected {self._shape}")
        if data.dtype != self._dtype and not cast_dtype:
            raise ValueError(
                f"{label} has dtype {data.dtype} there, expected {self._dtype}; pass cast_dtype=True to convert it"
            )

    def _load(self, data: np.ndarray, device: Any, copy: bool = True) -> None:
        """Take a value that fits, initializing on `device` if that has not happened. Without `copy`, a parameter that has no
        arrays yet may take over the memory of `data`."""
        if self._data is None and self._deferred is None:
            self._deferred = (None, _device_list(device, None), None, None)
        elif device is not None and set(_device_list(device, None)) != set(self.list_device()):
            self.reset_device(device)
        self.set_data(data, copy or self._data is not None)

    # -- changes

    def reset_device(self, device: Any = None, *, ctx: Any = None) -> None:
        """Move to other devices; each gets a copy of the first array."""
        devices = _device_list(device, ctx)
        if self._data is not None:
            with eagerly(), autograd.pause():
                self._set_arrays([_copy_to(self._data[0], d) for d in devices])
        elif self._deferred is not None:
            init, _, default_init, data = self._deferred
            self._deferred = (init, devices, default_init, data)
        else:
            raise RuntimeError(f"Parameter {self.path or self.name!r}: can't move it, it has not been initialized")

    reset_ctx = reset_device

    def cast(self, dtype: Any) -> None:
        """Change the dtype of data and gradient."""
        dtype = canonical(dtype)
        if dtype == self._dtype:
            return
        self._dtype = dtype
        raise_epoch()
        if self._data is not None:
            with eagerly(), autograd.pause():
                self._set_arrays([array.astype(dtype) for array in self._data])

    def _reduce(self) -> np.ndarray:
        """The value to be saved: that of the first device."""
        return np.array(self.list_data()[0].asnumpy())


class Constant(Parameter):
    """A parameter with a fixed value and no gradient: ``Constant(value)`` or ``Constant(name, value)``."""

    def __init__(self, name: Any, value: Any = None):
        if value is None:
            name, value = "const", name
        value = value.asnumpy() if isinstance(value, NDArray) else np.asarray(value)
        if value.dtype == np.float64:
            value = value.astype(np.float32)  # the default dtype, as for every parameter
        self.value = value
        super().__init__(
            name,
            grad_req="null",
            shape=value.shape,
            dtype=value.dtype,
            differentiable=False,
            init=initializer.Constant(value),
        )

    def _finish_deferred_init(self) -> None:
        if self._deferred is not None:
            with eagerly(), autograd.pause():
                self._set_arrays([nd.array(self.value, dtype=self._dtype, device=d) for d in self._deferred[1]])
            self._deferred = None

    def initialize(
        self,
        init: Any = None,
        device: Any = None,
        default_init: Any = None,
        force_reinit: bool = False,
        *,
        ctx: Any = None,
    ) -> None:
        """Make the arrays on the devices."""
        if self._data is None or force_reinit:
            self._deferred = (None, _device_list(device, ctx), None, None)
            self._finish_deferred_init()


class ParameterDict(dict[str, Parameter]):
    """Parameters by name, with the methods that act on all of them. Shared parameters are visited once."""

    def unique(self) -> Iterable[Parameter]:
        """The parameters, each once."""
        return {id(p): p for p in self.values()}.values()

    def initialize(self, init: Any = None, device: Any = None, force_reinit: bool = False, *, ctx: Any = None) -> None:
        """Initialize all that have no own initializer with `init`."""
        for p in self.unique():
            p.initialize(None, device, init, force_reinit, ctx=ctx)

    def zero_grad(self) -> None:
        """Set all gradients to 0."""
        for p in self.unique():
            p.zero_grad()

    def reset_device(self, device: Any = None, *, ctx: Any = None) -> None:
        """Move all to other devices."""
        for p in self.unique():
            p.reset_device(device, ctx=ctx)

    reset_ctx = reset_device

    def setattr(self, name: str, value: Any) -> None:
        """Set an attribute of all, such as grad_req or lr_mult."""
        for p in self.unique():
            setattr(p, name, value)

    def list_device(self) -> list[Any]:
        """The devices of all, in the order in which they come."""
        return list(dict.fromkeys(d for p in self.unique() for d in p.list_device()))

    list_ctx = list_device


class OwnParameters(dict[str, Parameter]):
    """The parameters that a Block itself owns. ``get(name, shape=..., ...)`` with any option makes and registers one,
    in the way of Gluon 1; without options it is dict's."""

    def __init__(self, register: Callable[[str, Parameter], None], shared: Mapping[str, Parameter] | None = None):
        super().__init__()
        self._register, self._shared = register, {k.rpartition(".")[2]: p for k, p in (shared or {}).items()}

    def get(self, name: str, default: Any = None, **options: Any) -> Any:
        """The parameter called `name`; made if it does not exist and options are given."""
        if name not in self and (options or name in self._shared):
            self._register(name, self._shared.get(name) or Parameter(name, **options))
        return super().get(name, default)

    def get_constant(self, name: str, value: Any) -> Parameter:
        """A new `Constant` called `name`."""
        self._register(name, Constant(name, value))
        return self[name]


def _grad(array: NDArray) -> NDArray:
    grad = array.grad
    assert grad is not None
    return grad


def _copy_to(array: NDArray, device: Any) -> NDArray:
    return array.copy() if array.device == device else array.to_device(device)
