"""In which precision chosen operations compute: the rules of automatic mixed precision.

A `Policy` names operations that work in a narrow float type (products, convolutions) and others that work in float32
(exponentials, logarithms, sums); everything else computes in the widest type of its arguments, as always. `apply` asks the
policy in force before an operation runs, is recorded or is traced, so the casts are part of the program, and gradients flow
back through them. Gradient rules and replayed graphs, whose operations have their casts already, run without a policy.

`blocks.amp` is the user's side of this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import apply as _apply
from .array import NDArray
from .dtypes import float32, is_floating
from .op import OPS, Op

__all__ = ["FUNCTIONS", "TARGET_OPS", "WIDE_OPS", "Policy", "current", "in_target", "in_wide", "set_default", "use", "without"]

FUNCTIONS = frozenset({
    "fully_connected", "convolution", "deconvolution", "scaled_dot_product_attention", "lstm_layer", "gru_layer", "rnn_layer",
    "softmax", "log_softmax",
})
"""Functions of several primitives that cast all their arrays at once (a bias with the weight); the others go by primitive."""

TARGET_OPS = frozenset({
    "dot_general", "convolution", "convolution_data_gradient", "fully_connected", "deconvolution",
    "scaled_dot_product_attention", "lstm_layer", "gru_layer", "rnn_layer",
})
"""What computes in the target type unless a list says otherwise: what matrix units are fast at."""

WIDE_OPS = frozenset({
    "exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "power", "sum", "prod", "cumsum", "cumprod", "hypot", "tan", "sinh",
    "cosh", "arcsin", "arccos", "arcsinh", "arccosh", "arctanh", "softmax", "log_softmax",
})
"""What computes in float32 unless a list says otherwise: what overflows, or adds up many numbers."""


@dataclass(frozen=True)
class Policy:
    """Which operations compute in `target`, and which in float32 (float64 arrays are left alone).

    conditional  (operation, attribute, values): in float32 where the attribute has one of the values
    """

    target: np.dtype
    target_ops: frozenset[str] = TARGET_OPS
    wide_ops: frozenset[str] = WIDE_OPS
    conditional: tuple[tuple[str, str, tuple], ...] = ()

    def dtype_for(self, name: str, attrs: dict[str, Any]) -> np.dtype | None:
        """The type in which an operation computes; None: that of its arguments."""
        for op, attribute, values in self.conditional:
            if op == name and attrs.get(attribute) in values:
                return float32
        return self.target if name in self.target_ops else float32 if name in self.wide_ops else None


_default: Policy | None = None
_override: ContextVar[Any] = ContextVar("precision", default=False)  # False: the default counts


def current() -> Policy | None:
    """The policy in force."""
    found = _override.get()
    return _default if found is False else found


def set_default(policy: Policy | None) -> None:
    """Make `policy` (None: none) the one for all code outside of `use`, in all threads."""
    global _default
    _default = policy
    if policy is not None:
        _apply.set_casting(_cast)


@contextmanager
def use(policy: Policy | None) -> Iterator[None]:
    """Let `policy` (None: none) be in force in the block."""
    if policy is not None:
        _apply.set_casting(_cast)
    token = _override.set(policy)
    try:
        yield
    finally:
        _override.reset(token)


def without() -> Callable[[], None] | None:
    """Put the policy out of force; returns what puts it back, None where there was none."""
    if current() is None:
        return None
    token = _override.set(None)
    return lambda: _override.reset(token)


def _cast(op: Op, arrays: tuple, attrs: dict[str, Any]) -> tuple:
    """The arguments of an operation in the types that the policy in force wants."""
    policy = current()
    if policy is None:
        return arrays
    dtype = policy.dtype_for(op.name, attrs)
    return arrays if dtype is None else tuple([_to(a, dtype) for a in arrays])


def _to(x: Any, dtype: np.dtype) -> Any:
    if not isinstance(x, NDArray):
        return x
    have = x.dtype
    if have == dtype or not is_floating(have) or have.itemsize > 4:
        return x
    return _apply.apply(OPS["cast"], x, dtype=dtype)


def in_target(name: str, *arrays: Any) -> tuple:
    """The arrays (and None) in the type in which the function `name` is to compute; unchanged where no policy is in force."""
    policy = current() if _apply.casting is not None else None
    dtype = policy.dtype_for(name, {}) if policy is not None else None
    if dtype is None:
        return arrays
    return tuple([_to(a, dtype) for a in arrays])


def in_wide(x: Any) -> Any:
    """`x` in float32 where a policy is in force and its type is narrower."""
    return _to(x, float32) if _apply.casting is not None and current() is not None else x
