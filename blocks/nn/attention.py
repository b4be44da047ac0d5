"""Attention layers: (batch, positions, units)."""

from __future__ import annotations

from typing import Any

import ndarray as nd
from hybrid.block import HybridBlock
from ndarray import NDArray

from .activations import activate, check_activation
from .basic import Dense, Dropout
from .normalization import LayerNorm

__all__ = ["MultiHeadAttention", "PositionwiseFFN", "TransformerEncoderCell"]


class MultiHeadAttention(HybridBlock):
    """Scaled dot-product attention in `num_heads` subspaces (Vaswani et al., 2017).

    Queries, keys and values are projected to `units`, each head attends with its share of them, and the heads' results
    together are projected once more. Called with queries only, it attends to them (self-attention).

    units, num_heads    size of the result; heads, which must divide it
    dropout             share of attention weights dropped in training
    use_bias            whether the projections have biases
    causal              whether position i looks at positions up to i only
    """

    def __init__(
        self, units: int, num_heads: int, dropout: float = 0.0, use_bias: bool = True, causal: bool = False,
        weight_initializer: Any = None, bias_initializer: Any = "zeros", dtype: Any = "float32", **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if num_heads < 1 or units % num_heads:
            raise ValueError(f"MultiHeadAttention: units ({units}) must be a multiple of num_heads ({num_heads})")
        self._units, self._heads, self._dropout, self._causal = units, num_heads, dropout, causal

        def dense() -> Dense:
            return Dense(units, None, use_bias, False, dtype, weight_initializer, bias_initializer)

        self.query_proj, self.key_proj, self.value_proj, self.out_proj = dense(), dense(), dense(), dense()

    def _split(self, x: NDArray) -> NDArray:
        """(N, T, units) as (N, heads, T, units / heads)."""
        return nd.transpose(nd.reshape(x, (x.shape[0], x.shape[1], self._heads, self._units // self._heads)), (0, 2, 1, 3))

    def forward(self, query: NDArray, key: NDArray | None = None, value: NDArray | None = None, mask: Any = None) -> NDArray:
        """query: (N, L, ...), key and value: (N, S, ...); result: (N, L, units).

        `mask` (bool, true where a query may look, or floats to be added to the scores) is of shape (N, L, S), (L, S),
        or broadcasts to (N, heads, L, S).
        """
        key = query if key is None else key
        value = key if value is None else value
        if mask is not None and mask.ndim == 3:
            mask = nd.expand_dims(mask, 1)
        out = nd.scaled_dot_product_attention(
            self._split(self.query_proj(query)), self._split(self.key_proj(key)), self._split(self.value_proj(value)),
            mask=mask, causal=self._causal, dropout_p=self._dropout,
        )
        out = nd.transpose(out, (0, 2, 1, 3))
        return self.out_proj(nd.reshape(out, (out.shape[0], out.shape[1], self._units)))

    def _extra_repr(self) -> str:
        return f"{self._units}, heads={self._heads}, causal={self._causal}"


class PositionwiseFFN(HybridBlock):
    """Two dense layers with an activation between them, at each position on its own."""

    def __init__(
        self, units: int, hidden_size: int, activation: str = "relu", dropout: float = 0.0,
        weight_initializer: Any = None, bias_initializer: Any = "zeros", dtype: Any = "float32", **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._act_type = check_activation("PositionwiseFFN", activation)
        self.ffn_1 = Dense(hidden_size, None, True, False, dtype, weight_initializer, bias_initializer)
        self.ffn_2 = Dense(units, None, True, False, dtype, weight_initializer, bias_initializer)
        self.dropout = Dropout(dropout)

    def forward(self, x: NDArray) -> NDArray:
        """Shape (..., units)."""
        return self.ffn_2(self.dropout(activate(self.ffn_1(x), self._act_type)))


class TransformerEncoderCell(HybridBlock):
    """One layer of a transformer encoder: self-attention and a position-wise network, each with a residual connection.

    The normalization stands behind each sum, as in the paper, or before each part with `pre_norm`.
    """

    def __init__(
        self, units: int = 512, hidden_size: int = 2048, num_heads: int = 8, attention_dropout: float = 0.0,
        dropout: float = 0.0, layer_norm_eps: float = 1e-5, weight_initializer: Any = None,
        bias_initializer: Any = "zeros", activation: str = "relu", pre_norm: bool = False, causal: bool = False,
        dtype: Any = "float32", **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._pre_norm = pre_norm
        initializers = {"weight_initializer": weight_initializer, "bias_initializer": bias_initializer, "dtype": dtype}
        self.attention = MultiHeadAttention(units, num_heads, attention_dropout, causal=causal, **initializers)
        self.ffn = PositionwiseFFN(units, hidden_size, activation, dropout, **initializers)
        self.norm_1 = LayerNorm(epsilon=layer_norm_eps, dtype=dtype)
        self.norm_2 = LayerNorm(epsilon=layer_norm_eps, dtype=dtype)
        self.dropout = Dropout(dropout)

    def forward(self, x: NDArray, mask: Any = None) -> NDArray:
        """x: (N, T, units); mask as for `MultiHeadAttention`; result: (N, T, units)."""
        if self._pre_norm:
            x = x + self.dropout(self.attention(self.norm_1(x), None, None, mask))
            return x + self.dropout(self.ffn(self.norm_2(x)))
        x = self.norm_1(x + self.dropout(self.attention(x, None, None, mask)))
        return self.norm_2(x + self.dropout(self.ffn(x)))
