"""Graphs with equations that have no native code: cut into native segments, between which the host computes.

An equation is cut out where its op's lowering is OPAQUE, where one of its arrays has a dtype that kernels don't know, or
where a sub-graph of it has such an equation. Segment k holds every native equation that waits for results of the host's
steps before k and for no later ones, so there are as few segments as the dependencies allow. `CHEAP` equations are
computed again in each segment that reads them. A written input is written by the last segment if nothing comes after it,
else copied when all else is done: an error of the host's leaves the state as it was.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybrid.backend import Options, overlapping, refuse_leaked
from hybrid.graph import Atom, Equation, Graph, Literal, Value
from hybrid.interpret import concrete_attributes
from ndarray.array import NDArray
from ndarray.device import Device, cpu
from ndarray.dims import Dim, evaluate
from ndarray.dtypes import name_of
from ndarray.op import OPAQUE

from .program import BINDINGS_KEPT, symbol_places
from .target import ITEMSIZE

if TYPE_CHECKING:
    from .explain import CutReport, KernelReport

_HOST = cpu(0)

__all__ = ["CutProgram", "Segment", "reason_to_cut", "split"]


def reason_to_cut(eq: Equation) -> str | None:
    """Why an equation has no native code; None where it has."""
    if eq.op.lower is OPAQUE:
        return "its lowering is OPAQUE"
    for atom in (*eq.inputs, *eq.outputs):
        if name_of(atom.dtype) not in ITEMSIZE:
            return f"kernels don't know {name_of(atom.dtype)}"
    for name, attribute in eq.attrs.items():
        if isinstance(attribute, Graph):
            for inner in attribute.equations:
                reason = reason_to_cut(inner)
                if reason is not None:
                    return f"in its {name}, {inner.op.name} runs on the host: {reason}"
    return None


@dataclass(frozen=True, eq=False)
class Segment:
    """A native part of a graph. `graph`'s inputs and outputs are values of the whole graph, whose equations it shares."""

    graph: Graph


def split(graph: Graph) -> list[Segment | Equation] | None:
    """The steps in order: native segments, and equations for the host. None where the whole graph is native."""
    hosts = [eq for eq in graph.equations if reason_to_cut(eq) is not None]
    if not hosts and all(name_of(a.dtype) in ITEMSIZE for a in graph.results()):
        return None
    return _Splitter(graph, hosts).steps()


class _Splitter:
    def __init__(self, graph: Graph, hosts: Sequence[Equation]):
        from .pull import CHEAP

        self.cheap_names = CHEAP
        self.graph, self.hosts = graph, frozenset(hosts)
        self.producer = {v: eq for eq in graph.equations for v in eq.outputs}
        self.position = {eq: n for n, eq in enumerate(graph.equations)}
        self.level: dict[Equation, int] = {}
        self.members: dict[int, set[Equation]] = {}
        self.outputs: dict[int, dict[Value, None]] = {}

    def cheap(self, eq: Equation) -> bool:
        return eq.op.name in self.cheap_names and eq not in self.hosts

    def steps(self) -> list[Segment | Equation]:
        self.find_levels()
        for eq in self.graph.equations:
            if eq in self.hosts:
                for atom in eq.inputs:
                    self.deliver(atom, self.level[eq])
            elif not self.cheap(eq):
                self.members.setdefault(self.level[eq], set()).add(eq)
        for eq in self.graph.equations:
            if eq not in self.hosts and not self.cheap(eq):
                self.recompute(eq.inputs, self.level[eq])
        state = self.native_state()
        for number, atom in self.graph.state.items():
            if number in state:
                self.recompute((atom,), self.level[self.producer[atom]])  # type: ignore[index]
            else:
                self.deliver(atom)
        for atom in self.graph.outputs:
            self.deliver(atom)
        reads = {level: self.reads(level) for level in self.members}
        for values in reads.values():
            for value in values:
                self.deliver(value)
        last = max(self.members, default=0)
        found: list[Segment | Equation] = []
        for level in sorted({*self.members, *(self.level[eq] for eq in self.hosts)}):
            if level in self.members:
                found.append(self.segment(level, reads[level], state if level == last else {}))
            found += [eq for eq in self.graph.equations if eq in self.hosts and self.level[eq] == level]
        return found

    def find_levels(self) -> None:
        """The segment of each native equation, and the one after which each of the host's runs."""
        effect = 0
        for eq in self.graph.equations:
            host, level = eq in self.hosts, 0
            for atom in eq.inputs:
                producer = self.producer.get(atom) if isinstance(atom, Value) else None
                if producer is not None:
                    level = max(level, self.level[producer] + (producer in self.hosts and not host))
            if "effect" in eq.op.traits:  # in the order of the graph
                effect = level = max(level, effect)
            self.level[eq] = level

    def deliver(self, atom: Atom, level: int | None = None) -> None:
        """Have a native value leave its segment (a cheap one that of `level`)."""
        producer = self.producer.get(atom) if isinstance(atom, Value) else None
        if producer is None or producer in self.hosts:
            return
        cheap = self.cheap(producer)
        level = self.level[producer] if level is None or not cheap else level
        self.outputs.setdefault(level, {})[atom] = None  # type: ignore[index]
        if cheap:
            self.recompute((atom,), level)

    def recompute(self, atoms: Iterable[Atom], level: int) -> None:
        """Have the cheap equations behind some atoms in a segment."""
        members, waiting = self.members.setdefault(level, set()), list(atoms)
        while waiting:
            eq = self.producer.get(atom) if isinstance(atom := waiting.pop(), Value) else None
            if eq is not None and self.cheap(eq) and eq not in members:
                members.add(eq)
                waiting.extend(eq.inputs)

    def reads(self, level: int) -> list[Value]:
        """What a segment reads of others, of the host and of the inputs."""
        members = self.members[level]
        made = {v for eq in members for v in eq.outputs}
        read = [a for eq in sorted(members, key=self.position.__getitem__) for a in eq.inputs]
        return [a for a in dict.fromkeys(read) if isinstance(a, Value) and a not in made]

    def native_state(self) -> dict[int, Atom]:
        """The state that the last segment writes."""
        last = max(self.members, default=0)
        if any(self.level[eq] >= last for eq in self.hosts):
            return {}
        made = {v for eq in self.graph.equations if self.level[eq] == last and eq not in self.hosts for v in eq.outputs}
        return {i: a for i, a in self.graph.state.items() if a in made}

    def segment(self, level: int, reads: Sequence[Value], state: Mapping[int, Atom]) -> Segment:
        inputs = dict.fromkeys(reads)
        inputs |= dict.fromkeys(self.graph.inputs[i] for i in state)
        shown = {name for name, _, _ in symbol_places(inputs)}
        for name, i, _ in symbol_places(self.graph.inputs):  # inputs that say how large a symbol is
            if name not in shown:
                inputs[self.graph.inputs[i]] = None
        numbers = {v: n for n, v in enumerate(inputs)}
        equations = tuple(sorted(self.members[level], key=self.position.__getitem__))
        return Segment(Graph(
            tuple(inputs), tuple(self.outputs.get(level, {})), equations,
            {numbers[self.graph.inputs[i]]: a for i, a in state.items()}, (), f"{self.graph.name}, segment {level}",
        ))


@dataclass(frozen=True, eq=False)
class _Native:
    """A segment with its program; the slots of a call's values that it reads and makes, and those of no use after it."""

    program: Any  # Program
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dead: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Host:
    """An equation that Python computes. `inputs` are slots, or arrays for literals; `fresh` says which results leave the
    program, and must share memory with nothing."""

    equation: Equation
    inputs: tuple[Any, ...]
    outputs: tuple[int, ...]
    fresh: tuple[bool, ...]
    dead: tuple[int, ...]
    reason: str


class CutProgram:
    """See `hybrid.backend.Program`: native programs, and between them the eager functions of ops. Any number of threads may
    call it at once; what passes between the steps are arrays of the call's own."""

    def __init__(self, graph: Graph, steps: Sequence[Segment | Equation], compile: Callable[[Graph, Options], Any],
                 options: Options, device: Device = _HOST):
        self.graph, self.device, self._xp = graph, device, device.module
        self._slots: dict[Atom, int] = {v: n for n, v in enumerate(graph.inputs)}
        self._symbols = symbol_places(graph.inputs)
        self._resolved: OrderedDict[tuple[int, ...], list[tuple[dict[str, Any], list[tuple[int, ...]]]]] = OrderedDict()
        results = {a for a in graph.results() if isinstance(a, Value)}
        constant = {graph.inputs[i] for i in options.constant_inputs}
        last: dict[Value, int] = {}
        for n, step in enumerate(steps):
            read: Sequence[Atom] = step.graph.inputs if isinstance(step, Segment) else step.inputs
            last.update((a, n) for a in read if isinstance(a, Value) and a not in results and a not in graph.inputs)
        self._steps: list[_Native | _Host] = []
        written: set[Atom] = set()
        for n, step in enumerate(steps):
            dead = tuple(self._slot(v) for v, at in last.items() if at == n)
            if isinstance(step, Segment):
                part = step.graph
                own = replace(options, constant_inputs=frozenset(i for i, v in enumerate(part.inputs) if v in constant))
                inputs, outputs = tuple([self._slot(v) for v in part.inputs]), tuple([self._slot(v) for v in part.outputs])
                self._steps.append(_Native(compile(part, own), inputs, outputs, dead))
                written |= {part.inputs[i] for i in part.state}
            else:
                given = tuple(self._slot(a) if isinstance(a, Value) else self._number(a) for a in step.inputs)
                fresh = tuple(v in results for v in step.outputs)
                reason = reason_to_cut(step) or ""
                self._steps.append(_Host(step, given, tuple(map(self._slot, step.outputs)), fresh, dead, reason))
        self._copied = {i: a for i, a in graph.state.items() if graph.inputs[i] not in written and a is not graph.inputs[i]}
        wanted = {*graph.outputs, *self._copied.values()}
        self._read_first = [i for i, v in enumerate(graph.inputs) if v in wanted]  # before anything is written

    def _number(self, literal: Literal) -> Any:
        """A literal as a new array of the device."""
        return self._xp.array(np.asarray(literal.value, literal.dtype))

    def _slot(self, value: Atom) -> int:
        return self._slots.setdefault(value, len(self._slots))

    # -- calling
    def __call__(self, arrays: Sequence[Any]) -> list[Any]:
        with self.device.active():
            return self._run(arrays)

    def _run(self, arrays: Sequence[Any]) -> list[Any]:
        refuse_leaked(arrays, self.graph.name)
        self._refuse_overlap(arrays)
        values: list[Any] = [*arrays, *[None] * (len(self._slots) - len(arrays))]
        kept = {self.graph.inputs[i]: self._xp.array(arrays[i], order="C") for i in self._read_first}
        for step, (attrs, shapes) in zip(self._steps, self._resolve(arrays)):
            if isinstance(step, _Native):
                found = step.program([values[k] for k in step.inputs])
            else:
                found = self._run_host(step, [values[k] if type(k) is int else k for k in step.inputs], attrs, shapes)
            for k, array in zip(step.outputs, found):
                values[k] = array
            for k in step.dead:
                values[k] = None
        taken: set[int] = set()

        def result(atom: Atom) -> Any:
            if isinstance(atom, Literal):
                return self._number(atom)
            array = kept[atom] if atom in kept else values[self._slots[atom]]
            if id(array) in taken:
                return self._xp.array(array)
            taken.add(id(array))
            return array

        outputs = [result(a) for a in self.graph.outputs]
        for i, atom in self._copied.items():
            arrays[i][...] = result(atom)
        return outputs

    def keeping(self, constants: Mapping[int, NDArray]) -> CutProgram:
        """See `hybrid.backend.Program`."""
        other = object.__new__(CutProgram)
        other.__dict__.update(self.__dict__)
        other._steps = []
        for step in self._steps:
            if isinstance(step, _Native):
                own = {i: constants[k] for i, k in enumerate(step.inputs) if k in constants}
                keeping = getattr(step.program, "keeping", None) if own else None
                step = replace(step, program=keeping(own)) if keeping else step
            other._steps.append(step)
        return other

    def _resolve(self, arrays: Sequence[np.ndarray]) -> list[tuple[dict[str, Any], list[tuple[int, ...]]]]:
        """The attributes and result shapes of each step of the host for a call's sizes."""
        key = tuple([arrays[i].shape[axis] for _, i, axis in self._symbols])
        found = self._resolved.get(key)
        if found is None:
            sizes = {name: size for (name, _, _), size in zip(self._symbols, key, strict=True)}
            found = []
            for step in self._steps:
                if isinstance(step, _Native):
                    found.append(({}, []))
                    continue
                attrs = {k: concrete_attributes(v, sizes) for k, v in step.equation.attrs.items()}
                found.append((attrs, [tuple(evaluate(d, sizes) for d in v.shape) for v in step.equation.outputs]))
            self._resolved[key] = found
            while len(self._resolved) > BINDINGS_KEPT:
                try:
                    self._resolved.popitem(last=False)
                except KeyError:  # another thread was faster
                    break
        return found

    def _run_host(
        self, step: _Host, inputs: list[Any], attrs: Mapping[str, Any], shapes: Sequence[tuple[int, ...]]
    ) -> list[Any]:
        """The results of an equation, computed by its op's eager function; of exactly the types that the graph says."""
        eq, xp = step.equation, self._xp
        if xp is not np:  # a number of the host is an array of the device for the op
            inputs = [xp.array(a) if isinstance(a, (np.ndarray, np.generic)) else a for a in inputs]
        try:
            with np.errstate(all="ignore"):
                found = eq.op.eager(xp, *inputs, **attrs)
        except Exception as error:
            error.add_note(f"in {eq.op.name} at {eq.source or 'an unknown line'}, run by the host in a compiled program")
            raise
        results = []
        for value, array, shape, fresh in zip(
                eq.outputs, found if isinstance(found, tuple) else (found,), shapes, step.fresh, strict=True):
            array = xp.asarray(array)
            if array.shape != shape or array.dtype != value.dtype:
                raise RuntimeError(
                    f"{eq.op.name} at {eq.source}: its eager function returned {array.dtype}{list(array.shape)} where its types "
                    f"say {value.dtype}{list(shape)}"
                )
            if fresh and (array.base is not None or not array.flags.c_contiguous or any(array is a for a in inputs)):
                array = xp.array(array, order="C")
            results.append(array)
        return results

    def _refuse_overlap(self, arrays: Sequence[np.ndarray]) -> None:
        written = sorted(self.graph.state)
        for n, k in overlapping([arrays[i] for i in written], range(len(written))):
            i, j = sorted((written[n], written[k]))
            raise ValueError(f"{self.graph.name}: inputs {i} and {j} are both written and overlap in memory")

    def run_guarded(self, arrays: Sequence[np.ndarray], side: str = "after", threads: int | None = None) -> list[np.ndarray]:
        """As a call, with the native segments run as `CompiledProgram.run_guarded` does."""
        other = object.__new__(CutProgram)
        other.__dict__.update(self.__dict__)
        other._steps = [
            replace(s, program=_Guarded(s.program, side, threads)) if isinstance(s, _Native) else s for s in self._steps]
        return other(arrays)

    # -- for people
    def explain(self, arrays: Sequence[np.ndarray] | None = None, measure: bool = False) -> CutReport:
        """The reports of all segments, and a row for each step of the host, with the line and the reason."""
        from .explain import CutReport

        if arrays is None:
            sizes = {name: d.hint for name, i, axis in self._symbols if isinstance(d := self.graph.inputs[i].shape[axis], Dim)}
        else:
            sizes = {name: arrays[i].shape[axis] for name, i, axis in self._symbols}
        values: list[Any] = [None] * len(self._slots)
        if arrays is not None:
            values[: len(arrays)] = [self._xp.array(a, order="C") for a in arrays]
        parts: list[Any] = []
        for step in self._steps:
            if isinstance(step, _Native):
                given = None if arrays is None else [values[k] for k in step.inputs]
                parts.append(step.program.explain(given, measure))
                if given is not None:
                    found = step.program([a.copy() for a in given])
            else:
                shapes = [tuple(evaluate(d, sizes) for d in v.shape) for v in step.equation.outputs]
                attrs = {k: concrete_attributes(v, sizes) for k, v in step.equation.attrs.items()}
                begin = time.perf_counter()
                if arrays is not None:
                    found = self._run_host(step, [values[k] if type(k) is int else k for k in step.inputs], attrs, shapes)
                parts.append(_host_row(step, sizes, time.perf_counter() - begin if measure and arrays is not None else None))
            if arrays is not None:
                for k, array in zip(step.outputs, found):
                    values[k] = array
        return CutReport(self.graph.name, len(self.graph.equations), sizes, tuple(parts), tuple(map(str, self.graph.guards)))


@dataclass(frozen=True)
class _Guarded:
    program: Any
    side: str
    threads: int | None

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return self.program.run_guarded(arrays, self.side, self.threads)


def _host_row(step: _Host, sizes: Mapping[str, int], seconds: float | None) -> KernelReport:
    from .explain import KernelReport

    eq = step.equation
    lines = (f"{Path(eq.source.file).name}:{eq.source.line}",) if eq.source else ()
    blocks = (eq.source.block,) if eq.source and eq.source.block else ()
    count = 0
    for value in {*eq.inputs, *eq.outputs}:
        size = 1
        for d in value.shape:
            size *= evaluate(d, sizes)
        count += size * value.dtype.itemsize
    return KernelReport(0, f"{eq.op.name} on the host", (eq.op.name,), lines, blocks, step.reason, 1, 1, 0, count, seconds)
