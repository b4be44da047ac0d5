"""Export of a traced Block, and loading it back without its code.

``net.export("model")`` writes

    model.json                 the graph (readable, versioned), how arguments and results are nested, names of parameters
    model.safetensors          the parameters
    model-golden.safetensors   inputs, and the outputs that belong to them: what `SymbolBlock.self_test` compares

and ``hybrid.load("model")`` makes a `SymbolBlock` of them, which runs (compiled), trains and exports like any Block.
The files are untrusted: everything in them is checked before arrays are made.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import ndarray as nd
from ndarray import NDArray, autograd, precision
from ndarray.apply import apply
from ndarray.array import literal
from ndarray.dims import Dim, Size, evaluate, symbol
from ndarray.dtypes import is_floating
from ndarray.files import FileFormatError, load_arrays, load_json, save_arrays, save_json
from ndarray.op import ArrayType

from .block import HybridBlock
from .graph import Graph, Literal, Value
from .parameter import Parameter
from .serialize import decode_graph, encode_graph
from .trace import Tracer

__all__ = ["SymbolBlock", "export", "load", "replay"]

FORMAT, VERSION = "hybrid-model", 1
_ROLES = ("argument", "parameter", "constant", "random")


# -- running a graph op by op


def replay(graph: Graph, arrays: Sequence[NDArray], device: Any) -> tuple[list[NDArray], dict[int, NDArray]]:
    """Apply the graph's equations to arrays: (outputs, {input index: its new value}).

    Whatever is on the interpreter stack sees each op, so that this runs, records or traces. Raises ValueError for
    shapes or dtypes that the graph was not made for.
    """
    sizes: dict[str, Any] = {}
    environment: dict[Value, NDArray] = {}
    for i, (value, array) in enumerate(zip(graph.inputs, arrays, strict=True)):
        _bind(graph, i, value, array, sizes)
        environment[value] = array
    for guard in graph.guards:
        if not guard.holds(sizes):
            raise ValueError(f"{graph.name}: made for sizes with {guard}, which does not hold for {sizes}")

    def read(atom: Any) -> NDArray:
        return literal(atom.value, atom.dtype, device) if isinstance(atom, Literal) else environment[atom]

    with device, precision.use(None):
        for eq in graph.equations:
            attrs = {k: _evaluated(v, sizes) for k, v in eq.attrs.items()}
            result = apply(eq.op, *map(read, eq.inputs), **attrs)
            for value, array in zip(eq.outputs, result if isinstance(result, tuple) else (result,), strict=True):
                environment[value] = array
        outputs = [read(a).copy() if isinstance(a, Literal) else read(a) for a in graph.outputs]
        return outputs, {i: read(a) for i, a in graph.state.items()}


def _bind(graph: Graph, i: int, value: Value, array: NDArray, sizes: dict[str, Any]) -> None:
    fits = len(value.shape) == len(array.shape) and value.dtype == array.dtype
    if fits:
        for want, have in zip(value.shape, array.shape):
            if isinstance(want, Dim) and len(want.terms) == 1 and len(want.terms[0][0]) == 1 and want.terms[0][1] == 1:
                name = want.terms[0][0][0]
                fits = fits and sizes.setdefault(name, have) == have
            else:
                fits = fits and evaluate(want, sizes) == have
    if not fits:
        raise ValueError(
            f"{graph.name}: input {value.name or i} must be {value.type}, got {array.dtype.name}"
            f"[{','.join(map(str, array.shape))}]{f' with {sizes}' if sizes else ''}"
        )


def _evaluated(value: Any, sizes: dict[str, Any]) -> Any:
    if isinstance(value, Dim):
        return _size(value, sizes)
    if isinstance(value, tuple):
        return tuple(_evaluated(v, sizes) for v in value)
    return value


def _size(size: Size, sizes: dict[str, Any]) -> Size:
    return evaluate(size, sizes)


# -- nested arguments


def flatten(tree: Any, leaves: list[NDArray]) -> Any:
    """The arrays of nested lists, tuples and dicts go to `leaves`; what remains is plain data with their numbers."""
    if tree is None:
        return None
    if isinstance(tree, NDArray):
        leaves.append(tree)
        return len(leaves) - 1
    if isinstance(tree, list):
        return {"list": [flatten(t, leaves) for t in tree]}
    if isinstance(tree, tuple):
        return {"tuple": [flatten(t, leaves) for t in tree]}
    if isinstance(tree, dict):
        return {"dict": {str(k): flatten(t, leaves) for k, t in tree.items()}}
    raise TypeError(
        f"export: arguments and results must be arrays, None, lists, tuples and dicts of them, got {type(tree).__name__}"
    )


def unflatten(form: Any, leaves: Sequence[Any]) -> Any:
    """The inverse of `flatten`."""
    if not isinstance(form, dict):
        return None if form is None else leaves[form]
    ((kind, items),) = form.items()
    if kind == "dict":
        return {k: unflatten(f, leaves) for k, f in items.items()}
    return (list if kind == "list" else tuple)(unflatten(f, leaves) for f in items)


def _check_form(form: Any, count: int, where: str, depth: int = 0) -> int:
    """Raise FileFormatError unless `form` nests the leaves 0, 1, ... from `count` on; returns the number after it."""
    if form is None:
        return count
    if type(form) is int:
        if form != count:
            raise FileFormatError(f"{where}: leaf {form} where {count} should stand")
        return count + 1
    if depth < 20 and isinstance(form, dict) and len(form) == 1:
        ((kind, items),) = form.items()
        if (kind in ("list", "tuple") and isinstance(items, list)) or (kind == "dict" and isinstance(items, dict)):
            for item in items.values() if isinstance(items, dict) else items:
                count = _check_form(item, count, where, depth + 1)
            return count
    raise FileFormatError(f"{where}: bad nesting {str(form)[:60]!r}")


# -- the loaded Block


class SymbolBlock(HybridBlock):
    """A Block that runs a graph. Its parameters have the names that they had in the exported Block."""

    def __init__(self, graph: Graph, roles: Sequence[str], arguments: Any, results: Any, parameters: dict[str, Parameter]):
        super().__init__()
        self._graph, self._roles, self._arguments, self._results = graph, tuple(roles), arguments, results
        self._golden: tuple[list[np.ndarray], list[np.ndarray]] | None = None
        for name, parameter in parameters.items():
            self._register_parameter(name, parameter)

    @property
    def graph(self) -> Graph:
        """The graph that was exported."""
        return self._graph

    def _compile(self) -> Any:
        """Sizes that the graph leaves open stay open from the first call on: one program, and the one in the disk cache."""
        compiled = super()._compile()
        names = sorted(self._graph.symbols)
        given = [v for role, v in zip(self._roles, self._graph.inputs) if role == "argument"]
        for first, step in ((2, 1), (3, 2)) if names else ():
            sizes = {name: first + step * i for i, name in enumerate(names)}
            shapes = [tuple([evaluate(d, sizes) for d in v.shape]) for v in given]
            compiled.expect(*unflatten(self._arguments, [nd.zeros(s, dtype=v.dtype) for s, v in zip(shapes, given)]))
        return compiled

    def forward(self, *args: Any) -> Any:
        """The exported Block's results."""
        leaves: list[NDArray] = []
        form = flatten(tuple(args), leaves)
        if form != self._arguments:
            raise TypeError(f"{self._graph.name}: expected arguments nested as {self._arguments}, got {form}")
        device = leaves[0].device if leaves else nd.current_device()
        given, arrays = iter(leaves), []
        for role, value in zip(self._roles, self._graph.inputs):
            if role == "argument":
                arrays.append(next(given))
            elif role == "random":
                arrays.append(nd.random.state(device))
            else:
                arrays.append(self.params[value.name].data(device))
        outputs, state = replay(self._graph, arrays, device)
        with autograd.pause(train_mode=autograd.is_training()):
            for i, new in state.items():
                arrays[i][...] = new
        return unflatten(self._results, outputs)

    def self_test(self, tolerance: float = 1e-4) -> float:
        """Run the golden inputs; returns the largest error relative to each output's scale.

        Raises RuntimeError where it is above `tolerance`, or without golden values.
        """
        if self._golden is None:
            raise RuntimeError("self_test: there is no golden file beside this model")
        inputs, expected = self._golden
        args = unflatten(self._arguments, [nd.array(a, dtype=a.dtype) for a in inputs])
        leaves: list[NDArray] = []
        flatten(self(*args), leaves)
        worst = 0.0
        for i, (out, want) in enumerate(zip(leaves, expected, strict=True)):
            have = out.asnumpy()
            if have.shape != want.shape:
                raise RuntimeError(f"self_test: output {i} has shape {have.shape}, expected {want.shape}")
            if want.size:
                scale = max(float(np.abs(want.astype(np.float64)).max()), 1e-30)
                error = float(np.abs(have.astype(np.float64) - want.astype(np.float64)).max()) / scale
                worst = max(worst, error if error == error else float("inf"))
        if worst > tolerance:
            raise RuntimeError(
                f"self_test: the results differ from the golden ones by {worst:.3g} of their scale, more than {tolerance}"
            )
        return worst

    @staticmethod
    def imports(
        symbol_file: Any, input_names: Any = None, param_file: Any = None, device: Any = None, *, ctx: Any = None
    ) -> SymbolBlock:
        """Gluon's name of `load`."""
        return load(symbol_file, device if device is not None else ctx, param_file=param_file)

    def _extra_repr(self) -> str:
        return f"{self._graph.name}, {len(self._graph.equations)} equations"


# -- writing


def _paths(path: Any) -> tuple[str, str, str]:
    base = os.fspath(path)
    base = base[: -len(".json")] if base.endswith(".json") else base
    return f"{base}.json", f"{base}.safetensors", f"{base}-golden.safetensors"


def export(net: HybridBlock, path: Any, *example: Any, dynamic_batch: bool = True, golden: bool = True) -> tuple[str, str]:
    """Write the Block, as it predicts, to files (see the top of this module); returns the paths of graph and parameters.

    `example` are inputs of the right shapes; without them, those of the last compiled call serve. With
    `dynamic_batch`, the first axis of the arguments may have any size in the loaded model, if they agree in it and the
    Block does not depend on its number. With `golden`, inputs and outputs for a self-test are written too (random
    ones where no example is given).
    """
    args = example or _last_arguments(net)
    leaves: list[NDArray] = []
    arguments = flatten(tuple(args), leaves)
    trace, results = _traced(net, args, leaves, dynamic_batch)
    names = _names_of_arrays(net)
    roles = ["argument"] * trace.arguments
    inputs = [
        Value(v.type, f"data{i}" if trace.arguments > 1 else "data") for i, v in enumerate(trace.graph.inputs[: trace.arguments])
    ]
    arrays: dict[str, np.ndarray] = {}
    frozen = []
    for value, source in zip(trace.graph.inputs[trace.arguments :], trace.captured, strict=True):
        if not isinstance(source, NDArray):
            raise TypeError(f"export: {net.name} reads a number that changes from call to call; export predicts with fixed ones")
        parameter, name = names.get(id(source), (None, "random"))
        if source is nd.random.state(source.device):
            roles.append("random")
        elif parameter is not None:
            roles.append("parameter")
            arrays[name] = source.asnumpy()
            frozen += [name] if parameter.grad_req == "null" else []
        else:
            roles.append("constant")
            name = f"constant{len(roles)}"
            arrays[name] = source.asnumpy()
        inputs.append(Value(value.type, name))
    graph = _renamed(trace.graph, inputs)
    model_path, parameter_path, golden_path = _paths(path)
    save_arrays(parameter_path, arrays, {"format": FORMAT, "version": str(VERSION)})
    if golden:
        with autograd.pause():
            outputs: list[NDArray] = []
            flatten(net._run(*args), outputs)
        values = {f"input{i}": a.asnumpy() for i, a in enumerate(leaves)} | {
            f"output{i}": a.asnumpy() for i, a in enumerate(outputs)
        }
        save_arrays(golden_path, values, {"format": FORMAT, "version": str(VERSION)})
    elif os.path.exists(golden_path):
        os.unlink(golden_path)  # it belonged to an older export
    model = {"format": FORMAT, "version": VERSION, "arguments": arguments, "results": results, "roles": roles, "frozen": frozen}
    save_json(model_path, {**model, "graph": encode_graph(graph)})
    return model_path, parameter_path


def _last_arguments(net: HybridBlock) -> tuple:
    """Arrays like those of the last compiled call: normal floats, zeros for integers."""
    last = getattr(net._compiled, "last_arguments", None)
    if last is None:
        raise RuntimeError(f"export: call {net.name}(x) once after hybridize(), or give example inputs: net.export(path, x)")
    rng = np.random.default_rng(0)

    def make(leaf: Any) -> Any:
        shape, dtype, device = leaf
        floating = is_floating(dtype)
        return nd.array(rng.standard_normal(shape) if floating else np.zeros(shape), dtype=dtype, device=device)

    form, leaves = last
    return unflatten(form, [make(leaf) for leaf in leaves])


def _traced(net: HybridBlock, args: tuple, leaves: list[NDArray], dynamic_batch: bool) -> tuple[Any, Any]:
    """The trace of ``net(*args)`` in predict mode, and the form of its results."""
    batch = {a.shape[0] if a.ndim else 0 for a in leaves}
    dynamic = dynamic_batch and len(batch) == 1 and batch != {0}
    for attempt in (True, False) if dynamic else (False,):
        tracer = Tracer(net.name)
        wrapped = []
        for i, a in enumerate(leaves):
            shape = (symbol("n", int(a.shape[0])), *a.shape[1:]) if attempt else tuple(a.shape)
            wrapped.append(tracer.argument(ArrayType(shape, a.dtype), a.device, f"data{i}"))
        count: list[NDArray] = []
        form = flatten(tuple(args), count)
        with tracer.under(), autograd.predict_mode():
            out: list[NDArray] = []
            results = flatten(net._run(*unflatten(form, wrapped)), out)
        trace = tracer.finish(out)
        if not any(g.comparison == "==" and g.answer for g in trace.graph.guards):
            break
    return trace, results


def _names_of_arrays(net: HybridBlock) -> dict[int, tuple[Parameter, str]]:
    return {id(a): (p, name) for name, p in reversed(net.collect_params().items()) if p.is_initialized for a in p.list_data()}


def _renamed(graph: Graph, inputs: list[Value]) -> Graph:
    """The graph with other Values as inputs, and without equations that nothing needs."""
    new: dict[Any, Any] = dict(zip(graph.inputs, inputs))
    needed = set(graph.results())
    kept = []
    for eq in reversed(graph.equations):
        if "effect" in eq.op.traits or any(v in needed for v in eq.outputs):
            needed.update(eq.inputs)
            kept.append(replace(eq, inputs=tuple(new.get(a, a) if not isinstance(a, Literal) else a for a in eq.inputs)))
    outputs = tuple(a if isinstance(a, Literal) else new.get(a, a) for a in graph.outputs)
    state = {i: a if isinstance(a, Literal) else new.get(a, a) for i, a in graph.state.items()}
    return graph.replace(inputs=tuple(inputs), outputs=outputs, equations=tuple(reversed(kept)), state=state)


# -- reading


def load(path: Any, device: Any = None, *, param_file: Any = None, backend: str | None = None) -> SymbolBlock:
    """The model that `export` wrote to ``path.json`` and so on, ready to run compiled on `device`.

    Raises FileFormatError, saying what is wrong, for files that are damaged, of another version, or don't belong
    together; FileNotFoundError where one is missing.
    """
    model_path, parameter_path, golden_path = _paths(path)
    parameter_path = os.fspath(param_file) if param_file is not None else parameter_path
    data = load_json(model_path)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise FileFormatError(
            f"{model_path}: no exported model (format {str(data.get('format') if isinstance(data, dict) else data)[:40]!r})"
        )
    if data.get("version") != VERSION:
        raise FileFormatError(
            f"{model_path}: version {str(data.get('version'))[:20]}, this library reads version {VERSION}; export "
            "the model again, "
            "or update the library"
        )
    graph = decode_graph(data.get("graph"), model_path)
    roles, arguments, results = data.get("roles"), data.get("arguments"), data.get("results")
    if not isinstance(roles, list) or len(roles) != len(graph.inputs) or any(r not in _ROLES for r in roles):
        raise FileFormatError(
            f"{model_path}: 'roles' must name one of {', '.join(_ROLES)} for each of {len(graph.inputs)} inputs"
        )
    for what, form, count in (("arguments", arguments, roles.count("argument")), ("results", results, len(graph.outputs))):
        if _check_form(form, 0, f"{model_path}, {what}") != count:
            raise FileFormatError(f"{model_path}: {what!r} must hold {count} arrays")
    if not isinstance(arguments, dict) or "tuple" not in arguments:
        raise FileFormatError(f"{model_path}: 'arguments' must be a tuple")
    parameters = _load_parameters(model_path, parameter_path, graph, roles, data.get("frozen"), device)
    block = SymbolBlock(graph, roles, arguments, results, parameters)
    if os.path.exists(golden_path):
        block._golden = _load_golden(golden_path, roles.count("argument"), len(graph.outputs))
    block.hybridize(backend=backend)
    return block


def _load_parameters(
    model_path: str, parameter_path: str, graph: Graph, roles: list[str], frozen: Any, device: Any
) -> dict[str, Parameter]:
    arrays, _ = load_arrays(parameter_path)
    wanted = {v.name: v for v, r in zip(graph.inputs, roles) if r in ("parameter", "constant")}
    if len(wanted) != sum(r in ("parameter", "constant") for r in roles):
        raise FileFormatError(f"{model_path}: two parameters have the same name")
    if set(arrays) != set(wanted):
        missing, extra = sorted(set(wanted) - set(arrays)), sorted(set(arrays) - set(wanted))
        raise FileFormatError(f"{parameter_path}: does not belong to {model_path}: missing {missing[:5]}, unknown {extra[:5]}")
    frozen = frozen if isinstance(frozen, list) else []
    parameters = {}
    roles_of = {v.name: r for v, r in zip(graph.inputs, roles)}
    for name, value in wanted.items():
        array = arrays[name]
        if array.shape != value.shape or array.dtype != value.dtype:
            raise FileFormatError(f"{parameter_path}: {name!r} is {array.dtype}{list(array.shape)}, the model needs {value.type}")
        trained = roles_of[name] == "parameter" and name not in frozen and is_floating(array.dtype)
        parameter = Parameter(name, "write" if trained else "null", array.shape, array.dtype, differentiable=trained)
        parameter._shape = array.shape  # sizes of 0 are meant
        parameter._load(array, device, copy=False)
        parameters[name] = parameter
    return parameters


def _load_golden(path: str, inputs: int, outputs: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    arrays, _ = load_arrays(path)
    names = [f"input{i}" for i in range(inputs)] + [f"output{i}" for i in range(outputs)]
    if set(arrays) != set(names):
        raise FileFormatError(f"{path}: must hold {inputs} inputs and {outputs} outputs, has {sorted(arrays)[:8]}")
    return [arrays[n] for n in names[:inputs]], [arrays[n] for n in names[inputs:]]
