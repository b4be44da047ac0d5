"""Graphs as plain data (what JSON holds), and back. What comes back is checked: files are untrusted.

    {"name": "net", "symbols": {"n": 32},
     "inputs":    [{"name": "x", "dtype": "float32", "shape": ["n", 4]}, ...],
     "equations": [{"op": "add", "inputs": [0, {"value": 1.0, "dtype": "float32"}], "outputs": [7],
                    "types": [{"dtype": "float32", "shape": ["n", 4]}], "attrs": {...}, "source": "model.py:12"}, ...],
     "outputs":   [7], "state": [[1, 6]], "guards": [[left, "==", right, true], ...]}

A size is an int, a symbol's name, or ``{"size": [[coefficient, [factor, ...]], ...]}``, where a factor is a symbol's
name or ``[op, left, right]``. Attributes are JSON values (a list means a tuple), ``{"dtype": name}``,
``{"float": "inf"}``, a size, or ``{"graph": ...}``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ndarray.dims import COMPARE, Dim, Guard, Size, evaluate, record_guards, symbol
from ndarray.dtypes import DTYPE_NAMES, canonical
from ndarray.files import FileFormatError
from ndarray.op import OPS, ArrayType

from .graph import Equation, Graph, Literal, Source, Value, every_equation
from .sizes import match_sizes, substitute

__all__ = ["MAX_ELEMENTS", "decode_graph", "encode_graph"]

MAX_ELEMENTS = 1 << 40
MAX_RANK = 32
MAX_EQUATIONS = 1_000_000
_MAX_DEPTH = 20


# -- to plain data


def encode_graph(graph: Graph) -> dict[str, Any]:
    """The graph as plain data. Raises TypeError for an attribute that has no plain form."""
    numbers: dict[Value, int] = {}
    hints: dict[str, int] = {}

    def atom(a: Any) -> Any:
        if isinstance(a, Literal):
            return {"value": _encode_number(a.value), "dtype": a.dtype.name}
        return numbers[a]

    def kind(t: ArrayType) -> dict[str, Any]:
        return {"dtype": t.dtype.name, "shape": [_encode_size(n, hints) for n in t.shape]}

    for value in graph.inputs:
        numbers[value] = len(numbers)
    inputs = [{"name": v.name, **kind(v.type)} for v in graph.inputs]
    equations = []
    for eq in graph.equations:
        entry: dict[str, Any] = {"op": eq.op.name, "inputs": [atom(a) for a in eq.inputs]}
        for value in eq.outputs:
            numbers[value] = len(numbers)
        entry["outputs"] = [numbers[v] for v in eq.outputs]
        entry["types"] = [kind(v.type) for v in eq.outputs]
        if eq.attrs:
            entry["attrs"] = {k: _encode_attribute(v, hints, f"{eq.op.name}.{k}") for k, v in sorted(eq.attrs.items())}
        if eq.source is not None:
            entry["source"] = f"{eq.source.file.rpartition('/')[2]}:{eq.source.line}"
        equations.append(entry)
    return {
        "name": graph.name,
        "inputs": inputs,
        "equations": equations,
        "outputs": [atom(a) for a in graph.outputs],
        "state": [[i, atom(a)] for i, a in sorted(graph.state.items())],
        "guards": [[_encode_size(g.left, hints), g.comparison, _encode_size(g.right, hints), g.answer] for g in graph.guards],
        "symbols": hints,
    }


def _encode_number(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, complex):
        return {"complex": [_encode_number(value.real), _encode_number(value.imag)]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    return value


def _encode_size(size: Size, hints: dict[str, int]) -> Any:
    if not isinstance(size, Dim):
        return int(size)
    hints.update(size.hints)
    if len(size.terms) == 1:
        ((monomial, coefficient),) = size.terms
        if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], str):
            return monomial[0]
    terms = []
    for monomial, coefficient in size.terms:
        factors = [
            a if isinstance(a, str) else [a[0], _encode_size(a[1], hints), _encode_size(a[2], hints)] for a in monomial
        ]
        terms.append([coefficient, factors])
    return {"size": terms}


def _encode_attribute(value: Any, hints: dict[str, int], where: str) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.dtype):
        return {"dtype": value.name}
    if isinstance(value, Dim):
        encoded = _encode_size(value, hints)
        return {"size": [[1, [encoded]]]} if isinstance(encoded, str) else encoded
    if isinstance(value, (int, float, complex, np.generic)):
        return _encode_number(value)
    if isinstance(value, (tuple, list)):
        return [_encode_attribute(v, hints, where) for v in value]
    if isinstance(value, Graph):
        return {"graph": encode_graph(value)}
    raise TypeError(f"export: attribute {where} holds a {type(value).__name__}, which has no plain form")


# -- from plain data


def decode_graph(data: Any, where: str = "graph") -> Graph:
    """The graph that `data` describes.

    Raises FileFormatError for anything but a well-formed graph of known ops whose inferred types agree with the
    declared ones and whose arrays have at most `MAX_ELEMENTS` elements.

    Its guards are those of the file and all conditions on symbolic sizes that inferring the types asks for, so a file can't
    make a graph seem valid for sizes that it isn't.
    """
    return _Decoder(where, 0).whole(data)


class _Decoder:
    def __init__(self, where: str, depth: int, outer: Mapping[str, int] | None = None):
        self._where, self._depth = where, depth
        self._outer = outer  # the symbols of the graph around this one, where they are the same
        self._op = ""
        self._hints: dict[str, int] = {}
        self._at = ""
        if depth > _MAX_DEPTH:
            self._fail(f"sub-graphs are nested deeper than {_MAX_DEPTH}")

    def _fail(self, message: str) -> Any:
        raise FileFormatError(f"{self._where}{self._at}: {message}")

    def _check(self, condition: bool, message: str) -> None:
        if not condition:
            self._fail(message)

    def _get(self, data: Any, key: str, kind: type, default: Any = ...) -> Any:
        self._check(isinstance(data, dict), f"expected an object with {key!r}, got {str(data)[:60]!r}")
        if key not in data and default is not ...:
            return default
        value = data.get(key)
        self._check(type(value) is kind, f"{key!r} must be {kind.__name__}, got {str(value)[:60]!r}")
        return value

    def whole(self, data: Any) -> Graph:
        """A graph whose symbols are its own, with all conditions under which it is valid."""
        asked: list[Guard] = []
        with record_guards(asked.append):
            graph = self.graph(data)
        known = {str(g) for g in graph.guards}
        missing = {str(g): g for g in asked if str(g) not in known}
        return graph.replace(guards=(*graph.guards, *missing.values())) if missing else graph

    def graph(self, data: Any) -> Graph:
        hints = self._get(data, "symbols", dict, {})
        for name, hint in hints.items():
            good = name.isidentifier() and len(name) < 64 and type(hint) is int and 0 < hint < MAX_ELEMENTS
            self._check(good, f"bad symbol {name[:60]!r} = {str(hint)[:20]}")
            same = self._outer is None or self._outer.get(name) == hint
            self._check(same, f"symbol {name[:60]!r} = {str(hint)[:20]} isn't one of the graph around it")
        self._hints = hints
        values: list[Value] = []
        for i, entry in enumerate(self._get(data, "inputs", list)):
            self._at = f", input {i}"
            values.append(Value(self._type(entry), self._get(entry, "name", str, "")))
        inputs = tuple(values)
        equations = []
        entries = self._get(data, "equations", list)
        self._check(len(entries) <= MAX_EQUATIONS, f"more than {MAX_EQUATIONS} equations")
        for i, entry in enumerate(entries):
            self._at = f", equation {i}"
            equations.append(self._equation(entry, values))
        self._at = ""
        outputs = tuple(self._atom(a, values) for a in self._get(data, "outputs", list))
        state: dict[int, Any] = {}
        for pair in self._get(data, "state", list, []):
            self._check(isinstance(pair, list) and len(pair) == 2, f"state: expected a pair, got {str(pair)[:60]!r}")
            i, new = pair[0], self._atom(pair[1], values)
            self._check(type(i) is int and 0 <= i < len(inputs) and i not in state, f"state: bad input number {str(i)[:20]}")
            self._check(str(inputs[i].type) == str(new.type), f"state: input {i} is {inputs[i].type}, its new value {new.type}")
            state[i] = new
        guards = tuple(self._guard(g) for g in self._get(data, "guards", list, []))
        return Graph(inputs, outputs, tuple(equations), state, guards, self._get(data, "name", str, "graph")[:200])

    def _equation(self, entry: Any, values: list[Value]) -> Equation:
        name = self._get(entry, "op", str)
        op = OPS.get(name)
        if op is None:
            return self._fail(f"unknown op {name[:60]!r}; the file may be from a newer version")
        self._at += f" ({name})"
        self._op = name
        atoms = tuple(self._atom(a, values) for a in self._get(entry, "inputs", list))
        self._check(op.variadic or len(atoms) == len(op.arguments), f"takes {len(op.arguments)} arrays, got {len(atoms)}")
        attrs = {str(k): self._attribute(v) for k, v in self._get(entry, "attrs", dict, {}).items()}
        self._check_attributes(op.infer, attrs)
        declared = [self._type(t) for t in self._get(entry, "types", list)]
        try:
            types = op.infer(*(a.type for a in atoms), **attrs)
            if name == "graph_call":
                self._fits(attrs["graph"], atoms)
        except Exception as error:  # whatever a rule meets in a damaged file
            return self._fail(f"its inputs or attributes don't fit: {error}")
        same = [str(t) for t in types] == [str(t) for t in declared]
        self._check(same, f"declares {[str(t) for t in declared]}, its inputs give {[str(t) for t in types]}")
        for t in types:
            self._check_size(t)
        outputs = tuple(Value(t) for t in types)
        numbers = self._get(entry, "outputs", list)
        self._check(numbers == list(range(len(values), len(values) + len(outputs))), f"bad output numbers {str(numbers)[:60]}")
        values.extend(outputs)
        file, _, line = self._get(entry, "source", str, "").rpartition(":")
        source = Source(file, int(line)) if file and line.isdecimal() and len(line) < 9 else None
        return Equation(op, atoms, outputs, attrs, source)

    def _fits(self, graph: Graph, atoms: tuple[Any, ...]) -> None:
        """Refuse arrays for which a graph that is called isn't valid; what it asks of symbolic sizes is recorded."""
        sizes: dict[str, Any] = {}
        for value, atom in zip(graph.inputs, atoms, strict=True):
            match_sizes(value.shape, atom.type.shape, sizes)
        unknown = sorted({n for d in _dims_of(graph) for n in d.hints} - set(sizes))
        self._check(not unknown, f"sizes {unknown[:5]} of the graph that it calls can't be read off its inputs")
        for value, atom in zip(graph.inputs, atoms, strict=True):
            formal = substitute(value.shape, sizes)
            self._check(all(a == b for a, b in zip(formal, atom.type.shape)), f"its graph takes {value.type}, got {atom.type}")
        for g in graph.guards:
            left, right = substitute(g.left, sizes), substitute(g.right, sizes)
            self._check(COMPARE[g.comparison](left, right) == g.answer, f"its graph is made for sizes with {g}")

    def _check_attributes(self, infer: Callable, attrs: dict[str, Any]) -> None:
        keywords = {p.name: p for p in inspect.signature(infer).parameters.values() if p.kind is p.KEYWORD_ONLY}
        takes_any = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(infer).parameters.values())
        if not takes_any and keywords:
            missing = [k for k, p in keywords.items() if k not in attrs and p.default is p.empty]
            extra = [k for k in attrs if k not in keywords]
            self._check(not missing and not extra, f"attributes missing: {missing}, unknown: {[k[:30] for k in extra]}")

    def _atom(self, data: Any, values: list[Value]) -> Any:
        if type(data) is int:
            self._check(0 <= data < len(values), f"value {data} is used before it is defined")
            return values[data]
        dtype = self._dtype(self._get(data, "dtype", str))
        value = self._attribute(data.get("value"))
        self._check(isinstance(value, (bool, int, float, complex)), f"a literal must be a number, got {str(value)[:40]!r}")
        try:
            value = dtype.type(value).item()
        except (OverflowError, TypeError, ValueError):
            self._fail(f"the literal {str(value)[:40]} doesn't fit {dtype}")
        return Literal(value, dtype)

    def _dtype(self, name: Any) -> np.dtype:
        self._check(isinstance(name, str) and name in DTYPE_NAMES, f"unknown dtype {str(name)[:40]!r}")
        return canonical(name)

    def _type(self, data: Any) -> ArrayType:
        shape = self._get(data, "shape", list)
        self._check(len(shape) <= MAX_RANK, f"{len(shape)} axes, at most {MAX_RANK} are allowed")
        result = ArrayType(tuple(self._size(n) for n in shape), self._dtype(self._get(data, "dtype", str)))
        self._check_size(result)
        return result

    def _check_size(self, t: ArrayType) -> None:
        total = 1
        for n in t.shape:
            value = evaluate(n, self._hints)
            self._check(0 <= value <= MAX_ELEMENTS, f"absurd size {value} in shape {str(t)[:100]}")
            total *= max(value, 1)
        self._check(total <= MAX_ELEMENTS, f"absurd shape {str(t)[:100]}: more than {MAX_ELEMENTS} elements")

    def _size(self, data: Any, depth: int = 0) -> Size:
        self._check(depth <= _MAX_DEPTH, "a size is nested too deep")
        if type(data) is int:
            self._check(abs(data) <= MAX_ELEMENTS, f"absurd size {str(data)[:40]}")
            return data
        if isinstance(data, str):
            self._check(data in self._hints, f"unknown size {data[:40]!r}")
            return symbol(data, self._hints[data])
        terms = self._get(data, "size", list)
        self._check(len(terms) <= 64, "a size has too many terms")
        total: Size = 0
        for term in terms:
            good = isinstance(term, list) and len(term) == 2 and type(term[0]) is int and isinstance(term[1], list)
            self._check(good and len(term[1]) <= 16 and abs(term[0]) <= MAX_ELEMENTS, f"bad size {str(term)[:60]!r}")
            value: Size = term[0]
            for factor in term[1]:
                value = value * self._factor(factor, depth)
            total = total + value
        return total

    def _factor(self, data: Any, depth: int) -> Size:
        if isinstance(data, str):
            return self._size(data, depth + 1)
        good = isinstance(data, list) and len(data) == 3 and data[0] in ("//", "%")
        self._check(good, f"bad factor of a size {str(data)[:60]!r}")
        left, right = (self._size(d, depth + 1) for d in data[1:])
        try:
            return left // right if data[0] == "//" else left % right
        except ZeroDivisionError:
            return self._fail("a size is divided by 0")

    def _attribute(self, data: Any, depth: int = 0) -> Any:
        self._check(depth <= _MAX_DEPTH, "an attribute is nested too deep")
        if data is None or isinstance(data, (bool, str, float)):
            return data
        if isinstance(data, int):
            self._check(-(1 << 63) <= data < 1 << 64, "an attribute's number is too large")
            return data
        if isinstance(data, list):
            return tuple(self._attribute(d, depth + 1) for d in data)
        self._check(isinstance(data, dict) and len(data) == 1, f"bad attribute {str(data)[:60]!r}")
        ((key, value),) = data.items()
        if key == "dtype":
            return self._dtype(value)
        if key == "float" and value in ("inf", "-inf", "nan"):
            return float(value)
        if key == "complex" and isinstance(value, list) and len(value) == 2:
            parts = [self._attribute(v, depth + 1) for v in value]
            self._check(all(isinstance(p, (int, float)) for p in parts), "bad complex number")
            return complex(*parts)
        if key == "size":
            return self._size(data, depth + 1)
        if key == "graph":
            where, depth = f"{self._where}{self._at}", self._depth + 1
            if self._op == "graph_call":  # a function of its own
                return _Decoder(where, depth).whole(value)
            return _Decoder(where, depth, self._hints).graph(value)  # what it asks, this graph asks
        return self._fail(f"bad attribute {str(data)[:60]!r}")

    def _guard(self, data: Any) -> Guard:
        good = isinstance(data, list) and len(data) == 4 and data[1] in ("==", "!=", "<", "<=", ">", ">=")
        self._check(good and type(data[3]) is bool, f"bad guard {str(data)[:60]!r}")
        return Guard(self._size(data[0]), data[1], self._size(data[2]), data[3])


def _dims_of(graph: Graph) -> Iterator[Dim]:
    """The symbolic sizes in the types of a graph."""
    values = [*graph.inputs, *[v for eq in every_equation(graph) for v in eq.outputs]]
    return (d for v in values for d in v.shape if isinstance(d, Dim))
