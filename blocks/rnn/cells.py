"""Recurrent cells: one step at a time, or unrolled over a sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ndarray as nd
from hybrid.block import Block, HybridBlock
from hybrid.parameter import Parameter
from ndarray import NDArray
from ndarray.apply import is_tracing
from ndarray.dims import Size

from ..nn.activations import activate, check_activation

__all__ = [
    "BidirectionalCell",
    "DropoutCell",
    "GRUCell",
    "HybridRecurrentCell",
    "HybridSequentialRNNCell",
    "LSTMCell",
    "RNNCell",
    "RecurrentCell",
    "ResidualCell",
    "SequentialRNNCell",
]


class RecurrentCell(HybridBlock):
    """Base class: ``cell(inputs, states) -> (output, new states)`` for one step of shape (N, C)."""

    def reset(self) -> None:
        """Forget what is kept between steps; nothing in these cells."""

    def state_info(self, batch_size: Size = 0) -> list[dict[str, Any]]:
        """Shape and layout of each state."""
        raise NotImplementedError

    def begin_state(self, batch_size: Size = 0, func: Callable = nd.zeros, **kwargs: Any) -> list[NDArray]:
        """The states before the first step, made by `func` (zeros)."""
        if "ctx" in kwargs:
            kwargs["device"] = kwargs.pop("ctx")
        return [func(info["shape"], **kwargs) for info in self.state_info(batch_size)]

    def unroll(
        self, length: int, inputs: Any, begin_state: Sequence[NDArray] | None = None, layout: str = "NTC",
        merge_outputs: bool | None = None, valid_length: NDArray | None = None,
    ) -> tuple[Any, list[NDArray]]:
        """(outputs, last states) after `length` steps.

        inputs         an array of `layout` ("NTC" or "TNC"), or a list of (N, C) arrays
        merge_outputs  whether the outputs are one array of `layout`; else, and if None, a list (one array where
                       `valid_length` is given)
        valid_length   (N,): after so many steps a sample's outputs are 0 and its states stay
        """
        looped = isinstance(inputs, NDArray) and is_tracing() and self._stepwise() and length > 0
        if looped:
            return self._loop(length, inputs, begin_state, layout, merge_outputs, valid_length)
        steps, axis = _steps(type(self).__name__, length, inputs, layout)
        outputs, states = self._unroll(steps, self._begin(steps, begin_state), valid_length)
        return _merged(outputs, axis, merge_outputs, valid_length), states

    def _loop(
        self, length: int, inputs: NDArray, begin_state: Sequence[NDArray] | None, layout: str, merge: bool | None,
        valid_length: NDArray | None,
    ) -> tuple[Any, list[NDArray]]:
        """`unroll` in a trace: one loop in the compiled program."""
        axis = _time_axis(type(self).__name__, length, inputs, layout)
        x = inputs if axis == 0 else nd.swapaxes(inputs, 0, 1)
        begin = list(begin_state) if begin_state is not None else self._begin([x[0]], None)

        def step(data: Any, states: Any) -> tuple[NDArray, list[NDArray]]:
            out, new = self(data[0], states)
            if valid_length is not None:
                live = nd.reshape(valid_length > data[1], (-1, 1))
                out, new = nd.where(live, out, 0), [nd.where(live, n, s) for n, s in zip(new, states)]
            return out, list(new)

        outputs, states = nd.foreach(step, [x, nd.arange(length, dtype="int32", device=x.device)], begin)
        if merge or (merge is None and valid_length is not None):
            return outputs if axis == 0 else nd.swapaxes(outputs, 0, 1), states
        return [outputs[t] for t in range(length)], states

    def _stepwise(self) -> bool:
        """Whether the cell can take one step at a time."""
        return True

    def _begin(self, steps: Sequence[NDArray], begin_state: Sequence[NDArray] | None) -> list[NDArray]:
        if begin_state is not None:
            return list(begin_state)
        return self.begin_state(steps[0].shape[0], dtype=steps[0].dtype, device=steps[0].device)

    def _unroll(
        self, steps: Sequence[NDArray], states: list[NDArray], valid_length: NDArray | None, reverse: bool = False
    ) -> tuple[list[NDArray], list[NDArray]]:
        outputs: list[NDArray] = [None] * len(steps)  # type: ignore[list-item]
        for t in range(len(steps))[:: -1 if reverse else 1]:
            out, new = self(steps[t], states)
            if valid_length is not None:
                live = nd.reshape(valid_length > t, (-1, 1))
                out, new = nd.where(live, out, 0), [nd.where(live, n, s) for n, s in zip(new, states)]
            outputs[t], states = out, list(new)
        return outputs, states


HybridRecurrentCell = RecurrentCell


def _time_axis(name: str, length: int, inputs: Any, layout: str) -> int:
    if layout not in ("NTC", "TNC"):
        raise ValueError(f"{name}.unroll: layout must be 'NTC' or 'TNC', got {layout!r}")
    axis = layout.index("T")
    if isinstance(inputs, NDArray) and inputs.shape[axis] != length:
        raise ValueError(f"{name}.unroll: expected {length} steps along axis {axis}, got shape {tuple(inputs.shape)}")
    return axis


def _steps(name: str, length: int, inputs: Any, layout: str) -> tuple[list[NDArray], int]:
    axis = _time_axis(name, length, inputs, layout)
    if isinstance(inputs, NDArray):
        return [inputs[t] if axis == 0 else inputs[:, t] for t in range(length)], axis
    steps = list(inputs)
    if len(steps) != length:
        raise ValueError(f"{name}.unroll: expected {length} arrays, got {len(steps)}")
    return steps, axis


def _merged(outputs: list[NDArray], axis: int, merge: bool | None, valid_length: Any) -> Any:
    return nd.stack(outputs, axis=axis) if merge or (merge is None and valid_length is not None) else outputs


class _Cell(RecurrentCell):
    """A cell with weights: i2h_weight (gates * hidden, inputs), h2h_weight (gates * hidden, hidden) and two biases."""

    gates, states = 1, 1

    def __init__(
        self,
        hidden_size: int,
        i2h_weight_initializer: Any = None,
        h2h_weight_initializer: Any = None,
        i2h_bias_initializer: Any = "zeros",
        h2h_bias_initializer: Any = "zeros",
        input_size: int = 0,
        dtype: Any = "float32",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._hidden_size, self._input_size = hidden_size, input_size
        rows = self.gates * hidden_size
        self.i2h_weight = Parameter("i2h_weight", shape=(rows, input_size), dtype=dtype, init=i2h_weight_initializer)
        self.h2h_weight = Parameter("h2h_weight", shape=(rows, hidden_size), dtype=dtype, init=h2h_weight_initializer)
        self.i2h_bias = Parameter("i2h_bias", shape=(rows,), dtype=dtype, init=i2h_bias_initializer)
        self.h2h_bias = Parameter("h2h_bias", shape=(rows,), dtype=dtype, init=h2h_bias_initializer)

    def state_info(self, batch_size: Size = 0) -> list[dict[str, Any]]:
        """One or two states of shape (N, hidden)."""
        return [{"shape": (batch_size, self._hidden_size), "__layout__": "NC"} for _ in range(self.states)]

    def infer_shape(self, inputs: NDArray, *_: Any) -> None:
        """input_size from the inputs."""
        self.i2h_weight.shape = (self.gates * self._hidden_size, int(inputs.shape[-1]))

    def _products(self, x: NDArray, h: NDArray) -> tuple[NDArray, NDArray]:
        device = x.device
        return (
            nd.fully_connected(x, self.i2h_weight.data(device), self.i2h_bias.data(device)),
            nd.fully_connected(h, self.h2h_weight.data(device), self.h2h_bias.data(device)),
        )

    def _parts(self, x: NDArray) -> list[NDArray]:
        n = self._hidden_size
        return [x[:, k * n : (k + 1) * n] for k in range(self.gates)]

    def _extra_repr(self) -> str:
        shape = self.i2h_weight.shape
        return f"{shape[1] if shape and shape[1] > 0 else None} -> {self._hidden_size}"


class RNNCell(_Cell):
    """``h = activation(W_i x + b_i + W_h h + b_h)``."""

    def __init__(self, hidden_size: int, activation: str = "tanh", *args: Any, **kwargs: Any):
        super().__init__(hidden_size, *args, **kwargs)
        self._activation = check_activation("RNNCell", activation)

    def forward(self, inputs: NDArray, states: Any) -> tuple[NDArray, list[NDArray]]:
        """(output, [h])."""
        (h,) = states
        a, b = self._products(inputs, h)
        h = activate(a + b, self._activation)
        return h, [h]


class LSTMCell(_Cell):
    """One step of an LSTM; see `ndarray.lstm_layer` for the formulas."""

    gates, states = 4, 2

    def __init__(
        self, hidden_size: int, *args: Any, activation: str = "tanh", recurrent_activation: str = "sigmoid", **kwargs: Any
    ):
        super().__init__(hidden_size, *args, **kwargs)
        self._activation = check_activation("LSTMCell", activation)
        self._recurrent_activation = check_activation("LSTMCell", recurrent_activation)

    def forward(self, inputs: NDArray, states: Any) -> tuple[NDArray, list[NDArray]]:
        """(output, [h, c])."""
        h, c = states
        a, b = self._products(inputs, h)
        i, f, g, o = self._parts(a + b)
        i, f, o = (activate(p, self._recurrent_activation) for p in (i, f, o))
        c = f * c + i * activate(g, self._activation)
        h = o * activate(c, self._activation)
        return h, [h, c]


class GRUCell(_Cell):
    """One step of a GRU; see `ndarray.gru_layer` for the formulas."""

    gates = 3

    def __init__(
        self, hidden_size: int, *args: Any, activation: str = "tanh", recurrent_activation: str = "sigmoid", **kwargs: Any
    ):
        super().__init__(hidden_size, *args, **kwargs)
        self._activation = check_activation("GRUCell", activation)
        self._recurrent_activation = check_activation("GRUCell", recurrent_activation)

    def forward(self, inputs: NDArray, states: Any) -> tuple[NDArray, list[NDArray]]:
        """(output, [h])."""
        (h,) = states
        a, b = self._products(inputs, h)
        (ar, az, an), (br, bz, bn) = self._parts(a), self._parts(b)
        r, z = activate(ar + br, self._recurrent_activation), activate(az + bz, self._recurrent_activation)
        n = activate(an + r * bn, self._activation)
        h = (1 - z) * n + z * h
        return h, [h]


class SequentialRNNCell(RecurrentCell):
    """Cells one on top of the other; states are those of all cells in order."""

    def add(self, cell: Block) -> None:
        """Append a cell."""
        self.register_child(cell)

    def state_info(self, batch_size: Size = 0) -> list[dict[str, Any]]:
        """Those of all cells."""
        return [info for cell in self._children.values() for info in cell.state_info(batch_size)]  # type: ignore[attr-defined]

    def forward(self, inputs: NDArray, states: Any) -> tuple[NDArray, list[NDArray]]:
        """(output of the last cell, states)."""
        found: list[NDArray] = []
        for cell in self._children.values():
            count = len(cell.state_info())  # type: ignore[attr-defined]
            inputs, new = cell(inputs, list(states[len(found) : len(found) + count]))
            found += new
        return inputs, found

    def _stepwise(self) -> bool:
        return all(cell._stepwise() for cell in self._children.values())  # type: ignore[attr-defined]

    def _unroll(
        self, steps: Sequence[NDArray], states: list[NDArray], valid_length: NDArray | None, reverse: bool = False
    ) -> tuple[list[NDArray], list[NDArray]]:
        if self._stepwise():
            return super()._unroll(steps, states, valid_length, reverse)
        found: list[NDArray] = []
        for cell in self._children.values():  # each over the whole sequence
            count = len(cell.state_info())  # type: ignore[attr-defined]
            begin = list(states[len(found) : len(found) + count])
            steps, new = cell._unroll(steps, begin, valid_length, reverse)  # type: ignore[attr-defined]
            found += new
        return list(steps), found

    def __len__(self) -> int:
        return len(self._children)

    def __getitem__(self, i: int) -> Block:
        return list(self._children.values())[i]


HybridSequentialRNNCell = SequentialRNNCell


class DropoutCell(RecurrentCell):
    """Dropout on the inputs; no states."""

    def __init__(self, rate: float, axes: Sequence[int] = (), **kwargs: Any):
        super().__init__(**kwargs)
        self._rate, self._axes = rate, tuple(axes)

    def state_info(self, batch_size: Size = 0) -> list[dict[str, Any]]:
        """None."""
        return []

    def forward(self, inputs: NDArray, states: Any) -> tuple[NDArray, list[NDArray]]:
        """(inputs with dropout, states as they are)."""
        return nd.dropout(inputs, self._rate, axes=self._axes) if self._rate else inputs, list(states)


class ResidualCell(RecurrentCell):
    """A cell whose output has its input added."""

    def __init__(self, base_cell: RecurrentCell, **kwargs: Any):
        super().__init__(**kwargs)
        self.base_cell = base_cell

    def state_info(self, batch_size: Size = 0) -> list[dict[str, Any]]:
        """Those of the cell."""
        return self.base_cell.state_info(batch_size)

    def forward(self, inputs: NDArray, states: Any) -> tuple[NDArray, list[NDArray]]:
        """(output + inputs, states)."""
        out, states = self.base_cell(inputs, states)
        return out + inputs, states

    def _stepwise(self) -> bool:
        return self.base_cell._stepwise()

    def _unroll(
        self, steps: Sequence[NDArray], states: list[NDArray], valid_length: NDArray | None, reverse: bool = False
    ) -> tuple[list[NDArray], list[NDArray]]:
        if self._stepwise():
            return super()._unroll(steps, states, valid_length, reverse)
        outputs, states = self.base_cell._unroll(steps, states, valid_length, reverse)
        outputs = [out + x for out, x in zip(outputs, steps)]
        if valid_length is not None:
            outputs = [nd.where(nd.reshape(valid_length > t, (-1, 1)), out, 0) for t, out in enumerate(outputs)]
        return outputs, states


class BidirectionalCell(RecurrentCell):
    """Two cells, one running from the first step to the last, the other back; outputs one behind the other.

    It can be unrolled only. States: those of `l_cell`, then those of `r_cell`.
    """

    def __init__(self, l_cell: RecurrentCell, r_cell: RecurrentCell, **kwargs: Any):
        super().__init__(**kwargs)
        self.l_cell, self.r_cell = l_cell, r_cell

    def state_info(self, batch_size: Size = 0) -> list[dict[str, Any]]:
        """Those of both cells."""
        return self.l_cell.state_info(batch_size) + self.r_cell.state_info(batch_size)

    def forward(self, inputs: NDArray, states: Any) -> Any:
        """Not possible: the backward cell needs the whole sequence."""
        raise NotImplementedError("BidirectionalCell can't be stepped; use unroll")

    def _stepwise(self) -> bool:
        return False

    def _unroll(
        self, steps: Sequence[NDArray], states: list[NDArray], valid_length: NDArray | None, reverse: bool = False
    ) -> tuple[list[NDArray], list[NDArray]]:
        if reverse:
            raise NotImplementedError("BidirectionalCell can't be one direction of another one")
        count = len(self.l_cell.state_info())
        left, l_states = self.l_cell._unroll(steps, states[:count], valid_length)
        right, r_states = self.r_cell._unroll(steps, states[count:], valid_length, reverse=True)
        return [nd.concatenate([a, b], axis=-1) for a, b in zip(left, right)], l_states + r_states
