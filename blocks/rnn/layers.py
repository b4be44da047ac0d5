"""RNN, LSTM and GRU: stacks of recurrent layers over whole sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ndarray as nd
from hybrid.block import HybridBlock
from hybrid.parameter import Parameter
from ndarray import NDArray
from ndarray.dims import Size

__all__ = ["GRU", "LSTM", "RNN"]

_NAMES = ("i2h_weight", "h2h_weight", "i2h_bias", "h2h_bias")


class _RNNLayer(HybridBlock):
    """`num_layers` recurrent layers, in one or both directions, with dropout between them.

    Parameters are called ``l0_i2h_weight``, ``l0_h2h_weight``, ``l0_i2h_bias``, ``l0_h2h_bias``, then ``l1_...``; those
    of the backward direction ``r0_...``. `layout` says where time (T), batch (N) and channels (C) are: "TNC" or "NTC".
    """

    gates, states = 1, 1

    def __init__(
        self,
        hidden_size: int,
        num_layers: int = 1,
        layout: str = "TNC",
        dropout: float = 0.0,
        bidirectional: bool = False,
        input_size: int = 0,
        i2h_weight_initializer: Any = None,
        h2h_weight_initializer: Any = None,
        i2h_bias_initializer: Any = "zeros",
        h2h_bias_initializer: Any = "zeros",
        dtype: Any = "float32",
        projection_size: int | None = None,
        use_sequence_length: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        layer = type(self).__name__
        if layout not in ("TNC", "NTC"):
            raise ValueError(f"{layer}: layout must be 'TNC' or 'NTC', got {layout!r}")
        if projection_size is not None or use_sequence_length:
            raise NotImplementedError(
                f"{layer}: projection_size and use_sequence_length are not supported; unroll an {layer}Cell"
            )
        self._hidden_size, self._num_layers, self._layout = hidden_size, num_layers, layout
        self._dropout, self._directions, self._dtype = dropout, ("l", "r") if bidirectional else ("l",), dtype
        rows = self.gates * hidden_size
        for i in range(num_layers):
            inputs = hidden_size * len(self._directions) if i else input_size
            for d in self._directions:
                for name, shape, init in (
                    ("i2h_weight", (rows, inputs), i2h_weight_initializer),
                    ("h2h_weight", (rows, hidden_size), h2h_weight_initializer),
                    ("i2h_bias", (rows,), i2h_bias_initializer),
                    ("h2h_bias", (rows,), h2h_bias_initializer),
                ):
                    full = f"{d}{i}_{name}"
                    setattr(self, full, Parameter(full, shape=shape, dtype=dtype, init=init))

    def infer_shape(self, inputs: NDArray, *_: Any) -> None:
        """input_size from the inputs."""
        for d in self._directions:
            getattr(self, f"{d}0_i2h_weight").shape = (self.gates * self._hidden_size, int(inputs.shape[2]))

    def state_info(self, batch_size: Size = 0) -> list[dict[str, Any]]:
        """Shape and layout of each state."""
        shape = (self._num_layers * len(self._directions), batch_size, self._hidden_size)
        return [{"shape": shape, "__layout__": "LNC", "dtype": self._dtype} for _ in range(self.states)]

    def begin_state(self, batch_size: Size = 0, func: Callable = nd.zeros, **kwargs: Any) -> list[NDArray]:
        """The states before the first step, made by `func` (zeros)."""
        if "ctx" in kwargs:
            kwargs["device"] = kwargs.pop("ctx")
        return [func(info["shape"], **{"dtype": self._dtype, **kwargs}) for info in self.state_info(batch_size)]

    def forward(self, inputs: NDArray, states: Any = None, sequence_length: Any = None) -> Any:
        """The outputs of all steps, of the inputs' layout, with both directions' channels one behind the other.

        With `states` (an array for RNN and GRU, or a list: h of shape (layers * directions, N, hidden), for LSTM also c)
        it returns (outputs, new states as a list).
        """
        if sequence_length is not None:
            raise NotImplementedError(f"{type(self).__name__}: sequence_length is not supported; unroll a cell")
        x = nd.swapaxes(inputs, 0, 1) if self._layout == "NTC" else inputs
        given = None if states is None else [states] if isinstance(states, NDArray) else list(states)
        if given is not None:
            expected = self.state_info(x.shape[1])[0]["shape"]
            if len(given) != self.states or any(tuple(s.shape) != tuple(expected) for s in given):
                raise ValueError(
                    f"{type(self).__name__}: expected {self.states} states of shape {expected}, got "
                    f"{[tuple(s.shape) for s in given]}; use begin_state(batch_size)"
                )
        last: list[tuple[NDArray, ...]] = []
        device = inputs.device
        for i in range(self._num_layers):
            made: list[NDArray] = []
            for d in self._directions:
                weights = [getattr(self, f"{d}{i}_{n}").data(device) for n in _NAMES]
                begin = [s[len(last)] for s in given] if given is not None else []
                y, *new = self._layer(x, *weights, *begin, reverse=d == "r")
                made.append(y)
                last.append(tuple(new))
            x = made[0] if len(made) == 1 else nd.concatenate(made, axis=2)
            if self._dropout and i + 1 < self._num_layers:
                x = nd.dropout(x, self._dropout)
        outputs = nd.swapaxes(x, 0, 1) if self._layout == "NTC" else x
        if given is None:
            return outputs
        return outputs, [nd.stack(list(s)) for s in zip(*last)]

    def _layer(self, *args: Any, reverse: bool) -> Any:
        raise NotImplementedError

    def _extra_repr(self) -> str:
        shape = self.params["l0_i2h_weight"].shape
        text = f"{shape[1] if shape and shape[1] > 0 else None} -> {self._hidden_size}, {self._layout}"
        text += f", num_layers={self._num_layers}" if self._num_layers != 1 else ""
        text += f", dropout={self._dropout}" if self._dropout else ""
        return text + (", bidirectional" if len(self._directions) == 2 else "")


class RNN(_RNNLayer):
    """``h = activation(W_i x + b_i + W_h h + b_h)``, activation "relu" or "tanh" (Elman, 1990)."""

    def __init__(self, hidden_size: int, num_layers: int = 1, activation: str = "relu", *args: Any, **kwargs: Any):
        super().__init__(hidden_size, num_layers, *args, **kwargs)
        if activation not in ("relu", "tanh"):
            raise ValueError(f"RNN: activation must be 'relu' or 'tanh', got {activation!r}")
        self._activation = activation

    def _layer(self, *args: Any, reverse: bool) -> Any:
        return nd.rnn_layer(*args, activation=self._activation, reverse=reverse)


class LSTM(_RNNLayer):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997); see `ndarray.lstm_layer`. States: h and c."""

    gates, states = 4, 2

    def _layer(self, *args: Any, reverse: bool) -> Any:
        return nd.lstm_layer(*args, reverse=reverse)


class GRU(_RNNLayer):
    """Gated recurrent units (Cho et al., 2014); see `ndarray.gru_layer`."""

    gates = 3

    def _layer(self, *args: Any, reverse: bool) -> Any:
        return nd.gru_layer(*args, reverse=reverse)
