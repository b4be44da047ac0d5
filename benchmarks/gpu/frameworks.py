"""Adapters of the GPU workloads: this library, PyTorch (eager and compiled) and JAX.

``build(framework, workload, device) -> (step, wait, read)``: a step is a forward pass, or a whole training step returning the
loss; `wait(result)` returns when it is computed; `read(result)` gives it as float32 on the host.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from .models import Workload, inputs_of, parameters_of

__all__ = ["FRAMEWORKS", "build"]

LEARNING_RATE = {"sgd": 0.01, "adam": 1e-3}
Built = tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], np.ndarray]]


def build(framework: str, workload: Workload, device: str) -> Built:
    """Make a workload in a framework. `device`: "gpu" or "cpu" ("sim" for ours, too). Raises ImportError where the
    framework is missing."""
    return FRAMEWORKS[framework](workload, device)


# -- this library

def _ours(workload: Workload, device: str) -> Built:
    import ndarray as nd
    from blocks import HybridBlock, Parameter, Trainer, loss
    from hybrid import hybridize
    from ndarray import autograd
    from ndarray.device import device as find_device

    place = find_device(device)
    narrow = workload.dtype

    class Functions:
        relu, gelu, sigmoid, softmax = map(staticmethod, (nd.relu, nd.gelu, nd.sigmoid, nd.softmax))
        embedding = staticmethod(nd.embedding)

        @staticmethod
        def compute(x):
            return x.astype(narrow)

        @staticmethod
        def linear(x, w, b):
            b = None if b is None else b.astype(narrow)
            return nd.fully_connected(x.astype(narrow), w.astype(narrow), b, flatten=False)

        @staticmethod
        def convolution(x, w, stride, padding):
            return nd.convolution(x, w.astype(narrow), stride=stride, padding=padding)

        @staticmethod
        def batch_norm(x, p, name):
            scale, bias, mean, var = [p[f"{name}.{k}"] for k in ("scale", "bias", "mean", "var")]
            training = autograd.is_training()
            y, m, v = nd.batch_norm(x.astype("float32"), scale, bias, mean, var, use_global_stats=not training)
            if training:
                with autograd.pause(train_mode=True):
                    mean[...] = 0.9 * mean + 0.1 * m
                    var[...] = 0.9 * var + 0.1 * v
            return y.astype(narrow)

        @staticmethod
        def layer_norm(x, scale, bias):
            return nd.layer_norm(x.astype("float32"), scale, bias).astype(narrow)

        @staticmethod
        def max_pool(x, kernel, stride, padding):
            return nd.max_pool(x, kernel=(kernel, kernel), stride=stride, padding=padding)

        @staticmethod
        def spatial_mean(x):
            return nd.mean(x, axis=(2, 3))

        @staticmethod
        def causal_attention(qkv, heads):
            n, t, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
            q, k, v = nd.transpose(nd.reshape(qkv, (n, t, 3, heads, width // heads)), (2, 0, 3, 1, 4))
            y = nd.scaled_dot_product_attention(q, k, v, causal=True)
            return nd.reshape(nd.transpose(y, (0, 2, 1, 3)), (n, t, width))

        @staticmethod
        def lstm(x, wi, wh, bi, bh):
            return nd.lstm_layer(x, wi, wh, bi, bh)[0]

    class Net(HybridBlock):
        def __init__(self):
            super().__init__()
            self.names = tuple(parameters_of(workload))
            for name, (kind, values) in parameters_of(workload).items():
                trained = workload.train and kind not in ("mean", "var")
                parameter = Parameter(name, "write" if trained else "null", values.shape)
                parameter.initialize(init="zeros", device=place)
                parameter.set_data(nd.array(values, device=place))
                setattr(self, name.replace(".", "_"), parameter)

        def forward(self, *xs):
            p = {name: getattr(self, name.replace(".", "_")).data() for name in self.names}
            return workload.model(Functions, p, workload.sizes, *xs)

    net = Net()
    xs, target = inputs_of(workload)
    xs = [nd.array(x, device=place) for x in xs]
    wait = lambda y: y.wait_to_read()
    read = lambda y: np.asarray(y.asnumpy(), np.float32)
    if not workload.train:
        net.hybridize(static_alloc=True, static_shape=True)
        return lambda: net(*xs), wait, read

    options = {"learning_rate": LEARNING_RATE[workload.optimizer]}
    if workload.optimizer == "sgd":
        options["momentum"] = 0.9
    trainer = Trainer(net.collect_params(), workload.optimizer, options)
    loss_fn, labels = loss.SoftmaxCrossEntropyLoss(), nd.array(target, device=place)

    @hybridize(static_alloc=True, static_shape=True)
    def step(labels, *xs):
        with autograd.record():
            value = nd.mean(loss_fn(net(*xs).astype("float32"), labels))
        value.backward()
        trainer.step(1)
        return value

    return lambda: step(labels, *xs), wait, read


# -- PyTorch

def _torch(workload: Workload, device: str, compiled: bool = False) -> Built:
    import torch
    import torch.nn.functional as f

    place = torch.device("cuda" if device == "gpu" else "cpu")
    narrow = getattr(torch, workload.dtype)

    class Functions:
        relu, gelu, sigmoid, embedding = map(staticmethod, (f.relu, f.gelu, torch.sigmoid, f.embedding))

        @staticmethod
        def compute(x):
            return x.to(narrow)

        @staticmethod
        def softmax(x):
            return f.softmax(x, -1)

        @staticmethod
        def linear(x, w, b):
            return f.linear(x.to(narrow), w.to(narrow), None if b is None else b.to(narrow))

        @staticmethod
        def convolution(x, w, stride, padding):
            return f.conv2d(x, w.to(narrow), None, stride, padding)

        @staticmethod
        def batch_norm(x, p, name):
            scale, bias, mean, var = [p[f"{name}.{k}"] for k in ("scale", "bias", "mean", "var")]
            return f.batch_norm(x, mean, var, scale, bias, workload.train, 0.1, 1e-5)

        @staticmethod
        def layer_norm(x, scale, bias):
            return f.layer_norm(x.float(), scale.shape, scale, bias, 1e-5).to(narrow)

        @staticmethod
        def max_pool(x, kernel, stride, padding):
            return f.max_pool2d(x, kernel, stride, padding)

        @staticmethod
        def spatial_mean(x):
            return x.mean((2, 3))

        @staticmethod
        def causal_attention(qkv, heads):
            n, t, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
            q, k, v = qkv.view(n, t, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            return f.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(n, t, width)

        @staticmethod
        def lstm(x, wi, wh, bi, bh):
            zero = x.new_zeros(1, x.shape[1], wh.shape[1])
            return torch.lstm(x, (zero, zero), [wi, wh, bi, bh], True, 1, 0.0, workload.train, False, False)[0]

    def tensor(values: np.ndarray) -> torch.Tensor:
        moved = torch.from_numpy(values).to(place)
        return moved.to(memory_format=torch.channels_last) if moved.ndim == 4 else moved

    p = {}
    for name, (kind, values) in parameters_of(workload).items():
        p[name] = tensor(values).requires_grad_(workload.train and kind not in ("mean", "var"))
    xs, target = inputs_of(workload)
    xs = [tensor(x) for x in xs]
    forward = lambda *xs: workload.model(Functions, p, workload.sizes, *xs)
    wrap = torch.compile if compiled else lambda function: function
    if compiled:
        torch._dynamo.disallow_in_graph(torch.lstm)
    wait = lambda y: torch.cuda.synchronize() if place.type == "cuda" else None
    read = lambda y: y.detach().float().cpu().numpy()
    if not workload.train:
        call = wrap(forward)

        def infer():
            with torch.inference_mode():
                return call(*xs)

        return infer, wait, read

    trained = [a for a in p.values() if a.requires_grad]
    rate = LEARNING_RATE[workload.optimizer]
    optimizer = (torch.optim.SGD(trained, rate, 0.9, fused=True) if workload.optimizer == "sgd"
                 else torch.optim.Adam(trained, rate, fused=True))
    labels = torch.from_numpy(target).long().to(place).flatten()
    loss_of = wrap(lambda *xs: f.cross_entropy(forward(*xs).float().flatten(0, -2), labels))

    def step():
        optimizer.zero_grad()
        value = loss_of(*xs)
        value.backward()
        optimizer.step()
        return value.detach()

    return step, wait, read


def _torch_compile(workload: Workload, device: str) -> Built:
    return _torch(workload, device, compiled=True)


# -- JAX

def _jax(workload: Workload, device: str) -> Built:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # others are on the same GPU
    import jax
    import jax.numpy as jnp
    from jax import lax

    place = jax.devices("gpu" if device == "gpu" else "cpu")[0]
    narrow = jnp.dtype(workload.dtype)

    class Functions:
        relu, sigmoid = staticmethod(jax.nn.relu), staticmethod(jax.nn.sigmoid)

        def __init__(self):
            self.states = {}

        @staticmethod
        def compute(x):
            return x.astype(narrow)

        @staticmethod
        def gelu(x):
            return jax.nn.gelu(x, approximate=False)

        @staticmethod
        def softmax(x):
            return jax.nn.softmax(x, -1)

        @staticmethod
        def embedding(ids, table):
            return table[ids]

        @staticmethod
        def linear(x, w, b):
            y = x.astype(narrow) @ w.T.astype(narrow)
            return y if b is None else y + b.astype(narrow)

        @staticmethod
        def convolution(x, w, stride, padding):
            return lax.conv_general_dilated(x, w.astype(narrow), (stride, stride), [(padding, padding)] * 2,
                                            dimension_numbers=("NHWC", "OIHW", "NHWC"))

        def batch_norm(self, x, p, name):
            scale, bias, mean, var = [p[f"{name}.{k}"] for k in ("scale", "bias", "mean", "var")]
            wide = x.astype(jnp.float32)
            if workload.train:
                m, v = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
                self.states[f"{name}.mean"], self.states[f"{name}.var"] = 0.9 * mean + 0.1 * m, 0.9 * var + 0.1 * v
                mean, var = m, v
            return ((wide - mean) * (lax.rsqrt(var + 1e-5) * scale) + bias).astype(narrow)

        @staticmethod
        def layer_norm(x, scale, bias):
            wide = x.astype(jnp.float32)
            mean = wide.mean(-1, keepdims=True)
            return ((wide - mean) * lax.rsqrt(wide.var(-1, keepdims=True) + 1e-5) * scale + bias).astype(narrow)

        @staticmethod
        def max_pool(x, kernel, stride, padding):
            return lax.reduce_window(x, np.array(-np.inf, x.dtype), lax.max, (1, kernel, kernel, 1), (1, stride, stride, 1),
                                     ((0, 0), (padding, padding), (padding, padding), (0, 0)))

        @staticmethod
        def spatial_mean(x):
            return x.mean((1, 2))

        @staticmethod
        def causal_attention(qkv, heads):
            n, t, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
            q, k, v = jnp.moveaxis(qkv.reshape(n, t, 3, heads, width // heads), 2, 0)
            return jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(n, t, width)

        @staticmethod
        def lstm(x, wi, wh, bi, bh):
            rows = x @ wi.T + (bi + bh)

            def cell(carry, row):
                h, c = carry
                i, f, g, o = jnp.split(row + h @ wh.T, 4, -1)
                c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
                h = jax.nn.sigmoid(o) * jnp.tanh(c)
                return (h, c), h

            zero = jnp.zeros((x.shape[1], wh.shape[1]), x.dtype)
            return lax.scan(cell, (zero, zero), rows)[1]

    p = {name: jax.device_put(values, place) for name, (_, values) in parameters_of(workload).items()}
    fixed = {name for name, (kind, _) in parameters_of(workload).items() if kind in ("mean", "var")}
    xs, target = inputs_of(workload)
    xs = [jax.device_put(np.moveaxis(x, 1, -1) if x.ndim == 4 else x, place) for x in xs]
    wait = lambda y: y.block_until_ready()
    read = lambda y: np.asarray(y.astype(jnp.float32))
    if not workload.train:
        forward = jax.jit(lambda p, *xs: workload.model(Functions(), p, workload.sizes, *xs))
        return lambda: forward(p, *xs), wait, read

    labels = jax.device_put(target, place)
    rate = LEARNING_RATE[workload.optimizer]

    def loss_of(trained, rest, *xs):
        functions = Functions()
        scores = workload.model(functions, trained | rest, workload.sizes, *xs).astype(jnp.float32)
        picked = jnp.take_along_axis(jax.nn.log_softmax(scores), labels[..., None], -1)
        return -picked.mean(), functions.states

    def update(trained, rest, states, count, *xs):
        (value, new), gradients = jax.value_and_grad(loss_of, has_aux=True)(trained, rest, *xs)
        if workload.optimizer == "sgd":
            states = {k: (0.9 * states[k][0] + gradients[k],) for k in trained}
            trained = {k: trained[k] - rate * states[k][0] for k in trained}
        else:
            states = {k: (0.9 * states[k][0] + 0.1 * g, 0.999 * states[k][1] + 0.001 * g * g) for k, g in gradients.items()}
            c1, c2 = 1 - 0.9 ** count, 1 - 0.999 ** count
            trained = {k: trained[k] - rate * (states[k][0] / c1) / (jnp.sqrt(states[k][1] / c2) + 1e-8) for k in trained}
        return value, trained, rest | new, states

    call = jax.jit(update, donate_argnums=(0, 1, 2))
    trained = {k: v for k, v in p.items() if k not in fixed}
    rest = {k: p[k] for k in fixed}
    slots = 1 if workload.optimizer == "sgd" else 2
    states = {k: tuple(jnp.zeros_like(v) for _ in range(slots)) for k, v in trained.items()}
    held: list[Any] = [trained, rest, states, 0]

    def step():
        held[3] += 1
        value, held[0], held[1], held[2] = call(held[0], held[1], held[2], np.float32(held[3]), *xs)
        return value

    return step, wait, read


FRAMEWORKS: dict[str, Callable[[Workload, str], Built]] = {
    "ours": _ours, "torch": _torch, "torch_compile": _torch_compile, "jax": _jax,
}
