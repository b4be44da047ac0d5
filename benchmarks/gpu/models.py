"""The GPU workloads, written once, over a small set of operations that an adapter of each framework offers.

A model is a function of (F, p, *inputs): `F` an adapter (`frameworks.py`), `p` its parameters by name. Parameters are
float32; with ``dtype="bfloat16"`` products and convolutions take bfloat16 operands (and their activations stay so), while
normalizations' statistics, softmax and losses are float32: what is called automatic mixed precision.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["WORKLOADS", "Workload", "inputs_of", "parameters_of"]


@dataclass(frozen=True)
class Workload:
    """What is timed. `inputs`: a shape of normal numbers, or (number of classes, shape) of integers below it; `target`
    likewise, None for inference; `optimizer`: "sgd" (momentum 0.9) or "adam"."""

    model: Callable[..., Any]
    inputs: tuple[Any, ...]
    target: Any = None
    optimizer: str = ""
    dtype: str = "float32"
    sizes: dict[str, Any] = field(default_factory=dict)

    @property
    def train(self) -> bool:
        return self.target is not None


class Declared:
    """Parameters as a model asks for them: name -> (shape, kind), kinds being weight, bias, scale, mean, var and embedding."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[tuple[int, ...], str]] = {}

    def __call__(self, name: str, shape: tuple[int, ...], kind: str = "weight") -> None:
        self.found[name] = shape, kind


# -- what models declare, and what they compute

def _blocks(sizes: dict[str, Any]) -> Iterator[tuple[str, int, int, int]]:
    """(name, channels in, width, stride) of each bottleneck."""
    channels = 64
    for stage, count in enumerate(sizes["blocks"]):
        width = sizes["width"] << stage
        for k in range(count):
            yield f"stage{stage}.{k}", channels, width, 2 if stage and not k else 1
            channels = 4 * width


def _declare_normalized(p: Declared, name: str, cout: int, cin: int, k: int) -> None:
    p(f"{name}.weight", (cout, cin, k, k))
    for kind in ("scale", "bias", "mean", "var"):
        p(f"{name}.{kind}", (cout,), kind)


def declare_resnet(p: Declared, sizes: dict[str, Any]) -> None:
    _declare_normalized(p, "stem", 64, 3, 7)
    last = 64
    for name, cin, width, stride in _blocks(sizes):
        last = 4 * width
        _declare_normalized(p, f"{name}.reduce", width, cin, 1)
        _declare_normalized(p, f"{name}.spatial", width, width, 3)
        _declare_normalized(p, f"{name}.expand", last, width, 1)
        if stride > 1 or cin != last:
            _declare_normalized(p, f"{name}.shortcut", last, cin, 1)
    p("classes.weight", (sizes["classes"], last))
    p("classes.bias", (sizes["classes"],), "bias")


def resnet(F: Any, p: Any, sizes: dict[str, Any], x: Any) -> Any:
    """ResNet with bottlenecks (He et al. 2015; the stride in the 3x3 convolution)."""
    def layer(x: Any, name: str, stride: int, padding: int) -> Any:
        return F.batch_norm(F.convolution(x, p[f"{name}.weight"], stride, padding), p, name)

    x = F.max_pool(F.relu(layer(F.compute(x), "stem", 2, 3)), 3, 2, 1)
    for name, cin, width, stride in _blocks(sizes):
        y = F.relu(layer(x, f"{name}.reduce", 1, 0))
        y = F.relu(layer(y, f"{name}.spatial", stride, 1))
        y = layer(y, f"{name}.expand", 1, 0)
        x = F.relu(y + (layer(x, f"{name}.shortcut", stride, 0) if stride > 1 or cin != 4 * width else x))
    return F.linear(F.spatial_mean(x), p["classes.weight"], p["classes.bias"])


def declare_gpt(p: Declared, sizes: dict[str, Any]) -> None:
    d = sizes["width"]
    p("tokens", (sizes["vocabulary"], d), "embedding")
    p("positions", (sizes["length"], d), "embedding")
    for k in range(sizes["layers"]):
        for name, (m, n) in (("qkv", (3 * d, d)), ("out", (d, d)), ("up", (4 * d, d)), ("down", (d, 4 * d))):
            p(f"{k}.{name}.weight", (m, n))
            p(f"{k}.{name}.bias", (m,), "bias")
        for name in ("norm1", "norm2"):
            p(f"{k}.{name}.scale", (d,), "scale")
            p(f"{k}.{name}.bias", (d,), "bias")
    p("norm.scale", (d,), "scale")
    p("norm.bias", (d,), "bias")


def gpt(F: Any, p: Any, sizes: dict[str, Any], tokens: Any) -> Any:
    """A GPT-2 like decoder: pre-norm blocks, learned positions, the output tied to the embedding (Radford et al. 2019)."""
    def linear(x: Any, name: str) -> Any:
        return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    x = F.compute(F.embedding(tokens, p["tokens"]) + p["positions"])
    for k in range(sizes["layers"]):
        h = linear(F.layer_norm(x, p[f"{k}.norm1.scale"], p[f"{k}.norm1.bias"]), f"{k}.qkv")
        x = x + linear(F.causal_attention(h, sizes["heads"]), f"{k}.out")
        h = F.gelu(linear(F.layer_norm(x, p[f"{k}.norm2.scale"], p[f"{k}.norm2.bias"]), f"{k}.up"))
        x = x + linear(h, f"{k}.down")
    return F.linear(F.layer_norm(x, p["norm.scale"], p["norm.bias"]), p["tokens"], None)


def declare_lstm(p: Declared, sizes: dict[str, Any]) -> None:
    h = sizes["hidden"]
    for k in range(sizes["layers"]):
        p(f"{k}.input", (4 * h, sizes["features"] if k == 0 else h))
        p(f"{k}.hidden", (4 * h, h))
        p(f"{k}.input_bias", (4 * h,), "bias")
        p(f"{k}.hidden_bias", (4 * h,), "bias")
    p("classes.weight", (sizes["classes"], h))
    p("classes.bias", (sizes["classes"],), "bias")


def lstm(F: Any, p: Any, sizes: dict[str, Any], x: Any) -> Any:
    """Layers of LSTM over (time, batch, features), and a dense layer on each step."""
    for k in range(sizes["layers"]):
        x = F.lstm(x, p[f"{k}.input"], p[f"{k}.hidden"], p[f"{k}.input_bias"], p[f"{k}.hidden_bias"])
    return F.linear(x, p["classes.weight"], p["classes.bias"])


def nothing(p: Declared, sizes: dict[str, Any]) -> None:
    """No parameters."""


def gelu_chain(F: Any, p: Any, sizes: dict[str, Any], x: Any, y: Any) -> Any:
    """Elementwise: two arrays read, one written."""
    return F.gelu(x * y + x) * F.sigmoid(y) - x


def softmax(F: Any, p: Any, sizes: dict[str, Any], x: Any) -> Any:
    """Softmax along rows."""
    return F.softmax(x)


def declare_norm(p: Declared, sizes: dict[str, Any]) -> None:
    p("scale", (sizes["width"],), "scale")
    p("bias", (sizes["width"],), "bias")


def norm(F: Any, p: Any, sizes: dict[str, Any], x: Any) -> Any:
    """Layer normalization along rows."""
    return F.layer_norm(x, p["scale"], p["bias"])


DECLARE = {resnet: declare_resnet, gpt: declare_gpt, lstm: declare_lstm, gelu_chain: nothing, softmax: nothing,
           norm: declare_norm}

_RESNET50 = {"blocks": (3, 4, 6, 3), "width": 64, "classes": 1000}
_GPT2 = {"width": 768, "heads": 12, "layers": 12, "vocabulary": 50304, "length": 1024}
_LSTM = {"features": 512, "hidden": 1024, "layers": 2, "classes": 1000}


def _resnet50(batch: int, dtype: str = "float32", train: bool = False) -> Workload:
    target = (1000, (batch,)) if train else None
    return Workload(resnet, ((batch, 3, 224, 224),), target, "sgd" if train else "", dtype, _RESNET50)


def _gpt2(batch: int, dtype: str = "float32", train: bool = False) -> Workload:
    tokens = (50257, (batch, 1024))
    return Workload(gpt, (tokens,), tokens if train else None, "adam" if train else "", dtype, _GPT2)


def _lstm(batch: int, train: bool = False) -> Workload:
    return Workload(lstm, ((128, batch, 512),), (1000, (128, batch)) if train else None, "adam" if train else "", sizes=_LSTM)


WORKLOADS: dict[str, Workload] = {
    "gelu_chain": Workload(gelu_chain, ((16384, 4096), (16384, 4096))),
    "softmax": Workload(softmax, ((16384, 4096),)),
    "layer_norm": Workload(norm, ((16384, 4096),), sizes={"width": 4096}),
    "resnet50_b1": _resnet50(1), "resnet50_b64": _resnet50(64), "resnet50_b64_bf16": _resnet50(64, "bfloat16"),
    "resnet50_train_b64_bf16": _resnet50(64, "bfloat16", True), "resnet50_train_b64": _resnet50(64, train=True),
    "gpt2_b1": _gpt2(1), "gpt2_train_b8_bf16": _gpt2(8, "bfloat16", True), "gpt2_train_b8": _gpt2(8, train=True),
    "lstm_b1": _lstm(1), "lstm_b64": _lstm(64), "lstm_train_b64": _lstm(64, True),
}
"""What a GPU is timed with, in the order of their running."""

SMALL: dict[str, Workload] = {
    "gelu_chain": Workload(gelu_chain, ((64, 96), (64, 96))),
    "softmax": Workload(softmax, ((64, 96),)),
    "layer_norm": Workload(norm, ((64, 96),), sizes={"width": 96}),
    "resnet_train": Workload(resnet, ((2, 3, 32, 32),), (10, (2,)), "sgd",
                             sizes={"blocks": (1, 1), "width": 8, "classes": 10}),
    "gpt_train": Workload(gpt, ((50, (2, 16)),), (50, (2, 16)), "adam",
                          sizes={"width": 32, "heads": 2, "layers": 2, "vocabulary": 50, "length": 16}),
    "lstm_train": Workload(lstm, ((5, 3, 8),), (11, (5, 3)), "adam",
                           sizes={"features": 8, "hidden": 16, "layers": 2, "classes": 11}),
}
"""The same models, small: what frameworks must agree on before they are timed, on any device."""


def parameters_of(workload: Workload) -> dict[str, tuple[str, np.ndarray]]:
    """name -> (kind, float32 values): the same in every framework."""
    declared = Declared()
    DECLARE[workload.model](declared, workload.sizes)
    return {name: (kind, _values(name, shape, kind)) for name, (shape, kind) in declared.found.items()}


def _values(name: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if kind in ("scale", "var"):
        return random.uniform(0.8, 1.2, shape).astype(np.float32)
    if kind in ("bias", "mean"):
        return (0.02 * random.standard_normal(shape)).astype(np.float32)
    spread = 0.02 if kind == "embedding" else (2 / np.prod(shape[1:])) ** 0.5
    return (spread * random.standard_normal(shape, np.float32)).astype(np.float32)


def inputs_of(workload: Workload) -> tuple[list[np.ndarray], np.ndarray | None]:
    """The inputs, and the target if it trains: the same in every framework."""
    random = np.random.default_rng(1)

    def make(spec: Any) -> np.ndarray:
        if isinstance(spec[1], tuple):
            return random.integers(0, spec[0], spec[1]).astype(np.int32)
        return random.standard_normal(spec, np.float32)

    return [make(s) for s in workload.inputs], None if workload.target is None else make(workload.target)
