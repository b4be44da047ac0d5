"""Gluon's autograd: a tape of operations, and gradients pulled back along it.

    with autograd.record():
        loss = f(x)
    loss.backward()

`record` pushes the tape on the interpreter stack. Above a tracer, the gradient becomes part of the traced graph.
`backward` frees every cotangent and every kept value as soon as it is consumed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np

from . import apply as _apply
from . import precision
from .apply import Frame, apply
from .array import NDArray, _twin, storage_of, wrap
from .device import Device, transfer
from .dims import Size
from .dtypes import is_inexact
from .op import OPS
from .tape import RECORDING, Entry, Leaf, Node, Tape, _barrier, _tape, add_node, describe, is_recording, keep, user_line

__all__ = [
    "Function", "Tape", "add_node", "backward", "checkpoint", "get_symbol", "grad", "is_recording", "is_training",
    "mark_variables", "pause", "predict_mode", "record", "set_is_training", "set_recording", "set_training", "sum_to",
    "train_mode",
]

_top = _apply._top
_training: ContextVar[bool] = ContextVar("training", default=False)
_REQUESTS = ("write", "add", "null")


# -- modes

def is_training() -> bool:
    """Whether layers such as dropout behave as in training."""
    return _training.get()


def set_training(is_train: bool) -> bool:
    """Set the training mode and return the one before."""
    before = _training.get()
    _training.set(bool(is_train))
    return before


set_is_training = set_training


def set_recording(is_record: bool) -> bool:
    """Start or stop recording, and return whether it was on."""
    before = is_recording()
    if bool(is_record) != before:
        _apply.switch(_recording_frame() if is_record else _paused_frame())
    return before


def _recording_frame() -> Frame:
    frame = _apply.current()
    if frame.interpreter is _barrier:
        frame = frame.below
    if frame is _apply._bottom:
        return RECORDING
    return frame if getattr(frame.interpreter, "recording", False) else Frame(_tape, frame)


def _paused_frame() -> Frame:
    frame = _unrecorded_frame()
    return Frame(_barrier, frame) if getattr(frame.interpreter, "recording", False) else frame


def _unrecorded_frame() -> Frame:
    frame = _apply.current()
    return frame.below if frame.interpreter is _tape else frame


class _Mode:
    """A context that switches recording and training (None: leave as it is); reusable as a decorator too."""

    __slots__ = ("_recording", "_tokens", "_train")

    def __init__(self, recording: bool | None, train: bool | None):
        self._recording, self._train = recording, train
        self._tokens: list[tuple] = []

    def __enter__(self) -> None:
        frame = mode = None
        if self._train is not None:
            mode = _training.set(self._train)
        if self._recording is not None:
            frame = _apply.switch(_recording_frame() if self._recording else _paused_frame())
        self._tokens.append((frame, mode))

    def __exit__(self, *_: object) -> None:
        frame, mode = self._tokens.pop()
        if frame is not None:
            _top.reset(frame)
        if mode is not None:
            _training.reset(mode)

    def __call__(self, function: Callable) -> Callable:
        from functools import wraps

        @wraps(function)
        def wrapped(*args: Any, **options: Any) -> Any:
            with _Mode(self._recording, self._train):
                return function(*args, **options)

        return wrapped


def record(train_mode: bool = True) -> _Mode:
    """``with record():`` records operations for `backward`, in training mode unless told otherwise."""
    return _Mode(True, train_mode)


def pause(train_mode: bool = False) -> _Mode:
    """``with pause():`` does not record, in prediction mode unless told otherwise."""
    return _Mode(False, train_mode)


def train_mode() -> _Mode:
    """``with train_mode():`` sets the training mode and leaves recording as it is."""
    return _Mode(None, True)


def predict_mode() -> _Mode:
    """``with predict_mode():`` sets the prediction mode and leaves recording as it is."""
    return _Mode(None, False)


class _Differentiating:
    """A context for pulling gradients back: recorded themselves with `create_graph`, else not."""

    __slots__ = ("_create_graph", "_policy", "_tokens", "_train")

    def __init__(self, create_graph: bool, train: bool):
        self._create_graph, self._train = create_graph, train

    def __enter__(self) -> None:
        frame = _recording_frame() if self._create_graph else _unrecorded_frame()
        self._policy = precision.without() if _apply.casting is not None else None
        self._tokens = _apply.switch(frame), _training.set(self._train)

    def __exit__(self, *_: object) -> None:
        token, mode = self._tokens
        if self._policy is not None:
            self._policy()
        _training.reset(mode)
        _top.reset(token)


# -- leaves

def attach(array: NDArray, request: str = "write", grad: NDArray | None = None) -> None:
    """Make the array a leaf whose gradient `backward` puts into `grad` (new zeros if None)."""
    if request not in _REQUESTS:
        raise ValueError(f"attach_grad: grad_req must be one of {', '.join(map(repr, _REQUESTS))}, got {request!r}")
    if not is_inexact(array.dtype) and request != "null":
        raise TypeError(f"attach_grad: an array of dtype {array.dtype} has no gradient; use a floating dtype")
    if request == "null":
        grad = None
    elif grad is None:
        from .creation import zeros

        with _Differentiating(False, is_training()):
            grad = zeros(array.shape, dtype=array.dtype, device=array._device)
    array._node = (Leaf(grad, request, storage_of(array)), 0, -1)


def mark_variables(
    variables: NDArray | Sequence[NDArray], gradients: NDArray | Sequence[NDArray],
    grad_reqs: str | Sequence[str] = "write",
) -> None:
    """Let `backward` put the gradient of each variable into the array given for it."""
    if isinstance(variables, NDArray):
        variables = [variables]
    if isinstance(gradients, NDArray):
        gradients = [gradients]
    if isinstance(grad_reqs, str):
        grad_reqs = [grad_reqs] * len(variables)
    if not len(variables) == len(gradients) == len(grad_reqs):
        raise ValueError(
            f"mark_variables: {len(variables)} variables, {len(gradients)} gradients and {len(grad_reqs)} grad_reqs; "
            f"their numbers must agree"
        )
    for variable, gradient, request in zip(variables, gradients, grad_reqs):
        if (gradient.shape, gradient.dtype) != (variable.shape, variable.dtype):
            raise ValueError(
                f"mark_variables: the gradient is {describe(gradient)}, the variable {describe(variable)}"
            )
        attach(variable, request, gradient)


# -- pulling gradients back

def backward(
    heads: NDArray | Sequence[NDArray], head_grads: Any = None, retain_graph: bool = False, train_mode: bool = True,
) -> None:
    """Gradients of ``sum(head * head_grad)`` over all heads, put into the ``grad`` of every leaf they depend on.

    `head_grads` are arrays of the heads' shapes (None: ones). What was recorded is freed unless `retain_graph`.

    Raises RuntimeError for a head that was not recorded, and where a value that the gradient needs has been written.
    """
    heads, head_grads = _pairs("backward", heads, head_grads)
    _pull("backward", heads, head_grads, None, retain_graph, False, train_mode)


def grad(
    heads: NDArray | Sequence[NDArray], variables: NDArray | Sequence[NDArray], head_grads: Any = None,
    retain_graph: bool | None = None, create_graph: bool = False, train_mode: bool = True,
) -> Any:
    """The gradients of the heads with respect to `variables`, returned (an array for one variable, else a list).

    A variable is a leaf or any recorded array; ``.grad`` is not touched. With `create_graph` the result can be
    differentiated again. A variable on which no head depends gets zeros.
    """
    heads, head_grads = _pairs("grad", heads, head_grads)
    wanted = [variables] if isinstance(variables, NDArray) else list(variables)
    for i, v in enumerate(wanted):
        if v._node is None or (isinstance(v._node[0], Leaf) and v._node[0].request == "null"):
            raise ValueError(
                f"grad: variable {i} ({describe(v)}) is neither recorded nor has a gradient attached; "
                f"call attach_grad() on it before recording"
            )
    retain = create_graph if retain_graph is None else retain_graph
    entries = [v._node[:2] for v in wanted if v._node is not None]
    found = _pull("grad", heads, head_grads, entries, retain, create_graph, train_mode)
    out = []
    for v, g in zip(wanted, found):
        if g is None:
            from .creation import zeros

            g = zeros(v.shape, dtype=v.dtype, device=v._device)
        out.append(g)
    return out[0] if isinstance(variables, NDArray) else out


def _pairs(what: str, heads: Any, head_grads: Any) -> tuple[list, list]:
    if isinstance(heads, NDArray):
        heads = [heads]
    if isinstance(head_grads, NDArray):
        head_grads = [head_grads]
    heads = list(heads)
    head_grads = [None] * len(heads) if head_grads is None else list(head_grads)
    if len(heads) != len(head_grads):
        raise ValueError(f"{what}: {len(heads)} heads but {len(head_grads)} head_grads")
    if not heads:
        raise ValueError(f"{what}: no heads were given")
    for i, (head, g) in enumerate(zip(heads, head_grads)):
        if head._node is None:
            raise RuntimeError(
                f"{user_line()}: {what}: head {i} ({describe(head)}) was not recorded: compute it inside "
                f"`with autograd.record():` from an array on which attach_grad() was called (and not under pause())"
            )
        if g is not None and not same_shape(g.shape, head.shape):
            raise ValueError(f"{what}: head {i} has shape {head.shape}, its head_grad {g.shape}; they must be equal")
    return heads, head_grads


def _pull(
    what: str, heads: list, head_grads: list, variables: list | None, retain: bool, create: bool, train: bool,
    boundary: Collection = (),
) -> list:
    """Reverse accumulation in topological order: a node is processed when all its consumers have been. It ends at leaves and
    at the nodes in `boundary`."""
    from .elementwise import add

    roots = [h._node for h in heads]
    pending = _count_consumers(what, [r[0] for r in roots], boundary)
    useful = None if variables is None else _leading_to({v[0] for v in variables}, pending)
    cotangents: dict[Any, list] = {}
    captured: dict[tuple, Any] = {}
    written: list[NDArray] = []

    with _Differentiating(create, train):
        for head, root, g in zip(heads, roots, head_grads):
            g = _ones(head) if g is None else g.astype(head.dtype, copy=False)
            _add_to(cotangents, root, g, add)
        del head, g, heads, head_grads
        ready: list[Any] = [n for n in dict.fromkeys(r[0] for r in roots) if pending[n] == 0]
        while ready:
            node = ready.pop()
            gs = cotangents.pop(node, None)
            if gs is not None:
                if type(node) is Leaf:
                    if node.hooks:
                        gs = _hooked({0: node.hooks}, gs)
                elif node.step.hooks:
                    gs = _hooked(node.step.hooks, gs)
                if variables is not None:
                    for i, g in enumerate(gs):
                        captured[node, i] = g
            if node in boundary:
                continue
            if type(node) is Leaf:
                if gs is not None and variables is None:
                    _deliver(node, gs[0], written)
                continue
            inputs = node.inputs
            wanted = [e is not None and (useful is None or e[0] in useful) for e in inputs]
            if gs is not None and True in wanted:
                gradients = _pull_node(node, gs, wanted, create)
                shapes = node.shapes
                for i, want in enumerate(wanted):
                    if want and (g := gradients[i]) is not None:
                        shape = shapes[i]
                        data = g._data
                        if shape is not None and not (type(data) is np.ndarray and data.shape == shape):
                            g = sum_to(g, shape)
                        _add_to(cotangents, inputs[i], g, add)
                data = None
                gradients = ()
            gs = g = None
            for entry in inputs:
                if entry is not None:
                    below = entry[0]
                    pending[below] = left = pending[below] - 1
                    if left == 0:
                        ready.append(below)
            if not retain:
                node.release()
    return [captured.get(v) for v in variables or ()]


def _hooked(hooks: dict[int, dict[int, Callable]], gs: list) -> list:
    """The cotangents as the hooks of their arrays leave them."""
    gs = list(gs)
    for i, functions in hooks.items():
        for hook in list(functions.values()):
            g = gs[i]
            if g is None:
                break
            new = hook(g)
            if new is not None:
                if not isinstance(new, NDArray) or not same_shape(new.shape, g.shape) or new.dtype != g.dtype:
                    found = describe(new) if isinstance(new, NDArray) else type(new).__name__
                    raise ValueError(f"register_hook: the hook must return None or {describe(g)} (a new gradient), got {found}")
                gs[i] = new
    return gs


def _count_consumers(what: str, roots: Iterable, boundary: Collection = ()) -> dict[Any, int]:
    pending: dict[Any, int] = dict.fromkeys(roots, 0)
    stack = list(pending)
    while stack:
        node = stack.pop()
        if type(node) is Leaf or node in boundary:
            continue
        if node.released:
            raise RuntimeError(
                f"{user_line()}: {what}: what was recorded (up to {node.step.name}) has been freed by an earlier backward; "
                f"pass retain_graph=True to the earlier one, or record again"
            )
        for entry in node.inputs:
            if entry is not None:
                below = entry[0]
                if below not in pending:
                    pending[below] = 0
                    stack.append(below)
                pending[below] += 1
    return pending


def _leading_to(targets: set, nodes: Iterable) -> set:
    """Those of `nodes` from which a target can be reached, the targets included."""
    consumers: dict[Any, list] = {}
    for node in nodes:
        for entry in getattr(node, "inputs", ()):
            if entry is not None:
                consumers.setdefault(entry[0], []).append(node)
    found, stack = set(targets), list(targets)
    while stack:
        for node in consumers.get(stack.pop(), ()):
            if node not in found:
                found.add(node)
                stack.append(node)
    return found


def _pull_node(node: Node, gs: list, wanted: list, create: bool) -> Sequence:
    entries = tuple([(node, i, -1) for i in range(len(gs))]) if create else (None,) * len(gs)
    try:
        return node.step.pull(node, entries, gs, wanted)
    except Exception as error:
        error.add_note(f"in the gradient of {node.step.name}")
        raise


def _add_to(cotangents: dict[Any, list], entry: Entry, g: NDArray, add: Callable) -> None:
    node, index = entry[0], entry[1]
    slots = cotangents.get(node)
    if slots is None:
        if type(node) is Leaf or node.step.results == 1:
            cotangents[node] = [g]
            return
        slots = cotangents[node] = [None] * node.step.results
    slots[index] = g if slots[index] is None else add(slots[index], g)


def _deliver(leaf: Leaf, g: NDArray, written: list[NDArray]) -> None:
    """Put a gradient where the leaf wants it; `written` are the arrays that this backward has written by copying."""
    if leaf.request == "null" or leaf.grad is None:
        return
    target = leaf.grad
    data, new = target._data, g._data
    if leaf.request == "write" and _top.get() is None and type(data) is type(new) is np.ndarray:
        if data.shape == new.shape and data.dtype == new.dtype and g._device is target._device:
            if written and target._storage is not None:  # the same line writes them all
                target._storage.version += 1
                target._storage.writer = written[0]._storage.writer  # type: ignore[union-attr]
            else:
                target._touch()
            written.append(target)
            np.copyto(data, new)
            target._storage.finish_write()  # type: ignore[union-attr]
            return
    if g.dtype != target.dtype:
        g = g.astype(target.dtype)
    _apply.write(target, apply(OPS["add"], target, g) if leaf.request == "add" else g, ...)


def _ones(like: NDArray) -> NDArray:
    if type(like._data) is np.ndarray:
        return wrap(np.ones(like._data.shape, like._data.dtype), like._device)
    from .creation import ones

    return ones(like.shape, dtype=like.dtype, device=like._device)


def same_shape(a: tuple[Size, ...], b: tuple[Size, ...]) -> bool:
    """Whether two shapes are known to be equal; a symbolic size is not compared with a number (no guard)."""
    return len(a) == len(b) and all((type(x) is int) == (type(y) is int) and x == y for x, y in zip(a, b))


def sum_to(g: NDArray, shape: tuple[Size, ...]) -> NDArray:
    """`g` summed over the axes along which an array of `shape` was broadcast (and broadcast where it is smaller)."""
    have = g.shape
    if (type(g._data) is np.ndarray and have == shape) or same_shape(have, shape):
        return g
    lead = max(len(have) - len(shape), 0)
    offset = len(have) - len(shape)
    axes = list(range(lead))
    for i, want in enumerate(shape):
        j = i + offset
        if j >= 0 and type(want) is int and want == 1 and not (type(have[j]) is int and have[j] == 1):
            axes.append(j)
    if axes:
        g = apply(OPS["sum"], g, axes=tuple(axes), keepdims=True)
        if lead:
            g = apply(OPS["reshape"], g, shape=tuple(g.shape[lead:]))
    return g if same_shape(g.shape, shape) else apply(OPS["broadcast_to"], g, shape=tuple(shape))


# -- computing again instead of keeping

def checkpoint(function: Callable) -> Callable:
    """The function, of whose inside a recorded call keeps nothing: it is computed again when its gradient is wanted.

    Memory for time: of a chain of n layers only the values between checkpoints are kept. Works as a decorator too. Arguments
    and results may be nested in tuples, lists and dicts; weights and recorded arrays reached by closure get their gradients.
    Random numbers (dropout) are drawn again as they were; running statistics are updated once. Gradients of any order.

    In a traced function that records (a whole training step), what is computed again is a part of the program. A hybridized
    function called under ``record()`` decides itself what to keep: there, this is the function as it is.

    Raises RuntimeError in backward where an argument or a weight has been written in place in between.

    >>> import ndarray as nd
    >>> x = nd.array([0.5, 1.0])
    >>> x.attach_grad()
    >>> with nd.autograd.record():
    ...     y = nd.autograd.checkpoint(lambda v: nd.exp(v * v))(x)
    >>> y.backward()
    >>> nd.testing.assert_close(x.grad, 2 * x * nd.exp(x * x))
    """
    from .checkpoint import checkpointed

    return checkpointed(function)


# -- across devices

def move(array: NDArray, device: Device) -> NDArray:
    """A copy on another device through which gradients flow back."""
    data = array._concrete(f"to_device({device})")
    out = wrap(transfer(data, array._device, device), device)
    home = array._device
    add_node("to_device", (array,), (out,), lambda cotangents, wanted: [cotangents[0].to_device(home)])
    return out


# -- user-defined functions

class Function:
    """A function with a gradient of your own.

        class sigmoid(autograd.Function):
            def forward(self, x):
                y = 1 / (1 + nd.exp(-x))
                self.save_for_backward(y)
                return y

            def backward(self, dy):
                (y,) = self.saved_tensors
                return dy * y * (1 - y)

        y = sigmoid()(x)

    `forward` takes and returns arrays; `backward` takes one cotangent a result and returns one gradient an array
    argument (None where there is none). Neither is recorded, but for `backward` under ``grad(create_graph=True)``.
    """

    def __init__(self) -> None:
        self._saved: tuple[tuple[NDArray, int], ...] = ()

    def forward(self, *inputs: Any) -> Any:
        """The results."""
        raise NotImplementedError(f"{type(self).__name__}.forward is not defined")

    def backward(self, *output_grads: Any) -> Any:
        """The gradients of the array arguments."""
        raise NotImplementedError(f"{type(self).__name__}.backward is not defined")

    def save_for_backward(self, *arrays: NDArray) -> None:
        """Keep arrays for `backward`, which finds them in `saved_tensors`."""
        self._saved = tuple([(_twin(a), a._version) for a in arrays])

    @property
    def saved_tensors(self) -> tuple[NDArray, ...]:
        """What `save_for_backward` kept. Raises RuntimeError where one has been written since."""
        return tuple([keep(s, type(self).__name__, "a saved array") for s in self._saved])

    def __call__(self, *inputs: Any) -> Any:
        if _apply.is_tracing() and _caller_records():
            return _apply.capturing().function(self, inputs)
        arrays = [x for x in inputs if isinstance(x, NDArray)]
        with _Differentiating(False, is_training()):
            outputs = self.forward(*inputs)
        many = isinstance(outputs, (tuple, list))
        outs = tuple([_twin(o) for o in (outputs if many else (outputs,))])
        types = [(o.shape, o.dtype, o._device) for o in outs]
        count = len(arrays)
        add_node(type(self).__name__, arrays, outs, lambda cotangents, wanted: self._pull(cotangents, types, count))
        return type(outputs)(outs) if many else outs[0]

    def _pull(self, cotangents: list, types: list, count: int) -> list:
        from .creation import zeros

        gs = [
            zeros(shape, dtype=dtype, device=device) if g is None else g
            for g, (shape, dtype, device) in zip(cotangents, types)
        ]
        return self._gradients(gs, count)

    def _gradients(self, gs: list, count: int) -> list:
        found = self.backward(*gs)
        found = list(found) if isinstance(found, (tuple, list)) else [found]
        if len(found) != count:
            raise ValueError(
                f"{type(self).__name__}.backward returned {len(found)} gradients for {count} array arguments"
            )
        return found


def _caller_records() -> bool:
    """Whether the caller of the function being traced records."""
    frame: Frame | None = _apply.current()
    while frame is not None and getattr(frame.interpreter, "transparent", False):
        frame = frame.below
    return frame is not None and bool(getattr(frame.interpreter, "recording", False))


def get_symbol(x: NDArray) -> None:
    """Not available: there are no symbols. Trace the function with ``hybrid.trace`` to see its graph."""
    raise NotImplementedError("autograd.get_symbol: there are no symbols; trace the function with hybrid.trace instead")
