"""Initializers: how a parameter gets its first values. The base class, the registry, and the default.

Values are drawn from `nd.random`, so that ``nd.random.seed(n)`` reproduces them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import ndarray as nd
from ndarray import NDArray

__all__ = ["Constant", "Initializer", "Normal", "One", "Uniform", "Zero", "create", "register"]

_registry: dict[str, type[Initializer]] = {}
_aliases = {"zeros": "zero", "ones": "one", "gaussian": "normal"}
T = TypeVar("T", bound="type[Initializer]")


class Initializer:
    """Fills a new parameter's array.

    A subclass overrides ``_init_weight(name, array)``, which writes into `array` (``array[...] = values``). Calling
    an initializer that stands for a whole network also looks at the parameter's name: what ends in bias, beta,
    running_mean or moving_mean starts at 0; gamma, running_var and moving_var at 1; everything else is a weight.
    """

    def __init__(self, **config: Any):
        self._config = config

    def __call__(self, name: str, array: NDArray) -> None:
        """Fill `array`, choosing by the last part of `name`."""
        last = str(name).rpartition(".")[2]
        for endings, fill in _BY_NAME.items():
            if last.endswith(endings):
                fill(self, name, array)
                return
        self._init_weight(name, array)

    def _init_weight(self, name: str, array: NDArray) -> None:
        raise NotImplementedError(f"{type(self).__name__} must define _init_weight(self, name, array)")

    def _init_bias(self, name: str, array: NDArray) -> None:
        array[...] = 0

    def _init_one(self, name: str, array: NDArray) -> None:
        array[...] = 1

    def dumps(self) -> str:
        """Name and arguments as JSON: ``["xavier", {"magnitude": 3}]``."""
        return json.dumps([type(self).__name__.lower(), self._config])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self._config.items())})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._config == other._config

    __hash__ = None  # type: ignore[assignment]


_BY_NAME: dict[tuple[str, ...], Callable[[Initializer, str, NDArray], None]] = {
    ("bias", "beta", "running_mean", "moving_mean"): lambda self, name, array: self._init_bias(name, array),
    ("gamma", "running_var", "moving_var"): lambda self, name, array: self._init_one(name, array),
}


def register(cls: T) -> T:
    """Class decorator: make an initializer known by its lower-case name."""
    _registry[cls.__name__.lower()] = cls
    return cls


def create(init: Any, **config: Any) -> Initializer:
    """The initializer for a name (``"xavier"``), an instance, a class, a number (`Constant`), a function
    ``(name, array)``, or JSON as `Initializer.dumps` writes it. None gives the default, ``Uniform(0.07)``."""
    if init is None:
        return Uniform()
    if isinstance(init, Initializer):
        return init
    if isinstance(init, type) and issubclass(init, Initializer):
        return init(**config)
    if isinstance(init, (int, float)):
        return Constant(init)
    if isinstance(init, str):
        if init.startswith("["):
            name, config = json.loads(init)
            return create(name, **config)
        key = init.lower()
        key = _aliases.get(key, key)
        if key in _registry:
            return _registry[key](**config)
        raise ValueError(f"no initializer {init!r}; known: {', '.join(sorted(_registry))}")
    if callable(init):
        return _Function(init)
    raise TypeError(f"an initializer must be a name, an Initializer, a number or a function, got {type(init).__name__}")


class _Function(Initializer):
    def __init__(self, function: Callable[[str, NDArray], None]):
        super().__init__()
        self._function = function

    def _init_weight(self, name: str, array: NDArray) -> None:
        self._function(name, array)


@register
class Zero(Initializer):
    """0 everywhere."""

    def _init_weight(self, name: str, array: NDArray) -> None:
        array[...] = 0


@register
class One(Initializer):
    """1 everywhere."""

    def _init_weight(self, name: str, array: NDArray) -> None:
        array[...] = 1


@register
class Constant(Initializer):
    """`value` everywhere: a number, or an array that broadcasts to the parameter's shape."""

    def __init__(self, value: Any = 0):
        super().__init__(value=value)
        self.value = value

    def _init_weight(self, name: str, array: NDArray) -> None:
        value = self.value
        array[...] = value if isinstance(value, (int, float, NDArray)) else nd.array(value, dtype=array.dtype)

    def dumps(self) -> str:
        value = self.value if isinstance(self.value, (int, float)) else nd.array(self.value).asnumpy().tolist()
        return json.dumps(["constant", {"value": value}])


@register
class Uniform(Initializer):
    """Uniform in [-scale, scale)."""

    def __init__(self, scale: float = 0.07):
        super().__init__(scale=scale)
        self.scale = scale

    def _init_weight(self, name: str, array: NDArray) -> None:
        array[...] = nd.random.uniform(-self.scale, self.scale, array.shape, dtype=array.dtype, device=array.device)


@register
class Normal(Initializer):
    """Normal with mean 0 and standard deviation `sigma`."""

    def __init__(self, sigma: float = 0.01):
        super().__init__(sigma=sigma)
        self.sigma = sigma

    def _init_weight(self, name: str, array: NDArray) -> None:
        array[...] = nd.random.normal(0.0, self.sigma, array.shape, dtype=array.dtype, device=array.device)
