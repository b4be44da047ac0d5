"""Convolutions and attention by cuDNN, through the graph interface of nvidia-cudnn-frontend.

A step for given sizes is one cuDNN graph, whose plan is chosen when the step is bound (which needs the GPU); running it hands
over addresses and a workspace, and allocates nothing. Plans are kept by step and sizes. The interface imports without a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from ndarray.dims import product

from . import library_attention, library_convolution

__all__ = ["CudnnStep", "bind", "build_graph", "load"]

OLDEST, NEWEST = (1, 22), (1, 29)
"""Versions of the front end: from `OLDEST` on, below `NEWEST`."""

KEPT = 1024
"""Plans that are remembered."""

_lock = threading.Lock()
_running = threading.Lock()  # a handle has one stream at a time
_handles: dict[int, Any] = {}
_plans: dict[Any, Any] = {}


def load() -> Any:
    """The module. Raises ImportError where it, or cuDNN itself, can't be loaded or has another version."""
    import cudnn

    version = tuple(int(n) for n in cudnn.__version__.split(".")[:2])
    if not OLDEST <= version < NEWEST:
        wanted = f"at least {'.'.join(map(str, OLDEST))} and below {'.'.join(map(str, NEWEST))}"
        raise ImportError(f"nvidia-cudnn-frontend {cudnn.__version__} is installed, but {wanted} is needed")
    try:
        cudnn.backend_version()
    except Exception as error:  # whatever the front end raises where there is no libcudnn
        raise ImportError(f"cuDNN can't be loaded ({error}); pip install nvidia-cudnn-cu13") from None
    return cudnn


def bind(step: dict[str, Any], arguments: Sequence[int], device: int) -> CudnnStep:
    """A convolution or attention for these arguments on a GPU, which must be the current one."""
    cudnn = load()
    key = (device, repr(sorted(step.items())), tuple(arguments))
    with _lock:
        found = _plans.get(key)
        if found is None:
            if device not in _handles:
                _handles[device] = cudnn.create_handle()
            if len(_plans) >= KEPT:
                _plans.clear()  # programs hold those that they use
            found = _plans[key] = CudnnStep(cudnn, step, arguments, _handles[device])
    return found


class CudnnStep:
    """A step with its plan; `workspace` is what the plan needs."""

    def __init__(self, cudnn: Any, step: dict[str, Any], arguments: Sequence[int], handle: Any):
        self.cudnn, self.handle = cudnn, handle
        self.graph, self.tensors, self.offsets = build_graph(cudnn, step, arguments, handle)
        self.names = [name for name, _ in step["buffers"]]
        choose_plan(cudnn, self.graph, ieee=step.get("precision") == "float32")
        self.workspace = int(self.graph.get_workspace_size())

    def run(self, words: Sequence[int], stream: int) -> None:
        """Enqueue it."""
        *buffers, workspace = words
        places = {self.tensors[name]: address + self.offsets[name] for name, address in zip(self.names, buffers)}
        with _running:
            self.cudnn.set_stream(handle=self.handle, stream=stream)
            self.graph.execute(places, workspace, handle=self.handle)


def choose_plan(cudnn: Any, graph: Any, ieee: bool) -> None:
    """The first plan that cuDNN recommends and that can be built; where `ieee`, without tensor cores, which would round float32
    to TF32."""
    graph.validate()
    graph.build_operation_graph()
    graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    if ieee:
        graph.deselect_numeric_notes([cudnn.numerical_note.TENSOR_CORE])
    graph.check_support()
    graph.build_plans()


def build_graph(
    cudnn: Any, step: dict[str, Any], arguments: Sequence[int], handle: Any
) -> tuple[Any, dict[str, Any], dict[str, int]]:
    """(cuDNN graph, {buffer name: its tensor}, {buffer name: bytes from the buffer's address to the tensor})."""
    kinds = {
        "float32": cudnn.data_type.FLOAT, "float16": cudnn.data_type.HALF, "bfloat16": cudnn.data_type.BFLOAT16,
    }
    dtypes = dict(step["buffers"])
    graph = cudnn.pygraph(
        io_data_type=kinds[dtypes[step["buffers"][0][0]]], intermediate_data_type=cudnn.data_type.FLOAT,
        compute_data_type=cudnn.data_type.FLOAT, handle=handle,
    )
    make = _convolution if step["kind"] == "convolution" else _attention
    tensors, offsets = make(graph, step, arguments, {name: kinds[d] for name, d in dtypes.items()})
    sizes = {"float32": 4, "float16": 2, "bfloat16": 2}
    return graph, tensors, {name: n * sizes[dtypes[name]] for name, n in offsets.items()}


def _tensor(graph: Any, name: str, shape: Sequence[int], strides: Sequence[int], kind: Any) -> Any:
    return graph.tensor(name=name, dim=list(shape), stride=list(strides), data_type=kind)


def _result(tensor: Any, shape: Sequence[int], strides: Sequence[int], kind: Any) -> Any:
    return tensor.set_output(True).set_dim(list(shape)).set_stride(list(strides)).set_data_type(kind)


def _convolution(
    graph: Any, step: dict[str, Any], arguments: Sequence[int], kinds: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, int]]:
    known, offsets = library_convolution.tensors(step, arguments)
    tensors = {n: _tensor(graph, n, *known[n], kinds[n]) for n, _ in step["buffers"][:2]}
    first, second = tensors.values()
    out = step["buffers"][-1][0]
    window = {
        "pre_padding": [a for a, _ in step["padding"]], "post_padding": [b for _, b in step["padding"]],
        "stride": list(step["stride"]), "dilation": list(step["dilation"]),
    }
    if step["direction"] == "forward":
        result = graph.conv_fprop(image=first, weight=second, **window)
    elif step["direction"] == "data":
        result = graph.conv_dgrad(loss=first, filter=second, **window)
    else:
        result = graph.conv_wgrad(image=first, loss=second, **window)
    shape, strides = known[out]
    if "residual" in kinds:
        tensors["residual"] = _tensor(graph, "residual", shape, strides, kinds["residual"])
        result = graph.add(a=result, b=tensors["residual"])
    if "bias" in kinds:
        channels = (1, shape[1], *(1,) * step["rank"])
        strides_of_bias = library_convolution.packed_strides(channels, step["last"])
        tensors["bias"] = _tensor(graph, "bias", channels, strides_of_bias, kinds["bias"])
        result = graph.bias(input=result, bias=tensors["bias"])
    if step["activation"]:
        result = graph.relu(input=result)
    tensors[out] = _result(result, shape, strides, kinds[out])
    return tensors, offsets


def _attention(
    graph: Any, step: dict[str, Any], arguments: Sequence[int], kinds: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, int]]:
    known, offsets = library_attention.tensors(step, arguments)
    assert all(product(shape) for shape, _ in known.values())
    tensors = {n: _tensor(graph, n, *known[n], kinds[n]) for n in "qkv"}
    result, _ = graph.sdpa(
        q=tensors["q"], k=tensors["k"], v=tensors["v"], attn_scale=step["scale"], use_causal_mask=step["causal"],
        generate_stats=False,
    )
    tensors["out"] = _result(result, *known["out"], kinds["out"])
    return tensors, offsets
