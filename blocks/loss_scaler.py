"""The scale of a loss whose gradients are float16: it adapts to what overflows.

Scale and counter are arrays, so that a training step that is one compiled program adapts it as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ndarray as nd
from hybrid.hybridize import CompiledFunction
from ndarray import NDArray, autograd
from ndarray.apply import eagerly, is_tracing

__all__ = ["LossScaler"]


class LossScaler:
    """A factor for losses that is halved (`factor`) where a gradient overflows, and doubled after `window` steps without.

    init_scale  the first scale (a power of 2 loses no bits)
    factor      what it is divided by after an overflow, and multiplied by after `window` good steps
    dynamic     False: the scale stays, and nothing looks for overflow
    smallest, largest  where the scale ends

    Micikevicius et al., "Mixed Precision Training", 2018.
    """

    def __init__(
        self, init_scale: float = 2.0**16, scale_factor: float = 2.0, scale_window: int = 2000, dynamic: bool = True,
        smallest: float = 1.0, largest: float = 2.0**24,
    ):
        if not init_scale > 0 or not scale_factor > 1 or scale_window < 1:
            raise ValueError(
                f"LossScaler: expected init_scale > 0, scale_factor > 1 and scale_window >= 1, got {init_scale}, {scale_factor} "
                f"and {scale_window}"
            )
        self.factor, self.window, self.dynamic = float(scale_factor), int(scale_window), bool(dynamic)
        self.smallest, self.largest = float(smallest), float(largest)
        self.is_one = not dynamic and init_scale == 1.0
        self._first = float(init_scale)
        self._state: tuple[NDArray, NDArray, NDArray] | None = None
        self._eager_skips = 0
        self._look = CompiledFunction(self._adapt, name="look_for_overflow")

    def __repr__(self) -> str:
        return f"LossScaler(scale={self.loss_scale}, dynamic={self.dynamic})"

    @property
    def loss_scale(self) -> float:
        """The present scale."""
        return self._first if self._state is None else float(self._state[0])

    @loss_scale.setter
    def loss_scale(self, value: float) -> None:
        if not value > 0:
            raise ValueError(f"LossScaler: loss_scale must be positive, got {value}")
        if self._state is None:
            self._first = float(value)
        else:
            with eagerly(), autograd.pause():
                self._state[0][...] = float(value)

    @property
    def skipped(self) -> int:
        """How many steps have been skipped."""
        return 0 if self._state is None else int(self._state[2])

    def skipped_in_programs(self) -> int:
        """How many of the skipped steps were parts of compiled programs, which count a step before they look."""
        return self.skipped - self._eager_skips

    def scale(self, device: Any) -> NDArray:
        """The present scale as a float32 number on a device."""
        scale = self._states(device)[0]
        return scale if scale.device == device else scale.to_device(device)

    def has_overflow(self, grads: Sequence[NDArray]) -> Any:
        """Whether a gradient holds an infinity or NaN; adapts the scale. A bool, in a trace an array."""
        if not self.dynamic:
            return False
        per_device: dict[Any, list[NDArray]] = {}
        for g in grads:
            per_device.setdefault(g.device, []).append(g)
        device = grads[0].device
        with autograd.pause():
            finite = None
            for where, some in per_device.items():
                flag = _all_finite(some) if is_tracing() else _finite(some)
                flag = flag if where == device else flag.to_device(device)
                finite = flag if finite is None else nd.logical_and(finite, flag)
            assert finite is not None
            states = self._states(device)
            if is_tracing():
                self._adapt(finite, *states)
                return nd.logical_not(finite)
            self._look(finite, *states)
            overflow = not bool(finite)
            self._eager_skips += overflow
            return overflow

    def _states(self, device: Any) -> tuple[NDArray, NDArray, NDArray]:
        """Scale, good steps since it changed, steps skipped."""
        if self._state is None:
            with eagerly(), autograd.pause(), device:
                self._state = (
                    nd.array(self._first, dtype="float32"), nd.array(0, dtype="int32"), nd.array(0, dtype="int32")
                )
        return self._state

    def _adapt(self, finite: NDArray, scale: NDArray, good: NDArray, skipped: NDArray) -> None:
        if finite.device != scale.device:
            finite = finite.to_device(scale.device)
        count = good + 1
        grown = count >= self.window
        larger = nd.where(grown, nd.minimum(scale * self.factor, self.largest), scale)
        smaller = nd.maximum(scale / self.factor, self.smallest)
        scale[...] = nd.where(finite, larger, smaller)
        good[...] = nd.where(nd.logical_or(grown, nd.logical_not(finite)), 0, count).astype("int32")
        skipped[...] = skipped + nd.logical_not(finite).astype("int32")

    # -- files

    def state(self) -> dict[str, float]:
        """Scale and counters as plain numbers."""
        good = 0 if self._state is None else int(self._state[1])
        return {"scale": self.loss_scale, "good": good, "skipped": self.skipped}

    def load_state(self, state: dict[str, float]) -> None:
        """Take what `state` gave."""
        scale, good, skipped = float(state["scale"]), int(state["good"]), int(state["skipped"])
        self.loss_scale = scale
        with eagerly(), autograd.pause():
            states = self._states(nd.current_device() if self._state is None else self._state[0].device)
            for array, value in zip(states, (scale, good, skipped)):
                array[...] = value
        self._eager_skips = skipped


def _all_finite(grads: Sequence[NDArray]) -> NDArray:
    finite = nd.all(nd.isfinite(grads[0]))
    for g in grads[1:]:
        finite = nd.logical_and(finite, nd.all(nd.isfinite(g)))
    return finite


_finite = CompiledFunction(_all_finite, name="all_finite")
