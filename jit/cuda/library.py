"""Which equations go to a library (cublasLt, cuDNN), and what such a step is in a recipe.

A *claim* is a product, convolution or attention together with the equations behind it that the library's epilogue computes;
it is one group of the fusion, which nothing else joins. Its launch has a `LibraryKernel` in place of a kernel: the step as
plain data, whose sizes, strides and offsets are the launch's arguments, so that symbolic sizes, the memory plan, loops and the
recipe treat it as any other launch. `jit.cuda.calls` runs it: on a GPU by the library, on ``sim(i)`` by NumPy.

Operands are read where they lie, at any strides that the library takes; else a generated kernel lays them out first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hybrid.graph import Atom, Equation, Graph, Value
from ndarray.dims import Size
from ndarray.dtypes import is_floating
from ndarray.op import OPS, Template
from ndarray.scalar import OPERATIONS

from ..launch import Launch, Storage
from ..loopir import Buffer
from ..nodes import Node, hint, nonnegative, same, same_sizes, strides_of, volume, walk
from ..pull import CHEAP, Pull, Scope, template_name

__all__ = ["Claim", "LibraryKernel", "Matched", "find_claims", "is_library", "strides_in"]

LEAST = 16
"""Rows, columns and depth from which on a product pays for a library call; below, a generated kernel has it."""

LONGEST = 48
"""Equations behind a template that are looked at for an epilogue."""

NARROW = ("float16", "bfloat16")


@dataclass(frozen=True)
class LibraryKernel:
    """A step of a library, in the place of a loop-IR kernel. `text` is JSON: what is computed, without sizes."""

    name: str
    text: str
    buffers: tuple[Buffer, ...]
    in_place: bool = False

    @cached_property
    def step(self) -> dict[str, Any]:
        """The step as data."""
        return json.loads(self.text)


def is_library(kernel: Any) -> bool:
    """Whether a launch's kernel is a library step."""
    return type(kernel) is LibraryKernel


@dataclass(frozen=True)
class Matched:
    """An epilogue: ``activation(alpha * result + residual + bias)``, rounded to the output's dtype.

    bias      node of what is added along the last (or channel) axis; residual: of what is added at the same position
    """

    alpha: float = 1.0
    bias: Node | None = None
    residual: Node | None = None
    activation: str = ""


@dataclass(eq=False)
class Claim:
    """Equations that a library step computes: `template` first, in graph order; `outputs` are the values that it stores."""

    template: Equation
    equations: tuple[Equation, ...]
    outputs: tuple[Value, ...]
    kind: str  # "product", "convolution", "attention", "attention_gradient"

    def nodes(self, pull: Pull) -> list[Node]:
        """What the step reads, as nodes whose loads are its reads."""
        scope = Scope(pull, ())
        found = [scope.element(a, pull.variables("i", a.shape)) for a in self.template.inputs if isinstance(a, Value)]
        if len(self.equations) > 1 and len(self.template.outputs) == 1:
            node = _epilogue_node(self, pull)
            own = self.template.outputs[0]
            found += [n for n in walk([node]) if n.op == "load" and n.args[0] is not own]
        return found


def strides_in(node: Node, index: Sequence[Node], pull: Pull) -> tuple[Value, Size, list[Size]] | None:
    """(stored value, offset, stride along each variable of `index`) of an element that is read as it lies; else None."""
    if node.op != "load" or not node.args[2]:
        return None
    terms, const = pull.arena.parts(node.args[1])
    if any(a.op != "var" for a in terms):
        return None
    return node.args[0], const, [terms.get(i, 0) if i.op == "var" else 0 for i in index]


def narrowed(node: Node) -> Node:
    """The element before it was widened from float16 or bfloat16 to float32; itself otherwise."""
    if node.op == "cast" and node.dtype == np.float32 and node.args[0].dtype.name in NARROW:
        return node.args[0]
    return node


# -- claiming


def find_claims(graph: Graph, pull: Pull, results: Collection[Value], libraries: Collection[str]) -> list[Claim]:
    """The library steps of a graph, in order. `results` must be stored as they are; `libraries` are those at hand.

    Marks in `pull` the values that are stored although they are cheap (rounded results).
    """
    uses: dict[Value, list[Equation]] = {}
    for eq in graph.equations:
        for a in dict.fromkeys(x for x in eq.inputs if isinstance(x, Value)):
            uses.setdefault(a, []).append(eq)
    position = {eq: k for k, eq in enumerate(graph.equations)}
    claims: list[Claim] = []
    taken: set[Equation] = set()
    for eq in graph.equations:
        if not isinstance(eq.op.lower, Template) or eq in taken:
            continue
        claim = _claim(eq, pull, results, uses, position, libraries, taken)
        if claim is not None:
            claims.append(claim)
            taken.update(claim.equations)
            pull.stored.update(v for v in claim.outputs if pull.producer[v].op.name in CHEAP)
    return claims


def _claim(
    eq: Equation, pull: Pull, results: Collection[Value], uses: Mapping[Value, list[Equation]],
    position: Mapping[Equation, int], libraries: Collection[str], taken: Collection[Equation],
) -> Claim | None:
    name = template_name(eq)
    if name == "dot_general" and "cublaslt" in libraries and _product_pays(eq):
        return _with_epilogue(Claim(eq, (eq,), eq.outputs, "product"), pull, results, uses, position, taken)
    if name.startswith("convolution") and "cudnn" in libraries:
        from .library_convolution import convolution_pays

        if convolution_pays(eq, pull):
            claim = Claim(eq, (eq,), eq.outputs, "convolution")
            return _with_epilogue(claim, pull, results, uses, position, taken)
    if name in ("attention", "attention_gradient") and "cudnn" in libraries:
        from .library_attention import attention_claim

        return attention_claim(eq, pull, results, uses)
    return None


def _product_pays(eq: Equation) -> bool:
    x, y = eq.inputs
    if not isinstance(x, Value) or not isinstance(y, Value) or not is_floating(eq.output.dtype):
        return False
    if any(type(n) is int and n == 0 for a in (x, y) for n in a.shape):
        return False
    return all(hint(n) >= LEAST for n in product_sizes(eq)[1:])


def product_sizes(eq: Equation) -> tuple[Size, Size, Size, Size]:
    """Batch, rows, columns and depth of a product."""
    (cx, cy), (bx, by) = eq.attrs["contract"], eq.attrs["batch"]
    x, y = (a.shape for a in eq.inputs)
    free = lambda shape, gone: volume(tuple(n for k, n in enumerate(shape) if k not in gone))
    return (
        volume(tuple(x[k] for k in bx)), free(x, (*cx, *bx)), free(y, (*cy, *by)), volume(tuple(x[k] for k in cx)),
    )


def _with_epilogue(
    claim: Claim, pull: Pull, results: Collection[Value], uses: Mapping[Value, list[Equation]],
    position: Mapping[Equation, int], taken: Collection[Equation],
) -> Claim:
    """The longest extension of a claim by equations behind it, not `taken` by another one, that the library computes as well."""
    best, members, made = claim, [claim.template], set(claim.template.outputs)
    while len(members) < LONGEST:
        inside = set(members)
        escaping = [v for v in made if v in results or not inside.issuperset(uses.get(v, ()))]
        if len(escaping) == 1 and len(members) > 1:
            candidate = Claim(claim.template, tuple(members), (escaping[0],), claim.kind)
            if _ends_well(candidate, pull) and match(candidate, pull) is not None:
                best = candidate
        if any(v in results for v in escaping):
            break
        behind = [u for v in escaping for u in uses.get(v, ()) if u not in inside]
        if not behind:
            break
        following = min(behind, key=position.__getitem__)
        if len(following.outputs) != 1 or isinstance(following.op.lower, Template) or "effect" in following.op.traits:
            break
        if following in taken:
            break
        members = sorted([*members, following], key=position.__getitem__)
        made.add(following.output)
    return best


def _ends_well(claim: Claim, pull: Pull) -> bool:
    """Whether the last value is worth storing: computed, or rounded to a narrower dtype."""
    last = pull.producer[claim.outputs[0]]
    if last.op.name not in CHEAP:
        return True
    return last.op.name == "cast" and last.output.dtype.itemsize < last.inputs[0].dtype.itemsize


def _epilogue_node(claim: Claim, pull: Pull) -> Node:
    result = claim.template.outputs[0]
    scope = Scope(pull, claim.equations, stored=lambda v: v is result)
    value = claim.outputs[0]
    return scope.element(value, pull.variables("i", value.shape))


def match(claim: Claim, pull: Pull) -> Matched | None:
    """The epilogue that the equations behind a claim's template are; None for any other."""
    result, value = claim.template.outputs[0], claim.outputs[0]
    if len(claim.equations) == 1:
        return Matched()
    if not same(volume(result.shape), volume(value.shape)) or not is_floating(value.dtype):
        return None
    index = pull.variables("i", value.shape)
    flat = pull.arena.flatten(index, value.shape)
    own = lambda n: n.op == "load" and n.args[0] is result
    if any(own(n) and n.args[1] is not flat for n in walk([_epilogue_node(claim, pull)])):
        return None
    channel = _channel_steps(claim, index, value)
    node, activation = _bare(_epilogue_node(claim, pull)), ""
    found = _linear(node, own, flat, channel, pull)
    if found is None:
        for inner in _arguments_of_activations(node, own):
            name = _named(node, inner)
            found = _linear(inner, own, flat, channel, pull) if name else None
            if found is not None:
                activation = name
                break
    if found is None:
        return None
    if claim.kind == "convolution":
        forward = template_name(claim.template) == "convolution"
        more = found.bias is not None or found.residual is not None or activation
        if found.alpha != 1.0 or activation == "gelu" or (more and not forward):
            return None
    if value.dtype == np.float64 and (found.bias is not None or activation):
        return None  # no library has them
    if found.residual is not None and found.residual.dtype != value.dtype:
        return None
    if found.bias is not None and found.bias.dtype != value.dtype:  # it is rounded first, as a whole
        whole = found.bias.args[0]
        if pull.arena.parts(found.bias.args[1])[1] != 0 or channel is None or not same(volume(whole.shape), channel.args[1]):
            return None
    return Matched(found.alpha, found.bias, found.residual, activation)


def _channel_steps(claim: Claim, index: Sequence[Node], value: Value) -> Node | None:
    """The variable along which a bias goes: the last axis; the second one for a convolution with channels first."""
    if claim.kind == "convolution" and not claim.template.op.name.endswith("channels_last"):
        shape = claim.template.outputs[0].shape
        if not same_sizes(shape, value.shape):
            return None
        return index[1] if index[1].op == "var" else None
    return index[-1] if index and index[-1].op == "var" else None


def _bare(node: Node) -> Node:
    """The node without conversions between floating dtypes: roundings that the library leaves out."""
    while node.op == "cast" and is_floating(node.dtype) and is_floating(node.args[0].dtype):
        node = node.args[0]
    return node


def _linear(node: Node, own: Callable[[Node], bool], flat: Node, channel: Node | None, pull: Pull) -> Matched | None:
    """``alpha * result + residual + bias`` in any order."""
    node = _bare(node)
    if own(node):
        return Matched()
    if node.op == "mul":
        for a, b in (node.args, node.args[::-1]):
            if a.op == "const" and own(_bare(b)):
                return Matched(alpha=float(a.args[0]))
        return None
    if node.op != "add":
        return None
    for a, b in (node.args, node.args[::-1]):
        found = _linear(a, own, flat, channel, pull)
        term = narrowed(_bare(b)) if found is not None else None
        if found is None or term is None or term.op != "load" or own(term) or not term.args[2]:
            continue
        if term.args[1] is flat and found.residual is None:
            return Matched(found.alpha, found.bias, term)
        terms, _ = pull.arena.parts(term.args[1])
        if channel is not None and found.bias is None and set(terms) == {channel} and same(terms[channel], 1):
            return Matched(found.alpha, term, found.residual)
    return None


def _arguments_of_activations(node: Node, own: Callable[[Node], bool]) -> Iterator[Node]:
    """Nodes below that the whole may be an activation of: sums first that hold the result only once, outermost first."""
    below = [n for n in walk([node]) if n is not node and (n.op in ("add", "mul") or own(n)) and is_floating(n.dtype)]
    yield from reversed(below)


_POINTS = np.concatenate([np.linspace(-6, 6, 49), [-20.0, -0.01, 0.01, 20.0]])
_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
}
"""What the libraries compute; their GELU is the formula with tanh."""


def _named(node: Node, inner: Node) -> str:
    """The activation that `node` is as a function of `inner`, found by its values; "" if none. In narrow floats constants are
    rounded to 8 bits: GELU is then told from its twin with erf by what it is made of."""
    try:
        values = _evaluate(node, inner)
    except KeyError:
        return ""
    near = 4e-3 if any(n.dtype.name in NARROW for n in walk([node])) else 2e-6
    for name, function in _ACTIVATIONS.items():
        if name == "gelu" and not any(n.op == "tanh" for n in walk([node])):
            continue
        if np.allclose(values, function(_POINTS), rtol=near, atol=near):
            return name
    return ""


def _evaluate(node: Node, inner: Node) -> np.ndarray:
    """`node` at the points where `inner` is `_POINTS`. Raises KeyError where it depends on anything else."""
    memo: dict[Node, Any] = {inner: _POINTS}

    def value(n: Node) -> Any:
        if n not in memo:
            if n.op == "const":
                memo[n] = np.float64(n.args[0])
            elif n.op == "cast" and is_floating(n.dtype) and is_floating(n.args[0].dtype):
                memo[n] = value(n.args[0])
            elif n.op in ("load", "reduced", "var", "affine", "bitcast", "cast"):
                raise KeyError(n.op)
            else:
                memo[n] = OPERATIONS[n.op].evaluate(*map(value, n.args))
        return memo[n]

    with np.errstate(all="ignore"):
        return np.broadcast_to(np.asarray(value(node), np.float64), _POINTS.shape)


# -- lowering


class StepBuilder:
    """Collects the buffers and arguments of a library step, and the launches that must run before and after it."""

    def __init__(self, group: Any, pull: Pull, target: Any, home: Callable[[Value], Storage]):
        self.claim: Claim = group.claim
        self.group, self.pull, self.target, self.home = group, pull, target, home
        self.before: list[Launch] = []
        self.after: list[Launch] = []
        self.step: dict[str, Any] = {}
        self.arguments: list[Size] = []
        self._buffers: list[Buffer] = []
        self._storages: list[Storage] = []

    def buffer(self, name: str, storage: Storage, access: str) -> None:
        """The next buffer; `name` says what it is."""
        self.step.setdefault("buffers", []).append([name, storage.dtype])
        self._buffers.append(Buffer(f"b{len(self._buffers)}", storage.dtype, access))
        self._storages.append(storage)

    def laid_out(self, atom: Atom, order: Sequence[int], dtype: str) -> Storage:
        """A temporary with the axes of an operand in the given order, row-major, written by a generated kernel."""
        from ..fuse import Group
        from ..maps import lower_map

        pull = self.pull
        value: Any = atom
        equations: list[Equation] = []
        if atom.dtype.name != dtype:
            value = self._made("cast", value, equations, dtype=np.dtype(dtype) if dtype != "bfloat16" else _bfloat16())
        value = self._made("transpose", value, equations, axes=tuple(order))
        storage = Storage(dtype, volume(value.shape), "laid_out")
        group = Group(self.group.number, "map", equations, value.shape, outputs=[value])
        self.before.append(_noted(lower_map(group, pull, self.target, self.home, {value: [storage]}), self.group.equations))
        return storage

    def back(self, storage: Storage, shape: tuple[Size, ...], order: Sequence[int], value: Value, target: Storage) -> None:
        """After the step: a temporary of that shape, its axes put in the given order, as `value`."""
        from ..fuse import Group
        from ..maps import lower_map

        source = Value(type(value.type)(shape, value.dtype))
        made: list[Equation] = []
        out = self._made("transpose", source, made, axes=tuple(order))
        group = Group(self.group.number, "map", made, out.shape, outputs=[out])
        home = lambda v: storage if v is source else self.home(v)
        self.after.append(_noted(lower_map(group, self.pull, self.target, home, {out: [target]}), self.group.equations))

    def _made(self, op: str, value: Any, equations: list[Equation], **attrs: Any) -> Value:
        (kind,) = (OPS[op].infer(value.type, **attrs),)
        out = Value(kind[0] if isinstance(kind, tuple) else kind)
        eq = Equation(OPS[op], (value,), (out,), attrs)
        self.pull.producer[out] = eq
        equations.append(eq)
        return out

    def launches(self, name: str, work: Size) -> list[Launch]:
        """Everything, in order."""
        kernel = LibraryKernel(name, json.dumps({"kind": name, **self.step}, sort_keys=True), tuple(self._buffers))
        launch = Launch(
            kernel, tuple(self._storages), tuple(self.arguments), 1, work, 0, tuple(self.group.equations),  # type: ignore[arg-type]
            f"library {name}",
        )
        return [*self.before, launch, *self.after]


def _noted(launch: Launch, equations: Sequence[Equation]) -> Launch:
    from dataclasses import replace

    return replace(launch, equations=tuple(equations), note="pack for a library")


def _bfloat16() -> np.dtype:
    from ndarray.dtypes import canonical

    return canonical("bfloat16")


def lower_library(group: Any, pull: Pull, target: Any, home: Callable[[Value], Storage]) -> list[Launch]:
    """The launches of a group that a library computes; results go to the homes of its outputs."""
    builder = StepBuilder(group, pull, target, home)
    kind = group.claim.kind
    if kind == "product":
        return lower_product(builder)
    if kind == "convolution":
        from .library_convolution import lower_convolution

        return lower_convolution(builder)
    from .library_attention import lower_attention

    return lower_attention(builder)


def add_epilogue(builder: StepBuilder, found: Matched) -> None:
    """The buffers and arguments of an epilogue."""
    step, pull = builder.step, builder.pull
    step["alpha"], step["activation"] = found.alpha, found.activation
    for name, node in (("bias", found.bias), ("residual", found.residual)):
        if node is not None:
            stored, dtype = node.args[0], builder.claim.outputs[0].dtype.name
            same_type = stored.dtype.name == dtype
            storage = builder.home(stored) if same_type else builder.laid_out(stored, range(len(stored.shape)), dtype)
            builder.buffer(name, storage, "read")
            builder.arguments.append(pull.arena.parts(node.args[1])[1] if name == "bias" else 0)


Axes = list[tuple[Size, Size]]  # (extent, stride)


def collapsed(axes: Axes) -> tuple[Size, Size | None] | None:
    """Neighbouring axes as one: (extent, stride), None for the stride of a single element; None where that can't be."""
    extent: Size = 1
    stride: Size | None = None
    for n, s in reversed(axes):
        if type(n) is int and n == 1:
            continue
        if stride is None:
            extent, stride = n, s
        elif same(s, stride * extent):
            extent = extent * n
        else:
            return None
    return extent, stride


def lower_product(builder: StepBuilder) -> list[Launch]:
    """A product: x (batch, rows, depth) by y (batch, depth, columns) into a row-major result (batch, rows, columns)."""
    claim, pull = builder.claim, builder.pull
    eq = claim.template
    (cx, cy), (bx, by) = eq.attrs["contract"], eq.attrs["batch"]
    batch, rows, columns, depth = product_sizes(eq)
    builder.arguments += [batch, rows, columns, depth]
    nodes = [Scope(pull, ()).element(a, pull.variables("i", a.shape)) for a in eq.inputs]
    kinds = [narrowed(n).dtype.name for n in nodes]
    narrow = kinds[0] == kinds[1] and kinds[0] in NARROW
    dtype = kinds[0] if narrow else eq.output.dtype.name
    for name, atom, node, contract, batched in (("x", eq.inputs[0], nodes[0], cx, bx), ("y", eq.inputs[1], nodes[1], cy, by)):
        free = tuple(k for k in range(len(atom.shape)) if k not in contract and k not in batched)
        extents = (rows if name == "x" else columns, depth)
        index = pull.variables("i", atom.shape)
        found = strides_in(narrowed(node) if narrow else node, index, pull)
        matrix = None
        if found is not None:
            matrix = _matrix(atom.shape, found[2], (batched, free, contract), extents)
        if found is not None and matrix is not None:
            storage, offset = builder.home(found[0]), found[1]
        else:
            # as it is, if that will do: a weight in another dtype then has one copy for its product and their gradients
            order: tuple[int, ...] = tuple(range(len(atom.shape)))
            matrix, offset = _matrix(atom.shape, strides_of(atom.shape), (batched, free, contract), extents), 0
            if matrix is None:
                order, matrix = (*batched, *free, *contract), (extents[0] * depth, depth, 1)
            storage = builder.laid_out(atom, order, dtype)
        builder.buffer(name, storage, "read")
        builder.arguments += [offset, *matrix]
    matched = match(claim, pull)
    assert matched is not None
    add_epilogue(builder, matched)
    (value,) = claim.outputs
    builder.buffer("out", builder.home(value), "write")
    builder.step["precision"] = builder.target.precision if dtype == "float32" else ""
    work = batch * rows * columns * depth // 8
    return builder.launches("product", work)


def _matrix(
    shape: Sequence[Size], strides: Sequence[Size], axes: tuple[Sequence[int], ...], extents: tuple[Size, Size]
) -> tuple[Size, Size, Size] | None:
    """The strides of batch, rows (or columns) and depth, of the `axes` of each, where the library can read such an operand."""
    groups = [collapsed([(shape[k], strides[k]) for k in some]) for some in axes]
    if any(g is None for g in groups):
        return None
    (_, b), (_, m), (_, k) = groups  # type: ignore[misc]
    m, k = 1 if m is None else m, 1 if k is None else k
    if (same(k, 1) and _spans(m, extents[1])) or (same(m, 1) and _spans(k, extents[0])):
        return 0 if b is None else b, m, k
    return None


def _spans(stride: Size, extent: Size) -> bool:
    """Whether neighbours at a stride don't overlap, for all sizes."""
    return nonnegative(stride - extent)
