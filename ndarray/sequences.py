"""Functions of sequences of different lengths: the last step, reversal, and the CTC loss. (`sequence_mask`: manipulation.)"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .apply import apply
from .array import NDArray
from .control import foreach
from .creation import full, zeros
from .dims import Dim
from .elementwise import (
    add,
    equal,
    exp,
    greater,
    less,
    less_equal,
    log,
    logical_and,
    maximum,
    minimum,
    multiply,
    not_equal,
    stop_gradient,
    subtract,
    where,
)
from .manipulation import concatenate, expand_dims, reshape, squeeze, stack, swapaxes, take_along_axis
from .op import OPS
from .operands import as_array, as_floating, convert, integers
from .ops.base import differ
from .probabilities import log_softmax
from .reduction import max, min, sum

__all__ = ["ctc_loss", "sequence_last", "sequence_reverse"]

_INT = np.dtype(np.int32)


def _steps(count: Any, like: NDArray) -> NDArray:
    with like._device:
        return apply(OPS["iota"], shape=(count,), axis=0, dtype=_INT)


def _lengths(name: str, x: NDArray, lengths: Any, axis: int) -> NDArray:
    """How many steps of each sequence count, from 1 to all, as int32."""
    lengths = integers(name, as_array(name, "sequence_length", lengths), "sequence_length")
    if lengths.ndim != 1 or differ(lengths.shape[0], x.shape[1 - axis]):
        expected = f"shape ({x.shape[1 - axis]},) for x of shape {x.shape}"
        raise ValueError(f"{name}: sequence_length: expected {expected}, got {lengths.shape}")
    return minimum(maximum(convert(lengths, _INT), 1), x.shape[axis])


def _sequences(name: str, x: Any, axis: int) -> NDArray:
    x = as_array(name, "x", x)
    if axis not in (0, 1) or x.ndim < 2:
        raise ValueError(f"{name}: expected at least 2 axes and axis 0 or 1, got shape {x.shape}, axis {axis}")
    return x


def sequence_last(x: Any, /, sequence_length: Any = None, use_sequence_length: bool = True, axis: int = 0) -> NDArray:
    """The last step of each sequence: ``x[sequence_length[b] - 1, b]``, or the last of all without lengths.

    x: (T, N, ...), or (N, T, ...) with axis 1; sequence_length: (N,), from 1 to T; result: (N, ...).

    >>> import ndarray as nd
    >>> nd.sequence_last(nd.array([[1.0, 2.0], [3.0, 4.0]]), nd.array([1, 2])).tolist()
    [1.0, 4.0]
    """
    x = _sequences("sequence_last", x, axis)
    if sequence_length is None or not use_sequence_length:
        return x[-1] if axis == 0 else x[:, -1]
    last = subtract(_lengths("sequence_last", x, sequence_length, axis), 1)
    last = reshape(last, (1, -1) + (1,) * (x.ndim - 2) if axis == 0 else (-1, 1) + (1,) * (x.ndim - 2))
    return squeeze(take_along_axis(x, last, axis), axis)


def sequence_reverse(x: Any, /, sequence_length: Any = None, use_sequence_length: bool = True, axis: int = 0) -> NDArray:
    """The first ``sequence_length[b]`` steps of each sequence backwards, the rest as it is; all steps without lengths.

    x: (T, N, ...), or (N, T, ...) with axis 1; sequence_length: (N,), from 1 to T.

    >>> import ndarray as nd
    >>> nd.sequence_reverse(nd.array([[1.0], [2.0], [3.0]]), nd.array([2])).tolist()
    [[2.0], [1.0], [3.0]]
    """
    x = _sequences("sequence_reverse", x, axis)
    if sequence_length is None or not use_sequence_length:
        return x[::-1] if axis == 0 else x[:, ::-1]
    lengths = expand_dims(_lengths("sequence_reverse", x, sequence_length, axis), axis)
    step = expand_dims(_steps(x.shape[axis], x), 1 - axis)
    source = where(less(step, lengths), subtract(subtract(lengths, 1), step), step)
    return take_along_axis(x, reshape(source, x.shape[:2] + (1,) * (x.ndim - 2)), axis)


# -- CTC

def _log_sum(parts: list[NDArray]) -> NDArray:
    """``log(sum(exp(parts)))``; where all are -inf, -inf with gradient 0."""
    joined = stack(parts)
    top = stop_gradient(max(joined, 0))
    top = where(equal(top, -math.inf), 0, top)
    total = sum(exp(subtract(joined, top)), 0)
    some = greater(total, 0)
    return where(some, add(top, log(where(some, total, 1))), -math.inf)


def _given_lengths(argument: str, lengths: Any, count: Any, largest: Any) -> NDArray:
    lengths = integers("ctc_loss", as_array("ctc_loss", argument, lengths), argument)
    if lengths.ndim != 1 or differ(lengths.shape[0], count):
        raise ValueError(f"ctc_loss: {argument}: expected shape ({count},), got {lengths.shape}")
    return minimum(maximum(convert(lengths, _INT), 0), largest)


def ctc_loss(
    data: Any, label: Any, data_lengths: Any = None, label_lengths: Any = None, /, use_data_lengths: bool = False,
    use_label_lengths: bool = False, blank_label: str = "first", layout: str = "TNC",
) -> NDArray:
    """``-log P(label | data)`` of each sequence: the connectionist temporal classification loss (Graves et al., 2006).

    data           (T, N, C) scores before softmax ((N, T, C) with layout "NTC")
    label          (N, L) class numbers, integers (floating ones are rounded down)
    data_lengths   (N,): how many steps of each sequence count; all if None
    label_lengths  (N,): how many labels count; if None, those before the first padding: 0 for blank "first", -1 for "last"
    blank_label    "first": class 0 is the blank and labels are 1 to C-1; "last": class C-1 is it and labels are 0 to C-2

    Result: (N,), in data's dtype (half precision is computed in float32); inf where no alignment exists, with gradient 0.
    Differentiable with respect to `data`, to any order. Raises ValueError for shapes that do not fit.

    >>> import ndarray as nd
    >>> loss = nd.ctc_loss(nd.zeros((2, 1, 2)), nd.array([[1]]))  # 3 of the 4 paths of 2 steps spell "1"
    >>> round(loss.item(), 4)
    0.2877
    """
    data = as_floating("ctc_loss", data, "data")
    label = integers("ctc_loss", as_array("ctc_loss", "label", label), "label")
    if layout not in ("TNC", "NTC"):
        raise ValueError(f"ctc_loss: layout: expected 'TNC' or 'NTC', got {layout!r}")
    if blank_label not in ("first", "last"):
        raise ValueError(f"ctc_loss: blank_label: expected 'first' or 'last', got {blank_label!r}")
    if data.ndim != 3 or label.ndim != 2:
        form = ", ".join(layout)
        raise ValueError(f"ctc_loss: expected data ({form}) and label (N, L), got shapes {data.shape} and {label.shape}")
    dtype = data.dtype
    if dtype.itemsize < 4:
        data = convert(data, np.dtype(np.float32))
    if layout == "NTC":
        data = swapaxes(data, 0, 1)
    steps, batch, classes = data.shape
    if differ(label.shape[0], batch):
        raise ValueError(f"ctc_loss: label: expected shape ({batch}, L) for data of shape {data.shape}, got {label.shape}")
    if not isinstance(steps, Dim) and steps == 0:
        raise ValueError(f"ctc_loss: data: expected at least one step, got shape {data.shape}")
    if (use_data_lengths and data_lengths is None) or (use_label_lengths and label_lengths is None):
        raise ValueError("ctc_loss: data_lengths, label_lengths: expected arrays where they are to be used, got None")
    blank, padding = (0, 0) if blank_label == "first" else (classes - 1, -1)
    label, count = convert(label, _INT), label.shape[1]
    if label_lengths is None:  # the labels before the first padding
        position = _steps(count, label)
        ends = zeros((batch,), dtype=_INT, device=label._device)
        if count:
            ends = min(where(equal(label, padding), position, count), 1)
    else:
        ends = _given_lengths("label_lengths", label_lengths, batch, count)

    # blank, label, blank, ..., label, blank: from each state one may stay, go one on, or skip a blank between two labels
    blanks = full((batch, count + 1), blank, dtype=_INT, device=label._device)
    if count:
        known = minimum(maximum(label, 0), classes - 1)
        woven = reshape(stack([blanks[:, :count], known], 2), (batch, 2 * count))
        states = concatenate([woven, blanks[:, :1]], 1)
    else:
        states = blanks
    width = 2 * count + 1
    before = concatenate([full((batch, 2), blank, dtype=_INT, device=label._device), states], 1)[:, :width]
    skips = logical_and(not_equal(states, blank), not_equal(states, before))
    scores = take_along_axis(log_softmax(data, -1), expand_dims(states, 0), 2)
    never = full((batch, 2), -math.inf, dtype=data.dtype, device=data._device)
    position = _steps(width, data)
    alpha = where(less_equal(position, 1), scores[0], -math.inf)
    ends_at = None if data_lengths is None else _given_lengths("data_lengths", data_lengths, batch, steps)
    if ends_at is not None:  # no step spells nothing
        alpha = where(expand_dims(greater(ends_at, 0), 1), alpha, where(equal(position, 0), 0.0, -math.inf))

    def step(now: list[NDArray], alpha: NDArray) -> tuple[list, NDArray]:
        score, t = now
        wide = concatenate([never, alpha], 1)
        arrived = _log_sum([alpha, wide[:, 1 : width + 1], where(skips, wide[:, :width], -math.inf)])
        following = add(arrived, score)
        return [], following if ends_at is None else where(expand_dims(less(t, ends_at), 1), following, alpha)

    _, alpha = foreach(step, [scores[1:], _steps(steps, data)[1:]], alpha)
    final = expand_dims(multiply(ends, 2), 1)
    whole = squeeze(take_along_axis(alpha, final, 1), 1)
    short = squeeze(take_along_axis(alpha, maximum(subtract(final, 1), 0), 1), 1)
    likelihood = _log_sum([whole, where(greater(ends, 0), short, -math.inf)])
    return convert(multiply(likelihood, -1), dtype)
