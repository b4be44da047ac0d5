"""`hybridize`: a function of arrays that is traced once per signature and runs as a compiled program.

    @hybridize
    def step(x, y): ...

A signature is: how the arguments are nested, shapes, dtypes and devices of the arrays among them, the other Python values,
train and record mode, attributes of the Blocks and values of the variables that the function reads. Python floats among
the arguments are inputs. A size that has changed between calls becomes symbolic: one program for all sizes.
"""

from __future__ import annotations

import functools
import inspect
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ndarray import apply as _apply
from ndarray import autograd, precision
from ndarray.array import NDArray, wrap
from ndarray.device import Device, cpu, current_device
from ndarray.op import ArrayType
from ndarray.settings import settings
from ndarray.tape import Leaf

from .backend import Foresight, get_backend, prepare_backend
from .call import statistics
from .entry import Cores, Entry, Overlap, Unfit, form_of, with_names
from .epoch import epoch as _epoch
from .explain import Explanation, explain_entry
from .garbage import collection_paused
from .scalars import argument_scalar, scalar_input
from .signature import describe_change, flatten, paths, rebuild, repeats, snapshot, symbolic_pattern, typed
from .surroundings import Surroundings, is_open
from .trace import Trace, TraceError, Tracer

__all__ = ["CompiledFunction", "hybridize", "scalar_input"]

log = logging.getLogger("hybrid")
_top_get = _apply._top.get
_training_get = autograd._training.get
_ndarray = np.ndarray
_new = object.__new__

KEYS_KEPT = 4096
"""Exact shapes that a function remembers; beyond, it starts to remember anew (nothing is compiled again)."""

_CPU = cpu(0)

MANY_TRACES = 32
"""After so many traces a warning says which part of the signature keeps changing."""


class CompiledFunction:
    """Calls `function` through compiled programs.

    name      for printed graphs and messages
    block     the Block whose attributes the function bakes in, if any; `epoch` (an object with a `value` that rises
              whenever an attribute may have changed) says when to compare them again
    backend   who compiles: "jit" or "interpreter"; other options go to it
    static_alloc, static_shape  both: on a GPU, calls become CUDA graphs at once, not only after some of them
    traces, compilations, calls  counters
    """

    def __init__(
        self, function: Callable, *, name: str | None = None, block: Any = None, epoch: Any = None, backend: str = "jit",
        static_alloc: bool = False, static_shape: bool = False, **options: Any,
    ):
        self._function, self._block, self.backend = function, block, backend
        self.name = str(name or getattr(function, "__name__", "function"))
        self._counter = epoch or _epoch
        self._seen_epoch: int | None = None
        self._cores = Cores(backend, options, static_alloc and static_shape)
        self._lock = threading.RLock()
        self._fast: dict[tuple, Entry] = {}
        self._shortest: dict[tuple, Entry] = {}  # simple ones of a single array argument
        self._entries: dict[Any, Entry] = {}
        self._symbolic: dict[Any, list[Entry]] = {}
        self._shapes_seen: dict[Any, list[tuple]] = {}
        self._rejected: set[Any] = set()  # (family, pattern) for which a symbolic trace is no use
        self._static_paths: frozenset = frozenset()  # float arguments that the function looks at
        self._statics: list[tuple[dict, dict]] = []
        self._static = 0
        self._surroundings: Surroundings | None = None
        self._objects: dict[int, Any] = {}  # objects that have been arguments
        self._getters: set[Callable] = set()  # what gives numbers at each call: what they read isn't baked in
        self._conditions: dict[tuple[str, int], Callable[[], Any]] = {}  # by name and owner: what traces have asked to watch
        self._watches = False
        self._last_key: Any = None
        self._tapes = False  # whether the function records and differentiates inside
        self._again: tuple | None = None  # the last call that wrote its arguments
        self.last: Entry | None = None
        self._last_arguments: tuple | None = None
        self.traces = self.calls = 0
        self._compiled: set[int] = set()
        functools.update_wrapper(self, function, updated=())

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """As a method, the instance is the first argument."""
        return self if instance is None else functools.partial(self, instance)

    def __repr__(self) -> str:
        return f"<hybridized {self.name}: {self.traces} traces, {self.compilations} compilations, {self.calls} calls>"

    @property
    def compilations(self) -> int:
        """How many programs have been compiled for this function (forward, with gradient; backward parts not counted)."""
        total = 0
        for cores in self._cores._by_skeleton.values():
            for core in cores:
                total += len(core.graph.__dict__.get("_programs", ())) + len(core.derivatives)
        return total

    # -- calling
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        top = _top_get()
        recording = False
        if top is None:
            if len(args) == 1 and not kwargs and self._counter.value == self._seen_epoch:  # the shortest way
                (a,) = args
                if type(a) is NDArray:
                    data = a._data
                    entry = self._shortest.get((data.shape, data.dtype, id(a._device), _training_get()))
                    if entry is not None:
                        self.calls += 1
                        out = _new(NDArray)
                        (out._data,) = entry.program([data, *entry.fixed])  # type: ignore[misc]
                        out._device = entry.single  # type: ignore[assignment]
                        out._node = out._storage = None
                        return out
        else:
            if _apply.is_tracing():
                return self._function(*args, **kwargs)  # a part of the trace under way
            recording = bool(getattr(top.interpreter, "recording", False))
        if not kwargs and self._counter.value == self._seen_epoch:
            key: list[Any] = [_training_get(), recording]
            arrays = []
            for a in args:
                if type(a) is not NDArray:
                    break
                data = a._data
                arrays.append(data)
                key += (data.shape, data.dtype, id(a._device))
            else:
                values: Sequence[Any] = ()
                if self._watches:
                    values = self._surroundings.read()  # type: ignore[union-attr]
                    key.append(self._surroundings.key(values))  # type: ignore[union-attr]
                entry = self._fast.get(tuple(key))
                if entry is not None:
                    self.calls += 1
                    if recording or not entry.simple:
                        try:
                            return entry.run(args, values, recording)
                        except Overlap:
                            return self._function(*args)
                    arrays += entry.fixed
                    out = _new(NDArray)
                    (out._data,) = (entry.program or entry.compiled())(arrays)
                    out._device = entry.single  # type: ignore[assignment]
                    out._node = out._storage = None
                    return out
        return self._call(args, kwargs, recording)

    def _call(self, args: tuple, kwargs: dict, recording: bool) -> Any:
        again = self._again
        if again is not None and not kwargs and self._counter.value == self._seen_epoch:
            known, mode, key, entry = again
            raw: list[Any] = []
            if mode == (_training_get(), recording) and repeats(args, known, raw):
                values = self._surroundings.read() if self._watches else []  # type: ignore[union-attr]
                if not self._watches or self._surroundings.key(values) == key:  # type: ignore[union-attr]
                    self.calls += 1
                    leaves = [v if type(v) is NDArray else _leaf(v) for v in raw]
                    return entry.run(leaves, values, recording, apart=True)
        entry, leaves, values, trace = self._entry(args, kwargs, recording)
        self.calls += 1
        ahead = trace.foresight if trace is not None else None
        try:
            if ahead is not None:
                entry.compiled()
                ahead.stop()
            out = entry.run(leaves, values, recording, trace.hints if trace is not None else None)
            fixed = not (kwargs or self._static_paths or self._tapes or self._objects)
            if trace is None and fixed and entry.writes_arguments:
                # an update of weights is called with the same arrays each time: take it as it is
                self._again = (snapshot(args), (_training_get(), recording), self._key(values), entry)
            return out
        except Overlap:
            log.info("%s: an argument shares memory with an array that is written; this call runs line by line", self.name)
            return self._function(*args, **kwargs)
        except Unfit as error:
            log.info("%s: the gradient for symbolic sizes is not valid for these (%s); tracing for fixed ones", self.name, error)
            with self._lock:
                self._forget(entry)
                self._rejected.add(self._structure_of(args, kwargs))
            return self._call(args, kwargs, recording)
        finally:
            if ahead is not None:
                ahead.finish(entry.program)

    def _structure_of(self, args: tuple, kwargs: dict) -> Any:
        return flatten((args, kwargs), [], self._static_paths)

    def _forget(self, entry: Entry) -> None:
        """Drop a symbolic entry, and what it stands for."""
        core = entry.core
        for entries in (self._entries, self._fast, self._shortest):
            for key in [k for k, e in entries.items() if e.core is core]:
                del entries[key]
        for family in self._symbolic.values():
            family[:] = [e for e in family if e.core is not core]

    def _entry(self, args: tuple, kwargs: dict, recording: bool) -> tuple[Entry, list[NDArray], list[Any], Trace | None]:
        """The entry for a call, traced if need be; the array leaves of the arguments, the surroundings' values."""
        objects = [a for a in (*args, *kwargs.values()) if is_open(type(a))]
        for a in objects:
            if id(a) not in self._objects:
                self._objects[id(a)] = a
                self._seen_epoch = None
        self._refresh()
        raw: list[Any] = []
        structure = flatten((args, kwargs), raw, self._static_paths)
        if objects:
            structure = (structure, self._key(objects))
        leaves = [_leaf(v) for v in raw]
        values = self._surroundings.read() if self._surroundings is not None else []
        shapes = tuple([tuple(a._data.shape) for a in leaves])
        if self._tapes:  # whether an argument wants a gradient matters to a function that differentiates
            structure = (structure, tuple([_request(a) for a in leaves]))
        family = self._family(structure, values, recording)
        entry, trace = self._entries.get((family, shapes)), None
        if entry is None:
            with self._lock:
                entry = self._entries.get((family, shapes)) or self._match(family, shapes)
                if entry is None:
                    with collection_paused():
                        entry, trace = self._trace(args, kwargs, raw, leaves, structure, shapes, recording)
                    if entry is None:  # the trace has shown that more is part of the signature
                        return self._entry(args, kwargs, recording)
        self._remember(args, kwargs, values, recording, entry)
        return entry, leaves, values, trace

    def _family(self, structure: Any, values: Sequence[Any], recording: bool) -> tuple:
        return (_training_get(), recording, self._static, self._key(values), structure)

    def _key(self, values: Sequence[Any]) -> tuple:
        return self._surroundings.key(values) if self._surroundings is not None else ()

    def _remember(self, args: tuple, kwargs: dict, values: Sequence[Any], recording: bool, entry: Entry) -> None:
        if kwargs or self._tapes or not all(type(a) is NDArray for a in args):
            return
        key: list[Any] = [_training_get(), recording]
        for a in args:
            key += (a._data.shape, a._data.dtype, id(a._device))  # devices are interned, and hashing them takes Python
        if self._watches:
            key.append(self._surroundings.key(values))  # type: ignore[union-attr]
        if len(self._fast) >= KEYS_KEPT:
            self._fast, self._shortest = {}, {}
        self._fast[tuple(key)] = entry
        if len(args) == 1 and entry.simple and not recording and not self._watches:
            entry.compiled()
            self._shortest[key[2], key[3], key[4], key[0]] = entry

    # -- attributes and surroundings
    def _refresh(self) -> None:
        """Look again at what the trace bakes in, if anything may have changed."""
        now = self._counter.value
        if now == self._seen_epoch and self._surroundings is not None:
            return
        with self._lock:
            functions = [] if self._block is not None else [self._function]
            conditions = [(name, read) for (name, _), read in self._conditions.items()]
            self._surroundings = Surroundings(functions, self._block, self._objects.values(), conditions, self._getters)
            self._watches = bool(self._surroundings.readers)
            attributes, arrays = self._attributes()
            number = self._number_of(attributes, arrays)
            if number != self._static:
                self._fast, self._shortest, self._again = {}, {}, None
            self._static = number
            self._seen_epoch = now

    def _number_of(self, attributes: dict, arrays: dict) -> int:
        for i, (known, held) in enumerate(self._statics):
            if known == attributes and held.keys() == arrays.keys() and all(held[k] is arrays[k] for k in held):
                return i
        self._statics.append((attributes, arrays))
        return len(self._statics) - 1

    def _attributes(self) -> tuple[dict, dict]:
        """Plain attributes of all Blocks within reach, and their arrays."""
        from .block import identities, static_attributes

        attributes: dict[str, Any] = {"precision:": (precision.current(), settings.matmul_precision)}
        arrays: dict[str, Any] = {}
        if self._surroundings is not None:
            attributes["variables:"] = tuple(self._surroundings.names)
            for prefix, root in self._surroundings.blocks:
                attributes.update({prefix + k: typed(v) for k, v in static_attributes(root).items()})
                for path, block in root._walk():
                    arrays.update({f"{prefix}{path}.{k}": v for k, v in identities(block).items()})
        return attributes, arrays

    # -- finding and making entries
    def _match(self, family: tuple, shapes: tuple) -> Entry | None:
        """A symbolic entry that is valid for these shapes."""
        for entry in self._symbolic.get(family, ()):
            sizes = entry.fits(shapes)
            if sizes is not None:
                return self._keep((family, shapes), entry.bound(sizes))
        return None

    def _keep(self, key: Any, entry: Entry) -> Entry:
        if len(self._entries) >= KEYS_KEPT:
            self._entries.clear()
        self._entries[key] = entry
        return entry

    def _trace(
        self, args: tuple, kwargs: dict, raw: list, leaves: list[NDArray], structure: Any, shapes: tuple, recording: bool
    ) -> tuple[Entry | None, Trace | None]:
        values = self._surroundings.read() if self._surroundings is not None else []
        family = self._family(structure, values, recording)
        self._log_change(family, shapes)
        foresight = self._foresee(leaves, recording)
        try:
            made, symbolic = self._try_symbolic(args, kwargs, raw, leaves, structure, shapes, values, recording), True
            if made is None:
                made, symbolic = self._run_trace(args, kwargs, raw, leaves, shapes, values, recording), False
        except BaseException:
            if foresight is not None:
                foresight.finish(None)
            raise
        entry, trace, tapes = made
        if tapes and not self._tapes:
            self._tapes = True
            self._fast, self._shortest = {}, {}
            before, structure = structure, (structure, tuple([_request(a) for a in leaves]))
            self._shapes_seen[structure] = self._shapes_seen[before]  # the second size is to become a symbol
        if trace.pinned:
            where = paths((args, kwargs), self._static_paths)
            self._static_paths |= {where[i] for i in trace.pinned}
            if foresight is not None:
                foresight.finish(None)
            return None, None
        if foresight is not None:
            trace = replace(trace, foresight=foresight)
            foresight.writes(entry.overwritten(leaves, values))
        before = dict(zip(self._surroundings.names, family[3])) if self._surroundings is not None else {}
        getters = {s for s in trace.captured if callable(s)}
        if not (getters <= self._getters and trace.conditions.keys() <= self._conditions.keys()):
            self._getters |= getters
            self._conditions = {**trace.conditions, **self._conditions}
            self._seen_epoch = None
        self._refresh()  # the first call may have initialized parameters, or changed what it reads
        values = self._surroundings.read()  # type: ignore[union-attr]
        family = self._family(structure, values, recording)
        after = dict(zip(self._surroundings.names, family[3]))  # type: ignore[union-attr]
        changed = [n for n in before if n in after and before[n] != after[n]]
        if changed:
            log.warning(
                "%s: changing %s happens while tracing only, not at each call of the compiled program; keep what changes in "
                "an array (x[...] = v)", self.name, ", ".join(changed),
            )
        entry.references = (values, self._statics[self._static])
        bound = entry
        if symbolic:
            self._symbolic.setdefault(family, []).insert(0, entry)
            bound = entry.bound(entry.fits(shapes) or {})
        self.last, self._last_arguments = entry, (args, kwargs, [(a.shape, a.dtype, a.device) for a in leaves])
        return self._keep((family, shapes), bound), trace

    def _foresee(self, leaves: Sequence[NDArray], recording: bool) -> Foresight | None:
        """What the backend knows of the first call of this function, in whatever process, with such arguments."""
        look = getattr(get_backend(self.backend), "foresee", None)
        if look is None or recording or any(a._device.kind != "cpu" for a in leaves):
            return None
        code = getattr(inspect.unwrap(self._function), "__code__", None)
        blocks = self._surroundings.blocks if self._surroundings is not None else []
        return look({
            "function": (self.name, code and (code.co_filename, code.co_firstlineno, code.co_code, code.co_names)),
            "arguments": [(a._data.shape, a.dtype.name) for a in leaves],
            "training": _training_get(),
            "parameters": [(path, n, p.shape) for _, root in blocks for path, b in root._walk() for n, p in b._own.items()],
        })

    def _try_symbolic(
        self, args: tuple, kwargs: dict, raw: list, leaves: list[NDArray], structure: Any, shapes: tuple, values: list,
        recording: bool,
    ) -> tuple[Entry, Trace, bool] | None:
        """A trace with symbols for the sizes that have varied, if there are such and it is valid for these shapes."""
        seen = self._shapes_seen.setdefault(structure, [])
        if shapes not in seen:
            seen.append(shapes)
            del seen[:-8]
        pattern = symbolic_pattern(seen, shapes)
        attempt = (self._family(structure, values, recording), str(pattern))
        if pattern is None or attempt in self._rejected or structure in self._rejected:
            return None
        try:
            made = self._run_trace(args, kwargs, raw, leaves, pattern, values, recording)
            if made[0].fits(shapes) is not None:
                return made
        except Exception as error:  # whatever it is, a trace for fixed sizes shows whether it is the user's
            log.info("%s: no program for symbolic sizes %s (%s); tracing for fixed ones", self.name, pattern, error)
        self._rejected.add(attempt)
        return None

    def _log_change(self, family: tuple, shapes: tuple) -> None:
        key = {
            "train mode": family[0], "recording": family[1], "attributes": self._statics[family[2]][0],
            "surroundings": dict(zip(self._surroundings.names, family[3])) if self._surroundings else {},
            "arguments": family[4], "shapes": shapes,
        }
        if self._last_key is not None:
            loud = settings.debug >= 1 or self.traces == MANY_TRACES
            changed = [f"{k}: {describe_change(self._last_key[k], v)}" for k, v in key.items() if self._last_key[k] != v]
            log.log(
                logging.WARNING if loud else logging.INFO, "%s is traced again (%d traces so far) because of %s", self.name,
                self.traces, "; ".join(changed) or "an array that was replaced",
            )
        self._last_key = key

    def _run_trace(
        self, args: tuple, kwargs: dict, raw: list, leaves: list[NDArray], shapes: tuple, values: list, recording: bool
    ) -> tuple[Entry, Trace, bool]:
        tracer = Tracer(self.name, recording)
        names = self._argument_names(args, kwargs)
        inputs: list[Any] = []
        for i, (value, leaf, shape) in enumerate(zip(raw, leaves, shapes)):
            if isinstance(value, NDArray):
                inputs.append(tracer.argument(ArrayType(shape, leaf.dtype), leaf.device, names[i]))
                if _request(leaf) and not recording:
                    inputs[-1]._node = (Leaf(leaf.grad, leaf._node[0].request), 0, -1)
            else:
                inputs.append(argument_scalar(tracer, value, names[i]))
        arguments, options = rebuild((args, kwargs), inputs, self._static_paths)
        self.traces += 1
        statistics.traces += 1
        before = self._attributes()[0]
        with tracer.under():
            result = self._function(*arguments, **options)
            outputs: list[NDArray] = []
            form = form_of(result, outputs)
            trace = tracer.finish(outputs)
        tracer.cells.clear()  # they lead back to the tracer: captured arrays would wait for the garbage collector
        self._report_side_effects(before)
        for i in trace.pinned:
            if i >= trace.arguments:
                raise TraceError(
                    f"{self.name}: a number that changes from call to call (a learning rate, say) was looked at while tracing; "
                    f"compute with it, without `if`, float() or comparisons"
                )
        sources = [self._source(source, leaves, values) for source in trace.captured]
        graph = with_names(trace.graph, self._captured_names(trace, leaves, values))
        core, lifted = self._cores.find(graph, self._device(trace, leaves, raw))
        code = getattr(inspect.unwrap(self._function), "__code__", None) or type(self).__call__.__code__
        entry = Entry(
            core, lifted, trace.arguments, sources, form, trace.devices, graph, trace.guards,
            (code, code.co_firstlineno), constants=not recording and not _training_get(),
        )
        return entry, trace, tracer.taped

    def _device(self, trace: Trace, leaves: Sequence[NDArray], raw: list) -> Device:
        """The device on which all arrays of a trace lie."""
        arrays = [(leaf, name.name) for leaf, given, name in zip(leaves, raw, trace.graph.inputs) if isinstance(given, NDArray)]
        arrays += [(s, "a captured array") for s in trace.captured if isinstance(s, NDArray)]
        found = {a._device: f"{name} ({a.dtype.name}{list(a.shape)})" for a, name in arrays}
        found |= {d: "a result" for d in trace.devices if d not in found}
        if len({d.kind for d in found}) > 1 or (len(found) > 1 and next(iter(found)).kind != "cpu"):
            places = ", ".join(f"{what} on {d}" for d, what in found.items())
            raise ValueError(f"{self.name}: arrays on different devices ({places}); move them with x.to_device(device)")
        return next(iter(found), current_device())

    def _source(self, source: Any, leaves: Sequence[NDArray], values: list) -> Any:
        """Where a captured input is read at each call: see Entry."""
        if isinstance(source, NDArray):
            for i, leaf in enumerate(leaves):
                if _request(leaf) and leaf.grad is source:
                    return ("gradient", i)
            for k, v in enumerate(values):
                if v is source:
                    return k
        return source

    def _captured_names(self, trace: Trace, leaves: Sequence[NDArray], values: list) -> dict[int, str]:
        """Names of captured inputs, by number: those of parameters and of surrounding variables."""
        from .block import Block

        names: dict[int, str] = {}
        if self._surroundings is not None:
            for name, v in zip(self._surroundings.names, values):
                if isinstance(v, NDArray):
                    names[id(v)] = name
                if isinstance(v, Block):
                    names.update(_parameter_names(v, f"{name}."))
        if self._block is not None:
            names.update(_parameter_names(self._block, ""))
        for i, leaf in enumerate(leaves):
            if _request(leaf):
                names[id(leaf.grad)] = f"{trace.graph.inputs[i].name}.grad"
        found: dict[int, str] = {}
        for number, source in enumerate(trace.captured, trace.arguments):
            label = names.get(id(source)) if isinstance(source, NDArray) else f"number{number}"
            if label:
                found[number] = label
        return found

    def _report_side_effects(self, before: dict) -> None:
        after = self._attributes()[0]
        changed = [k for k in after if not k.endswith(":") and after[k] != before.get(k)]
        if changed:
            log.warning(
                "%s: writing the attribute %s happens while tracing only, not at each call of the compiled program; keep what "
                "changes in an array (self.x[...] = v)", self.name, ", ".join(changed),
            )

    def _argument_names(self, args: tuple, kwargs: dict) -> list[str]:
        try:
            target = self._block.forward if self._block is not None else self._function
            parameters = list(inspect.signature(target).parameters.values())
            plain = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        except (TypeError, ValueError):
            plain = []
        found = []
        for where in paths((args, kwargs), self._static_paths):
            first = where[1] if len(where) > 1 else 0
            name = first if isinstance(first, str) else plain[first] if first < len(plain) else f"x{first}"
            found.append("_".join([name, *map(str, where[2:])]))
        return found

    def expect(self, *args: Any) -> None:
        """Take arguments of these shapes as seen, without calling: sizes that differ between them become symbolic at once."""
        raw: list[Any] = []
        structure = flatten((args, {}), raw, self._static_paths)
        self._shapes_seen.setdefault(structure, []).append(tuple([tuple(a.shape) for a in raw]))

    # -- for people and for export
    @property
    def last_arguments(self) -> Any:
        """The form of the arguments of the last traced call and (shape, dtype, device) of each array among them."""
        if self._last_arguments is None:
            return None
        from .export import flatten as export_form

        args, _, leaves = self._last_arguments
        return export_form(tuple(args), []), leaves

    def graph(self, *args: Any, **kwargs: Any) -> Any:
        """The graph for these arguments, as traced."""
        return self._entry(args, kwargs, autograd.is_recording())[0].traced

    def explain(self, *args: Any, measure: bool = True, **kwargs: Any) -> Explanation:
        """What is compiled for these arguments: inputs, guards with the lines that asked, kernels with their times, why
        neighbours were not fused, memory. Print it, or look at its fields.

        Under ``autograd.record()``, forward and backward of a training call are shown. Kernels are timed on copies of the
        arguments, unless `measure` is False. Nothing that the function writes is written.
        """
        recording = autograd.is_recording()
        entry, leaves, values, trace = self._entry(args, kwargs, recording)
        inputs = entry.gather(leaves, values, trace.hints if trace is not None else None)
        return explain_entry(self.name, (self.traces, self.compilations, self.calls), entry, inputs, recording, measure)


def hybridize(function: Callable | None = None, **options: Any) -> Any:
    """Decorator: run a function of arrays as compiled programs.

    ``@hybridize`` or ``@hybridize(backend="interpreter")``. See CompiledFunction for the options.
    """
    prepare_backend(options.get("backend", "jit"))
    if function is None:
        return lambda f: CompiledFunction(f, **options)
    return CompiledFunction(function, **options)


def _parameter_names(block: Any, prefix: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for name, p in block.collect_params().items():
        if p.is_initialized:
            for array in p.list_data():
                found[id(array)] = prefix + name
                if array.grad is not None:
                    found[id(array.grad)] = f"{prefix}{name}.grad"
    return found


def _request(array: NDArray) -> str | None:
    """How an array with a gradient attached wants it; None for others."""
    node = array._node
    return node[0].request if node is not None and type(node[0]) is Leaf and node[0].grad is not None else None


def _leaf(value: Any) -> NDArray:
    return value if isinstance(value, NDArray) else wrap(np.asarray(value, np.float64), _CPU)
