"""Recurrent layers as functions: one layer of an Elman network, an LSTM or a GRU over all steps of a sequence.

The input's part of all steps is one product. What is left in the loop over time is one product with the hidden state and
one elementwise expression a step. Gradients are written out: the loop back in time yields the gradients of the gates, from
which those of the weights are one product each, whatever the number of steps.

Sequences are (time, batch, features); weights and the order of gates are those of Gluon, cuDNN and PyTorch: LSTM input,
forget, cell, output; GRU reset, update, new.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .activations import relu, sigmoid
from .apply import is_tracing
from .array import NDArray
from .autograd import Function
from .control import foreach
from .creation import zeros
from .dims import Size
from .elementwise import add, greater, multiply, subtract, tanh, where
from .linear import matmul, tensordot
from .manipulation import concatenate, expand_dims, stack
from .neural import fully_connected
from .operands import as_array
from .precision import in_target
from .reduction import sum

__all__ = ["gru_layer", "lstm_layer", "rnn_layer"]


def lstm_layer(
    x: Any, i2h_weight: Any, h2h_weight: Any, i2h_bias: Any = None, h2h_bias: Any = None, h: Any = None, c: Any = None, /,
    reverse: bool = False,
) -> tuple[NDArray, NDArray, NDArray]:
    """(outputs of all steps, last h, last c) of an LSTM layer (Hochreiter and Schmidhuber, 1997).

    ``i, f, g, o = x[t] @ i2h_weight.T + i2h_bias + h @ h2h_weight.T + h2h_bias``
    ``c = sigmoid(f) * c + sigmoid(i) * tanh(g); h = sigmoid(o) * tanh(c)``

    x: (T, N, inputs); i2h_weight: (4H, inputs); h2h_weight: (4H, H); biases: (4H,); h and c, zeros if None: (N, H).
    With `reverse` the steps are taken from the last to the first; output t still belongs to x[t].

    >>> out, h, c = nd.lstm_layer(nd.ones((5, 2, 3)), nd.ones((16, 3)), nd.ones((16, 4)))
    >>> out.shape, h.shape, c.shape
    ((5, 2, 4), (2, 4), (2, 4))
    """
    x, i2h_weight, h2h_weight, i2h_bias, h2h_bias, h, c = in_target(
        "lstm_layer", x, i2h_weight, h2h_weight, i2h_bias, h2h_bias, h, c)
    x, wh, h = _arguments("lstm_layer", x, h2h_weight, h, 4)
    c = zeros(h.shape, dtype=h.dtype, device=h._device) if c is None else as_array("lstm_layer", "c", c)
    bias = i2h_bias if h2h_bias is None else h2h_bias if i2h_bias is None else add(i2h_bias, h2h_bias)
    xw = fully_connected(x, i2h_weight, bias, flatten=False)
    if not is_tracing():
        return _LSTM(reverse)(xw, wh, h, c)

    def step(a: NDArray, states: Any) -> tuple[NDArray, Any]:
        h, c = states
        i, f, g, o = _parts(add(fully_connected(h, wh), a), 4)
        c = add(multiply(sigmoid(f), c), multiply(sigmoid(i), tanh(g)))
        h = multiply(sigmoid(o), tanh(c))
        return h, (h, c)

    y, (h, c) = foreach(step, xw, (h, c), reverse)
    return y, h, c


def gru_layer(
    x: Any, i2h_weight: Any, h2h_weight: Any, i2h_bias: Any = None, h2h_bias: Any = None, h: Any = None, /,
    reverse: bool = False,
) -> tuple[NDArray, NDArray]:
    """(outputs of all steps, last h) of a GRU layer (Cho et al., 2014; reset after the product, as in cuDNN).

    ``a = x[t] @ i2h_weight.T + i2h_bias; b = h @ h2h_weight.T + h2h_bias``, each of three parts,
    ``r = sigmoid(a_r + b_r); z = sigmoid(a_z + b_z); h = (1 - z) * tanh(a_n + r * b_n) + z * h``

    x: (T, N, inputs); i2h_weight: (3H, inputs); h2h_weight: (3H, H); biases: (3H,); h, zeros if None: (N, H).

    >>> out, h = nd.gru_layer(nd.ones((5, 2, 3)), nd.ones((12, 3)), nd.ones((12, 4)))
    >>> out.shape, h.shape
    ((5, 2, 4), (2, 4))
    """
    x, i2h_weight, h2h_weight, i2h_bias, h2h_bias, h = in_target(
        "gru_layer", x, i2h_weight, h2h_weight, i2h_bias, h2h_bias, h)
    x, wh, h = _arguments("gru_layer", x, h2h_weight, h, 3)
    if h2h_bias is None:
        h2h_bias = zeros((wh.shape[0],), dtype=wh.dtype, device=wh._device)
    xw, bh = fully_connected(x, i2h_weight, i2h_bias, flatten=False), as_array("gru_layer", "b", h2h_bias)
    if not is_tracing():
        return _GRU(reverse)(xw, wh, bh, h)

    def step(a: NDArray, h: NDArray) -> tuple[NDArray, NDArray]:
        ar, az, an = _parts(a, 3)
        br, bz, bn = _parts(fully_connected(h, wh, bh), 3)
        r, z = sigmoid(add(ar, br)), sigmoid(add(az, bz))
        n = tanh(add(an, multiply(r, bn)))
        h = add(n, multiply(z, subtract(h, n)))
        return h, h

    return foreach(step, xw, h, reverse)


def rnn_layer(
    x: Any, i2h_weight: Any, h2h_weight: Any, i2h_bias: Any = None, h2h_bias: Any = None, h: Any = None, /,
    activation: str = "tanh", reverse: bool = False,
) -> tuple[NDArray, NDArray]:
    """(outputs of all steps, last h) of a simple recurrent layer (Elman, 1990).

    ``h = activation(x[t] @ i2h_weight.T + i2h_bias + h @ h2h_weight.T + h2h_bias)``, activation "tanh" or "relu".

    x: (T, N, inputs); i2h_weight: (H, inputs); h2h_weight: (H, H); biases: (H,); h, zeros if None: (N, H).

    >>> out, h = nd.rnn_layer(nd.ones((5, 2, 3)), nd.ones((4, 3)), nd.ones((4, 4)))
    >>> out.shape, h.shape
    ((5, 2, 4), (2, 4))
    """
    if activation not in ("tanh", "relu"):
        raise ValueError(f"rnn_layer: activation: expected 'tanh' or 'relu', got {activation!r}")
    x, i2h_weight, h2h_weight, i2h_bias, h2h_bias, h = in_target(
        "rnn_layer", x, i2h_weight, h2h_weight, i2h_bias, h2h_bias, h)
    x, wh, h = _arguments("rnn_layer", x, h2h_weight, h, 1)
    bias = i2h_bias if h2h_bias is None else h2h_bias if i2h_bias is None else add(i2h_bias, h2h_bias)
    xw = fully_connected(x, i2h_weight, bias, flatten=False)
    if not is_tracing():
        return _Simple(activation, reverse)(xw, wh, h)
    function = tanh if activation == "tanh" else relu

    def step(a: NDArray, h: NDArray) -> tuple[NDArray, NDArray]:
        h = function(add(fully_connected(h, wh), a))
        return h, h

    return foreach(step, xw, h, reverse)


def _arguments(name: str, x: Any, wh: Any, h: Any, gates: int) -> tuple[NDArray, NDArray, NDArray]:
    x, wh = as_array(name, "x", x), as_array(name, "h2h_weight", wh)
    if x.ndim != 3:
        raise ValueError(f"{name}: x: expected shape (time, batch, features), got {x.shape}")
    hidden = wh.shape[-1]
    if wh.ndim != 2 or wh.shape[0] != gates * hidden:
        raise ValueError(f"{name}: h2h_weight: expected shape ({gates}*H, H), got {wh.shape}")
    if h is None:
        h = zeros((x.shape[1], hidden), dtype=wh.dtype, device=wh._device)
    h = as_array(name, "h", h)
    if h.shape != (x.shape[1], hidden):
        raise ValueError(f"{name}: h: expected shape ({x.shape[1]}, {hidden}), got {h.shape}")
    return x, wh, h


def _parts(x: NDArray, count: int) -> list[NDArray]:
    """The last axis in `count` equal parts."""
    n = x.shape[-1] // count
    return [x[..., k * n : (k + 1) * n] for k in range(count)]


class _Layer(Function):
    """The loop over time of one layer. `steps` are the time steps in the order in which they are taken."""

    reverse = False

    def steps(self, count: Any) -> range:
        return range(int(count))[:: -1 if self.reverse else 1]

    def stacked(self, found: Sequence[NDArray], width: Size, h: NDArray) -> NDArray:
        """One array of what the steps have found, by time: of so many columns, and without rows where there was no step."""
        if not found:
            return zeros((0, h.shape[0], width), dtype=h.dtype, device=h._device)
        return stack(found[::-1] if self.reverse else found)

    def before(self, first: NDArray, outputs: NDArray) -> NDArray:
        """The hidden state before each step, by time."""
        if not outputs.shape[0]:
            return outputs
        start = expand_dims(first, 0)
        return concatenate([outputs[1:], start] if self.reverse else [start, outputs[:-1]])

    def weight_gradient(self, gates: NDArray, h: NDArray, y: NDArray) -> NDArray:
        """The gradient of the recurrent weights: a sum over time and batch of gates' gradients times states before."""
        return tensordot(gates, self.before(h, y), ((0, 1), (0, 1)))


class _LSTM(_Layer):
    def __init__(self, reverse: bool = False):
        super().__init__()
        self.reverse = reverse

    def forward(self, xw: NDArray, wh: NDArray, h: NDArray, c: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        self.start, self.weight, self.kept, outputs = h, wh, [], []
        for t in self.steps(xw.shape[0]):
            a, b, g, o = _parts(add(fully_connected(h, wh), xw[t]), 4)
            i, f, g, o = sigmoid(a), sigmoid(b), tanh(g), sigmoid(o)
            old, c = c, add(multiply(f, c), multiply(i, g))
            s = tanh(c)
            h = multiply(o, s)
            self.kept.append((i, f, g, o, s, old))
            outputs.append(h)
        self.outputs = self.stacked(outputs, h.shape[1], h)
        return self.outputs, h, c

    def backward(self, dy: NDArray, dh: NDArray, dc: NDArray) -> tuple:
        gates = []
        for t, (i, f, g, o, s, c) in zip(reversed(self.steps(dy.shape[0])), reversed(self.kept)):
            dh = add(dy[t], dh)
            dc = add(dc, multiply(multiply(dh, o), _tanh_slope(s)))
            d = concatenate([
                multiply(multiply(dc, g), _sigmoid_slope(i)), multiply(multiply(dc, c), _sigmoid_slope(f)),
                multiply(multiply(dc, i), _tanh_slope(g)), multiply(multiply(dh, s), _sigmoid_slope(o)),
            ], axis=-1)
            gates.append(d)
            dc = multiply(dc, f)
            dh = matmul(d, self.weight)
        dxw = self.stacked(gates[::-1], self.weight.shape[0], dh)
        return dxw, self.weight_gradient(dxw, self.start, self.outputs), dh, dc


class _GRU(_Layer):
    def __init__(self, reverse: bool = False):
        super().__init__()
        self.reverse = reverse

    def forward(self, xw: NDArray, wh: NDArray, bh: NDArray, h: NDArray) -> tuple[NDArray, NDArray]:
        self.start, self.weight, self.kept, outputs = h, wh, [], []
        for t in self.steps(xw.shape[0]):
            ar, az, an = _parts(xw[t], 3)
            br, bz, bn = _parts(fully_connected(h, wh, bh), 3)
            r, z = sigmoid(add(ar, br)), sigmoid(add(az, bz))
            n = tanh(add(an, multiply(r, bn)))
            old, h = h, add(n, multiply(z, subtract(h, n)))
            self.kept.append((r, z, n, bn, old))
            outputs.append(h)
        self.outputs = self.stacked(outputs, h.shape[1], h)
        return self.outputs, h

    def backward(self, dy: NDArray, dh: NDArray) -> tuple:
        inner, outer = [], []  # gradients of the hidden state's part of the gates, and of the input's
        for t, (r, z, n, b, h) in zip(reversed(self.steps(dy.shape[0])), reversed(self.kept)):
            dh = add(dy[t], dh)
            dn = multiply(multiply(dh, subtract(1, z)), _tanh_slope(n))
            dr = multiply(multiply(dn, b), _sigmoid_slope(r))
            dz = multiply(multiply(dh, subtract(h, n)), _sigmoid_slope(z))
            inner.append(concatenate([dr, dz, multiply(dn, r)], axis=-1))
            outer.append(concatenate([dr, dz, dn], axis=-1))
            dh = add(multiply(dh, z), matmul(inner[-1], self.weight))
        dxw, dhw = (self.stacked(d[::-1], self.weight.shape[0], dh) for d in (outer, inner))
        return dxw, self.weight_gradient(dhw, self.start, self.outputs), sum(dhw, (0, 1)), dh


class _Simple(_Layer):
    def __init__(self, activation: str = "tanh", reverse: bool = False):
        super().__init__()
        self.activation, self.reverse = activation, reverse

    def forward(self, xw: NDArray, wh: NDArray, h: NDArray) -> tuple[NDArray, NDArray]:
        function = tanh if self.activation == "tanh" else relu
        self.start, self.weight, outputs = h, wh, []
        for t in self.steps(xw.shape[0]):
            h = function(add(fully_connected(h, wh), xw[t]))
            outputs.append(h)
        self.outputs = self.stacked(outputs, h.shape[1], h)
        return self.outputs, h

    def backward(self, dy: NDArray, dh: NDArray) -> tuple:
        y, gates = self.outputs, []
        for t in reversed(self.steps(dy.shape[0])):
            dh = add(dy[t], dh)
            d = multiply(dh, _tanh_slope(y[t])) if self.activation == "tanh" else where(greater(y[t], 0), dh, 0)
            gates.append(d)
            dh = matmul(d, self.weight)
        dxw = self.stacked(gates[::-1], self.weight.shape[0], dh)
        return dxw, self.weight_gradient(dxw, self.start, self.outputs), dh


def _sigmoid_slope(s: NDArray) -> NDArray:
    """The derivative of sigmoid where its value is s."""
    return multiply(s, subtract(1, s))


def _tanh_slope(t: NDArray) -> NDArray:
    """The derivative of tanh where its value is t."""
    return subtract(1, multiply(t, t))
