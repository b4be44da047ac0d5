"""Array functions in a hybridized function whose batch size varies: one trace with the first size, one with a symbolic
size, no more; values and gradients as eagerly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import ndarray as nd
from hybrid import CompiledFunction
from ndarray import autograd
from ndarray.testing import assert_close

rng = np.random.default_rng(0)
W = nd.array(rng.standard_normal((4, 3, 3, 3)), dtype="float32")
E = nd.array(rng.standard_normal((4, 5)), dtype="float32")
G = nd.array([1.0, 2.0, 3.0])

FUNCTIONS: dict[str, Callable] = {
    "softmax": nd.softmax, "log_softmax": lambda x: nd.log_softmax(x, axis=1), "mean": nd.mean, "mean_0": lambda x: nd.mean(x, 0),
    "var": lambda x: nd.var(x, (0, 2, 3), correction=1), "std": nd.std, "batch_norm": lambda x: nd.batch_norm(x, G, G)[0],
    "layer_norm": nd.layer_norm, "group_norm": lambda x: nd.group_norm(x, G, G, num_groups=3), "l2": nd.l2_normalization,
    "convolution": lambda x: nd.convolution(x, W, padding=1, stride=2), "max_pool": lambda x: nd.max_pool(x, 2),
    "avg_pool": lambda x: nd.avg_pool(x, 3, 2, 1, count_include_pad=False), "adaptive": lambda x: nd.adaptive_avg_pool(x, 2),
    "global": nd.global_avg_pool, "dense": lambda x: nd.fully_connected(x, nd.ones((7, 48))), "flatten": nd.batch_flatten,
    "reshape": lambda x: nd.reshape(x, (-1, 48)), "matmul": lambda x: nd.matmul(x, E), "pow": lambda x: nd.power(x, 3) + x**2,
    "batched": lambda x: nd.matmul(x, nd.swapaxes(x, -1, -2)), "sum": lambda x: nd.sum(x, 0), "max": lambda x: nd.max(x, 1),
    "tensordot": lambda x: nd.tensordot(x, x, ((0, 1), (0, 1))), "stack": lambda x: nd.stack([x, x], 1),
    "split": lambda x: nd.split(x, 3, 1)[1], "concatenate": lambda x: nd.concatenate([x, 2 * x], 0), "flip": nd.flip,
    "pad": lambda x: nd.pad(x, ((1, 0), (0, 0), (0, 1), (1, 1))), "tile": lambda x: nd.tile(x, (2, 1, 1, 1)),
    "repeat": lambda x: nd.repeat(x, 2, 0), "roll": lambda x: nd.roll(x, 1, 0), "tril": nd.tril,
    "diagonal": lambda x: nd.diagonal(x, 1, -2, -1),
    "pick": lambda x: nd.pick(x[:, :, 0, 0], nd.argmax(x[:, :, 0, 0], axis=1)), "norm": lambda x: nd.norm(x, axis=1),
    "take_along": lambda x: nd.take_along_axis(x, nd.argmax(x, axis=1, keepdims=True), 1), "cumsum": lambda x: nd.cumsum(x, 1),
    "one_hot": lambda x: nd.one_hot(nd.argmax(x[:, :, 0, 0], axis=1), 5) * nd.mean(x), "clip": lambda x: nd.clip(x, -1, 1),
    "masked": lambda x: nd.masked_softmax(x, x > 0), "where": lambda x: nd.where(x > 0, x, 0.5 * x), "gelu": nd.gelu,
    "expand": lambda x: nd.expand_dims(x, 1) + x[:, None],
    "broadcast": lambda x: nd.broadcast_to(nd.mean(x, (1, 2), keepdims=True), x.shape),
    "embedding": lambda x: nd.embedding(nd.argmax(x, axis=1), E) * nd.sum(x), "prod": lambda x: nd.prod(x, 1),
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_symbolic_batch(name: str) -> None:
    function = FUNCTIONS[name]
    hybrid = CompiledFunction(function, backend="interpreter")
    recorded = CompiledFunction(function, backend="interpreter")
    for n in (5, 6, 2, 9):
        data = rng.standard_normal((n, 3, 4, 4)).astype(np.float32)
        x, y = nd.array(data), nd.array(data)
        assert_close(hybrid(x), function(x), 3, name)
        x.attach_grad()
        y.attach_grad()
        with autograd.record():
            out, want = recorded(x), function(y)
        weights = nd.array(rng.standard_normal(want.shape), dtype="float32")
        out.backward(weights)
        want.backward(weights)
        assert_close(x.grad, y.grad, 10, f"gradient of {name}")
    assert hybrid.traces <= 2
    assert recorded.traces <= 2
