"""Random graphs over the op table, for tests/graph_fuzzer.py: `Maker(seed).build()`."""

from __future__ import annotations

import ml_dtypes
import numpy as np

import ndarray  # noqa: F401  (fills the op table)
from hybrid.graph import Builder, Graph, Literal, Value
from ndarray.dims import Dim, evaluate, symbol
from ndarray.op import ArrayType

F32, F64, BOOL = np.dtype(np.float32), np.dtype(np.float64), np.dtype(bool)
F16, BF16 = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
INTEGERS = tuple(map(np.dtype, ("int32", "int64", "uint8", "uint32", "int8", "int16", "uint16", "uint64")))
LIMIT = 1e5
"""Floats stay within this bound, so that nothing overflows and casts to integers are defined."""


def limit_of(dtype: np.dtype) -> float:
    """LIMIT, or what float16 holds."""
    return 3e4 if dtype == F16 else LIMIT


def kind_of(dtype: np.dtype) -> str:
    """NumPy's letter for the kind of a dtype; bfloat16's is that of floats."""
    return "f" if dtype == BF16 else dtype.kind


# -- graphs

class Maker:
    """A random graph, built operation by operation; `bound` limits what each float value can be."""

    def __init__(self, seed: int):
        self.random = np.random.default_rng(seed)
        self.builder = Builder(f"seed {seed}")
        self.bound: dict[Value, float] = {}
        self.values: list[Value] = []
        self.hidden: set[Value] = set()  # results that no graph of a user's has
        self.arrays: list = []  # for each input a function of the sizes
        r = self.random
        self.symbolic = bool(r.random() < 0.5)
        self.empty = self.symbolic  # whether a symbol may be 0
        self.main = (F32, F32, F32, F64, F64, np.dtype("int32"), np.dtype("int64"), F16, BF16)[int(r.integers(9))]
        small = [1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 31, 33, 40]
        self.sizes: list = [int(r.choice(small)) for _ in range(2)]
        if r.random() < 0.15:
            self.sizes.append(int(r.choice([100, 257, 1000])))
        if self.symbolic:
            self.sizes += [symbol("n", 6), symbol("m", 5)][: int(r.integers(1, 3))]

    def build(self) -> Graph:
        r = self.random
        for s in (d for d in self.sizes if isinstance(d, Dim)):
            self.input((s, self.sizes[0]), self.main)
        for _ in range(int(r.integers(2, 5))):
            dtype = self.main if r.random() < 0.7 else self.any_dtype()
            self.input(self.shape(), dtype)
        wanted, tries = int(r.integers(3, 22)), 0
        while len(self.builder.equations) < wanted and tries < 200:
            tries += 1
            step = STEPS[int(r.integers(len(STEPS)))]
            try:
                step(self)
            except Skip:
                continue
        made = [v for eq in self.builder.equations for v in eq.outputs if v not in self.hidden]
        count = min(len(made), int(r.integers(1, 5)))
        outputs = [made[int(i)] for i in r.choice(len(made), count, replace=False)] + made[-1:]
        state = {}
        if r.random() < 0.3:
            for i, v in enumerate(self.builder.inputs):
                same = [w for w in made if w.dtype == v.dtype and identical(w.shape, v.shape)]
                if same and r.random() < 0.5:
                    state[i] = same[int(r.integers(len(same)))]
        return self.builder.build(outputs, state)

    def any_dtype(self) -> np.dtype:
        return (F32, F64, F16, BF16, BOOL, *INTEGERS)[int(self.random.integers(5 + len(INTEGERS)))]

    def shape(self, low=0, high=4) -> tuple:
        r = self.random
        rank = int(r.choice([0, 1, 2, 2, 2, 3, 3, 4]))
        rank = min(max(rank, low), high)
        shape = [self.sizes[int(r.integers(len(self.sizes)))] if r.random() < 0.85 else 1 for _ in range(rank)]
        while elements(shape) > 40_000:
            shape.pop()
        return tuple(shape)

    def input(self, shape: tuple, dtype: np.dtype) -> Value:
        value = self.builder.input(ArrayType(tuple(shape), dtype), f"x{len(self.builder.inputs)}")
        self.values.append(value)
        self.bound[value] = 4.0 if kind_of(dtype) == "f" else 9.0
        seed, whole = int(self.random.integers(1 << 30)), self.random.random() < 0.1

        def make(sizes):
            g = np.random.default_rng(seed)
            shape = tuple(evaluate(d, sizes) for d in value.shape)
            if dtype == BOOL:
                return np.asarray(g.random(shape) < 0.5)
            if kind_of(dtype) == "f":
                x = np.clip(g.standard_normal(shape), -4, 4)
                return np.asarray(np.round(x) if whole else x).astype(dtype)
            return np.asarray(g.integers(0 if kind_of(dtype) == "u" else -9, 10, shape)).astype(dtype)

        self.arrays.append(make)
        return value

    def pick(self, test=lambda v: True) -> Value:
        """A value that satisfies `test`, recent ones more often."""
        found = [v for v in self.values if test(v)]
        if not found:
            raise Skip
        i = int(self.random.integers(len(found)))
        return found[max(i, int(self.random.integers(len(found))))]

    def partner(self, x: Value) -> Value | Literal:
        """A value or literal of the dtype of `x` that broadcasts with it."""
        if self.random.random() < 0.2:
            return self.literal(x.dtype)
        return self.pick(lambda v: v.dtype == x.dtype and fits(v.shape, x.shape))

    def literal(self, dtype: np.dtype) -> Literal:
        r = self.random
        if dtype == BOOL:
            return Literal(bool(r.random() < 0.5), dtype)
        if kind_of(dtype) == "f":
            choice = [0.0, 1.0, -1.0, 2.0, 0.5, -0.0, float(np.float32(r.standard_normal()))]
            return Literal(choice[int(r.integers(len(choice)))], dtype)
        return Literal(int(r.integers(0 if kind_of(dtype) == "u" else -3, 7)), dtype)

    def bounded(self, atom) -> float:
        return self.bound.get(atom, 4.0) if isinstance(atom, Value) else abs(float(atom.value))

    def emit(self, op: str, *inputs, bound: float = LIMIT * 2, **attrs):
        """Emit and keep; float results that may pass the limit are squashed by tanh."""
        outputs = self.builder.emit(op, *inputs, **attrs)
        out = outputs[0]
        if elements(out.shape) > 60_000:
            self.builder.equations.pop()
            raise Skip
        for o in outputs:
            self.bound[o] = bound
            self.values.append(o)
        if kind_of(out.dtype) == "f" and not bound <= limit_of(out.dtype):
            self.values.remove(out)
            return self.emit("tanh", out, bound=1.0)
        return out


class Skip(Exception):
    """Nothing fits: try another step."""


def elements(shape) -> int:
    total = 1
    for d in shape:
        total *= d.hint if isinstance(d, Dim) else d
    return total


def alike(a, b) -> bool:
    """Equal sizes, without asking a guard."""
    return a.terms == b.terms if isinstance(a, Dim) and isinstance(b, Dim) else type(a) is type(b) and a == b


def identical(a, b) -> bool:
    return len(a) == len(b) and all(map(alike, a, b))


def one(d) -> bool:
    return type(d) is int and d == 1


def fits(a, b) -> bool:
    return all(alike(x, y) or one(x) or one(y) for x, y in zip(reversed(a), reversed(b)))


def floats(v) -> bool:
    return kind_of(v.dtype) == "f"


def integers(v) -> bool:
    return kind_of(v.dtype) in "iu"


def numbers(v) -> bool:
    return kind_of(v.dtype) in "iuf"


def never_empty(sizes) -> bool:
    """Whether sizes are at least 1 wherever the symbols are."""
    plain = lambda d: all(c > 0 and all(type(a) is str for a in m) for m, c in d.terms)
    return all(plain(d) if isinstance(d, Dim) else d > 0 for d in sizes)


def static(v) -> bool:
    return not any(isinstance(d, Dim) for d in v.shape)


# -- steps: each adds one or a few equations

def unary(m: Maker) -> None:
    x = m.pick(floats)
    b = m.bounded(x)
    small = ["exp", "expm1", "sigmoid", "sin", "cos", "tanh", "erf", "ndtr", "floor", "ceil", "trunc", "round", "relu", "abs",
             "negative", "sign", "isnan", "isinf", "gelu", "gelu_tanh", "silu", "softplus", "mish", "arctan", "arcsinh", "sinh",
             "cosh", "exp2", "stop_gradient", "copy"]
    name = small[int(m.random.integers(len(small)))]
    if name in ("exp", "expm1", "sinh", "cosh", "exp2") and b > 8:
        raise Skip
    bounds = dict.fromkeys(("exp", "expm1", "sinh", "cosh", "exp2"), np.exp(min(b, 9)))
    bounds |= dict.fromkeys(("sigmoid", "sin", "cos", "tanh", "erf", "ndtr", "sign"), 1.0)
    m.emit(name, x, bound=float(bounds.get(name, b + 1)))


def positive(m: Maker) -> None:
    """log, log1p, sqrt of something positive."""
    x = m.pick(floats)
    y = m.emit("abs", x, bound=m.bounded(x))
    if m.random.random() < 0.6:
        y = m.emit("add", y, Literal(0.25, x.dtype), bound=m.bounded(x) + 1)
        m.emit(("log", "log1p", "sqrt")[int(m.random.integers(3))], y, bound=max(14.0, m.bounded(x)))
    else:
        m.emit(("log1p", "sqrt")[int(m.random.integers(2))], y, bound=max(14.0, m.bounded(x)))


def binary(m: Maker) -> None:
    x = m.pick(floats)
    y = m.partner(x)
    a, b = m.bounded(x), m.bounded(y)
    name = ("add", "subtract", "multiply", "maximum", "minimum")[int(m.random.integers(5))]
    pair = (x, y) if m.random.random() < 0.7 else (y, x)
    m.emit(name, *pair, bound=a * b if name == "multiply" else a + b)


def quotient(m: Maker) -> None:
    x = m.pick(floats)
    y = m.emit("abs", m.pick(lambda v: v.dtype == x.dtype and fits(v.shape, x.shape)))
    y = m.emit("add", y, Literal(0.5, x.dtype), bound=LIMIT)
    name = ("divide", "divide", "floor_divide", "remainder", "arctan2", "hypot")[int(m.random.integers(6))]
    m.emit(name, x, y, bound=max(4.0, 2 * m.bounded(x) + 1) if name not in ("remainder", "hypot") else LIMIT)


def power(m: Maker) -> None:
    x = m.pick(floats)
    if m.random.random() < 0.5:
        exponent = float(m.random.choice([2.0, 3.0, 1.0, 0.0, -1.0, 0.5, -2.0]))
        base = m.emit("add", m.emit("abs", x, bound=m.bounded(x)), Literal(0.5, x.dtype), bound=m.bounded(x) + 1)
        m.emit("power", base, Literal(exponent, x.dtype), bound=max(4.0, (m.bounded(x) + 1) ** 3))
        return
    base = m.emit("add", m.emit("sigmoid", x, bound=1), Literal(0.5, x.dtype), bound=1.5)
    y = m.partner(x)
    m.emit("power", base, y, bound=2.0 ** min(m.bounded(y), 100))


def integer(m: Maker) -> None:
    x = m.pick(integers)
    y = m.partner(x)
    names = ["add", "subtract", "multiply", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor", "floor_divide",
             "remainder", "negative", "abs", "sign", "bitwise_not", "shift"]
    name = names[int(m.random.integers(len(names)))]
    if name in ("negative", "abs", "sign", "bitwise_not"):
        if kind_of(x.dtype) == "u" and name in ("negative",):
            raise Skip
        m.emit(name, x)
    elif name == "shift":
        count = Literal(int(m.random.integers(0, x.dtype.itemsize * 8)), x.dtype)
        m.emit(("left_shift", "right_shift")[int(m.random.integers(2))], x, count)
    elif name in ("floor_divide", "remainder"):
        if isinstance(y, Literal):
            m.emit(name, x, Literal(int(m.random.choice([1, 2, 3, 7, 8])), x.dtype))
        else:
            m.emit(name, x, m.emit("bitwise_or", y, Literal(1, x.dtype)))
    else:
        m.emit(name, x, y)


def boolean(m: Maker) -> None:
    x = m.pick(lambda v: v.dtype == BOOL)
    if m.random.random() < 0.3:
        m.emit("logical_not", x)
    else:
        m.emit(("bitwise_and", "bitwise_or", "bitwise_xor")[int(m.random.integers(3))], x, m.partner(x))


def compare(m: Maker) -> None:
    x = m.pick(numbers)
    names = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
    m.emit(names[int(m.random.integers(6))], x, m.partner(x))


def choose(m: Maker) -> None:
    x = m.pick(numbers)
    y = m.partner(x)
    c = m.pick(lambda v: v.dtype == BOOL and fits(v.shape, x.shape) and fits(v.shape, y.shape))
    m.emit("where", c, x, y, bound=max(m.bounded(x), m.bounded(y)))


def convert(m: Maker) -> None:
    x = m.pick()
    target = m.any_dtype()
    if kind_of(x.dtype) == "f" and kind_of(target) in "iu":
        target = np.dtype(("int32", "int64")[int(m.random.integers(2))])
    if kind_of(x.dtype) in "iu" and kind_of(target) == "f" and not m.bounded(x) <= 100:
        x = m.emit("bitwise_and", x, Literal(63, x.dtype), bound=64.0)
    m.emit("cast", x, dtype=target, bound=m.bounded(x) if kind_of(target) == "f" or kind_of(x.dtype) in "fb" else np.inf)


def reduce(m: Maker) -> None:
    name = ("sum", "sum", "sum", "prod", "max", "min", "all", "any", "argmax", "argmin")[int(m.random.integers(10))]
    kinds = {"all": "b", "any": "b", "prod": "iu"}.get(name, "iuf")
    x = m.pick(lambda v: kind_of(v.dtype) in kinds and v.shape)
    keep = bool(m.random.random() < 0.4)
    rank = len(x.shape)
    if name.startswith("arg"):
        m.empty, axis = False, int(m.random.integers(rank))
        if not never_empty(x.shape[axis : axis + 1]):
            raise Skip
        m.emit(name, x, axis=axis, keepdims=keep)
        return
    axes = tuple(k for k in range(rank) if m.random.random() < 0.5) or (rank - 1,)
    if name in ("max", "min"):
        m.empty = False
        if not never_empty(x.shape[k] for k in axes):
            raise Skip
    count = elements([x.shape[k] for k in axes]) * (16 if not static(x) else 1)
    m.emit(name, x, axes=axes, keepdims=keep, bound=m.bounded(x) * (count if name == "sum" else 1))


def softmax(m: Maker) -> None:
    x = m.pick(lambda v: floats(v) and v.shape)
    axes = (int(m.random.integers(len(x.shape))),)
    m.empty = False
    if not never_empty([x.shape[axes[0]]]):
        raise Skip
    high = m.emit("max", x, axes=axes, keepdims=True, bound=m.bounded(x))
    e = m.emit("exp", m.emit("subtract", x, high, bound=2 * m.bounded(x)), bound=1.0)
    total = m.emit("sum", e, axes=axes, keepdims=True, bound=LIMIT)
    if m.random.random() < 0.5:
        m.emit("divide", e, total, bound=1.0)
    else:
        m.emit("log", total, bound=12.0)


def normalize(m: Maker) -> None:
    x = m.pick(lambda v: floats(v) and v.shape and m.bounded(v) < 200)
    axes = tuple(k for k in range(len(x.shape)) if m.random.random() < 0.6) or (len(x.shape) - 1,)
    size = float(max(1, elements([x.shape[k] for k in axes])))
    mean = m.emit("divide", m.emit("sum", x, axes=axes, keepdims=True, bound=LIMIT), Literal(size, x.dtype), bound=LIMIT)
    d = m.emit("subtract", x, mean, bound=LIMIT)
    v = m.emit("sum", m.emit("multiply", d, d, bound=LIMIT), axes=axes, keepdims=True, bound=LIMIT)
    m.emit("divide", d, m.emit("sqrt", m.emit("add", v, Literal(0.5, x.dtype), bound=LIMIT), bound=LIMIT), bound=LIMIT)


def reshape(m: Maker) -> None:
    x = m.pick(lambda v: v.shape)
    shape = list(x.shape)
    kind = int(m.random.integers(5))
    k = int(m.random.integers(len(shape)))
    if kind == 0 and len(shape) > 1:
        k = min(k, len(shape) - 2)
        shape[k : k + 2] = [shape[k] * shape[k + 1]]
    elif kind == 1:
        n = shape[k]
        divisors = [d for d in (2, 3, 4, 5, 8) if type(n) is int and n and n % d == 0]
        if not divisors:
            raise Skip
        d = divisors[int(m.random.integers(len(divisors)))]
        shape[k : k + 1] = [d, n // d] if m.random.random() < 0.5 else [n // d, d]
    elif kind == 2:
        shape.insert(k, 1)
    elif kind == 3:
        total = 1
        for d in shape:
            total = total * d
        shape = [total]
    else:
        ints = [d for d in shape if not one(d)]
        if len(ints) == len(shape):
            raise Skip
        shape = ints
    if len(shape) > 5:
        raise Skip
    m.emit("reshape", x, shape=tuple(shape), bound=m.bounded(x))


def transpose(m: Maker) -> None:
    x = m.pick(lambda v: len(v.shape) > 1)
    m.emit("transpose", x, axes=tuple(map(int, m.random.permutation(len(x.shape)))), bound=m.bounded(x))


def broadcast(m: Maker) -> None:
    x = m.pick(lambda v: len(v.shape) < 4)
    shape = [m.sizes[int(m.random.integers(len(m.sizes)))] if one(d) and m.random.random() < 0.7 else d for d in x.shape]
    if m.random.random() < 0.6:
        shape.insert(0, m.sizes[int(m.random.integers(len(m.sizes)))])
    if elements(shape) > 40_000:
        raise Skip
    m.emit("broadcast_to", x, shape=tuple(shape), bound=m.bounded(x))


def region(m: Maker, shape) -> dict:
    """A slice: within static axes anywhere, of symbolic ones a part that any size has."""
    start, stop, step = [], [], []
    for n in shape:
        if isinstance(n, Dim):
            kind = int(m.random.integers(4))
            start.append(n // 2 if kind == 1 else 0)
            stop.append(n // 2 if kind == 2 else n)
            step.append(int(m.random.choice([1, 2])) if kind == 3 else 1)
        else:
            a, b = sorted(map(int, m.random.integers(0, n + 1, 2)))
            if m.random.random() < 0.4 or (a == b and m.random.random() < 0.9):
                a, b = 0, n
            start.append(a)
            stop.append(b)
            step.append(int(m.random.choice([1, 1, 2, 3])))
    return {"start": tuple(start), "stop": tuple(stop), "step": tuple(step)}


def cut(m: Maker) -> None:
    x = m.pick(lambda v: v.shape)
    y = m.emit("slice", x, **region(m, x.shape), bound=m.bounded(x))
    if 0 in [d for d in y.shape if type(d) is int]:
        m.values.remove(y)  # empty arrays are tested once, not carried on


def update(m: Maker) -> None:
    x = m.pick(lambda v: v.shape)
    where = region(m, x.shape)
    shape = m.builder.emit("slice", x, **where)[0].shape
    m.builder.equations.pop()
    found = [v for v in m.values if v.dtype == x.dtype and identical(v.shape, shape)]
    value = found[-1] if found else m.emit("broadcast_to", m.pick(lambda v: v.dtype == x.dtype and fits(v.shape, shape) and len(
        v.shape) <= len(shape) and all(one(a) or alike(a, b) for a, b in zip(reversed(v.shape), reversed(shape)))), shape=shape)
    m.emit("update_slice", x, value, **where, bound=max(m.bounded(x), m.bounded(value)))


def flip(m: Maker) -> None:
    x = m.pick(lambda v: v.shape)
    axes = tuple(k for k in range(len(x.shape)) if m.random.random() < 0.5)
    m.emit("flip", x, axes=axes, bound=m.bounded(x))


def pad(m: Maker) -> None:
    x = m.pick(lambda v: v.shape and v.dtype != BOOL)
    low, high, interior = [], [], []
    for n in x.shape:
        crop = -1 if type(n) is int and n > 3 else 0
        low.append(int(m.random.integers(crop, 4)))
        high.append(int(m.random.integers(crop, 4)))
        interior.append(int(m.random.choice([0, 0, 0, 1, 2])) if type(n) is int else 0)
    value = float(m.random.choice([0.0, 0.0, 1.0, 3.0]))
    m.emit("pad", x, low=tuple(low), high=tuple(high), interior=tuple(interior), value=value, bound=max(m.bounded(x), 3.0))


def concatenate(m: Maker) -> None:
    x = m.pick(lambda v: v.shape)
    axis = int(m.random.integers(len(x.shape)))
    same = lambda v: v.dtype == x.dtype and len(v.shape) == len(x.shape) and all(
        k == axis or alike(a, b) for k, (a, b) in enumerate(zip(v.shape, x.shape)))
    parts = [x, *[m.pick(same) for _ in range(int(m.random.integers(1, 4)))]]
    m.emit("concatenate", *parts, axis=axis, bound=max(map(m.bounded, parts)))


def iota(m: Maker) -> None:
    shape = m.shape(1)
    dtype = (m.main, np.dtype("int64"))[int(m.random.integers(2))]
    m.emit("iota", shape=shape, axis=int(m.random.integers(len(shape))), dtype=dtype, bound=1000.0)


def gather(m: Maker) -> None:
    x = m.pick(lambda v: v.shape and not any(isinstance(d, Dim) for d in v.shape))
    if 0 in x.shape:
        raise Skip
    index = m.pick(lambda v: v.dtype in (np.dtype("int64"), np.dtype("int32")) and len(v.shape) < 3)
    axis = int(m.random.integers(len(x.shape)))
    m.emit("take", x, index, axis=axis, mode=("clip", "wrap")[int(m.random.integers(2))], bound=m.bounded(x))


def scatter(m: Maker) -> None:
    base = m.pick(lambda v: numbers(v) and v.shape and static(v) and 0 not in v.shape and m.bounded(v) < 1000)
    axis = int(m.random.integers(len(base.shape)))
    index = m.pick(lambda v: v.dtype in (np.dtype("int64"), np.dtype("int32")) and len(v.shape) == 1)
    shape = (*base.shape[:axis], *index.shape, *base.shape[axis + 1 :])
    ok = lambda v: v.dtype == base.dtype and identical(v.shape, shape)
    updates = m.pick(ok) if any(map(ok, m.values)) else m.input(shape, base.dtype)
    m.emit("scatter_add", base, index, updates, axis=axis, mode=("clip", "wrap")[int(m.random.integers(2))],
           bound=m.bounded(base) + m.bounded(updates) * elements(index.shape) * 16)


def along(m: Maker) -> None:
    x = m.pick(lambda v: v.shape and static(v) and 0 not in v.shape)
    axis = int(m.random.integers(len(x.shape)))
    n = x.shape[axis]
    position = m.emit("iota", shape=x.shape, axis=int(m.random.integers(len(x.shape))), dtype=np.dtype("int64"))
    index = m.emit("remainder", m.emit("multiply", position, Literal(int(m.random.integers(1, 5)), position.dtype)),
                   Literal(n, position.dtype))
    if m.random.random() < 0.5 or not numbers(x):
        m.emit("take_along", x, index, axis=axis, bound=m.bounded(x))
    else:
        m.emit("scatter_along_add", x, index, x, axis=axis, bound=m.bounded(x) * (n + 1))


def product(m: Maker) -> None:
    """dot_general with random batch and contracted axes; the second operand is found, or made."""
    kind = int(m.random.integers(8))
    if kind == 0:  # integers wrap
        x = m.pick(lambda v: integers(v) and v.shape)
    elif kind == 1:
        x = in_bytes(m, m.shape(1))
    else:
        x = m.pick(lambda v: floats(v) and v.shape and m.bounded(v) < 1000)
    rank = len(x.shape)
    axes = list(map(int, m.random.permutation(rank)))
    contracted = axes[: int(m.random.choice([0, 1, 1, 1, 2]))]
    batch = axes[len(contracted) :][: int(m.random.choice([0, 0, 0, 1, 2]))]
    free = [m.sizes[int(m.random.integers(len(m.sizes)))] for _ in range(int(m.random.choice([0, 1, 1, 1, 2])))]
    parts = [("c", k) for k in contracted] + [("b", k) for k in batch] + [("f", i) for i in range(len(free))]
    parts = [parts[int(i)] for i in m.random.permutation(len(parts))]
    shape = tuple(free[k] if kind == "f" else x.shape[k] for kind, k in parts)
    if elements(shape) > 40_000 or elements(x.shape) * elements(free) > 2_000_000:
        raise Skip
    ok = lambda v: v.dtype == x.dtype and identical(v.shape, shape) and (not floats(x) or m.bounded(v) < 1000)
    y = in_bytes(m, shape) if kind == 1 else m.pick(ok) if any(map(ok, m.values)) else m.input(shape, x.dtype)
    contract = tuple(contracted), tuple(parts.index(("c", k)) for k in contracted)
    batched = tuple(batch), tuple(parts.index(("b", k)) for k in batch)
    count = elements([x.shape[k] for k in contracted]) * (16 if not static(x) else 1)
    if kind == 1 and m.random.random() < 0.8:
        m.emit("dot_integer", x, y, contract=contract, batch=batched, bound=np.inf)
    elif x.dtype == y.dtype:
        m.emit("dot_general", x, y, contract=contract, batch=batched, bound=m.bounded(x) * m.bounded(y) * count)


def in_bytes(m: Maker, shape: tuple) -> Value:
    """int8 or uint8 over most of its range."""
    dtype = INTEGERS[int(m.random.choice([2, 4]))]
    return m.emit("multiply", m.input(tuple(shape), dtype), Literal(14 if kind_of(dtype) == "i" else 28, dtype), bound=np.inf)


def attend(m: Maker) -> None:
    """Attention: heads behind the positions, any number of which may be symbolic."""
    r = m.random
    m.empty, dtype = False, F64 if m.main == F64 else F32  # narrow floats are cast before they attend
    n, length, keys = (m.sizes[int(r.integers(len(m.sizes)))] for _ in range(3))
    heads, width, out = int(r.choice([1, 2, 3])), int(r.choice([1, 3, 8, 16, 20, 33])), int(r.choice([4, 8, 16, 17]))
    lead = (n,) if r.random() < 0.6 else ()
    if not never_empty([*lead, length, keys]) or elements((*lead, heads, length, keys)) > 60_000:
        raise Skip
    q, k = m.input((*lead, length, heads, width), dtype), m.input((*lead, keys, heads, width), dtype)
    v = m.input((*lead, keys, heads, width if r.random() < 0.5 else out), dtype)
    if r.random() < 0.5:
        q = m.emit("tanh", q, bound=1.0)
    attrs = {"scale": float(width**-0.5), "causal": bool(r.random() < 0.4)}
    if r.random() < 0.3:
        mask = m.input(((length, keys), (1, keys), (heads, length, keys))[int(r.integers(3))], dtype)
        m.emit("masked_attention", q, k, v, mask, **attrs, bound=m.bounded(v))
    else:
        m.emit("attention", q, k, v, **attrs, bound=m.bounded(v))
    m.hidden.update(m.builder.equations[-1].outputs[1:])  # what is kept of the rows is for its gradient
    m.values = [v for v in m.values if v not in m.hidden]


def convolution(m: Maker) -> None:
    r = m.random
    spatial = int(r.choice([1, 2, 2, 3]))
    x = m.pick(lambda v: floats(v) and len(v.shape) >= 2 + spatial and m.bounded(v) < 1000) if r.random() < 0.3 else None
    groups = int(r.choice([1, 1, 1, 2, 3]))
    if x is None or len(x.shape) != 2 + spatial or any(isinstance(d, Dim) for d in x.shape[1:]) or x.shape[1] % groups:
        n = m.sizes[int(r.integers(len(m.sizes)))]
        size = [int(s) for s in r.integers(1, (60, 12, 6)[spatial - 1], spatial)]
        dtype = m.main if kind_of(m.main) == "f" else F32
        x = m.input((n, groups * int(r.choice([1, 2, 3, 5, 16])), *size), dtype)
    kernel = tuple(int(k) for k in r.choice([1, 2, 3, 5], spatial))
    stride = tuple(int(k) for k in r.choice([1, 1, 2, 3], spatial))
    dilation = tuple(int(k) for k in r.choice([1, 1, 1, 2], spatial))
    padding = tuple((int(a), int(b)) for a, b in r.integers(0, 3, (spatial, 2)))
    outputs = groups * int(r.choice([1, 2, 4, 7, 16, 33]))
    if spatial == 2 and r.random() < 0.25:  # as most networks have them
        x = m.input((int(r.choice([1, 2, 3])), int(r.choice([16, 24, 32, 40])), *map(int, r.integers(3, 15, 2))), x.dtype)
        groups, outputs = (1, int(r.choice([16, 24, 33, 48]))) if r.random() < 0.7 else (x.shape[1], x.shape[1])
        kernel, stride, dilation, padding = (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))
    for n, k, d, (a, b) in zip(x.shape[2:], kernel, dilation, padding):
        if n + a + b < (k - 1) * d + 1:
            raise Skip
    w = m.input((outputs, x.shape[1] // groups, *kernel), x.dtype)
    attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    count = x.shape[1] * int(np.prod(kernel))
    y = m.emit("convolution", x, w, **attrs, bound=m.bounded(x) * m.bounded(w) * count)
    if y.shape[1:] and len(y.shape) == len(x.shape) and r.random() < 0.6:
        if r.random() < 0.5:
            m.emit("convolution_data_gradient", y, w, shape=x.shape, **attrs)
        else:
            m.emit("convolution_weight_gradient", x, y, shape=w.shape, **attrs)


def pool(m: Maker) -> None:
    r = m.random
    x = m.pick(lambda v: floats(v) and len(v.shape) >= 2)
    rank = int(r.integers(1, min(3, len(x.shape) - 1) + 1))
    trailing = x.shape[-rank:]
    if any(isinstance(d, Dim) or d < 2 for d in trailing):
        lead = m.sizes[int(r.integers(len(m.sizes)))]
        x = m.input((lead, *[int(k) for k in r.integers(3, 12, rank)]), m.main if kind_of(m.main) == "f" else F32)
        trailing = x.shape[-rank:]
    kernel = tuple(int(min(k, d)) for k, d in zip(r.choice([1, 2, 3], rank), trailing))
    stride = tuple(int(k) for k in r.choice([1, 2, 3], rank))
    padding = tuple((int(min(a, k - 1)), int(min(b, k - 1))) for (a, b), k in zip(r.integers(0, 2, (rank, 2)), kernel))
    attrs = {"kernel": kernel, "stride": stride, "padding": padding}
    if r.random() < 0.4:
        y = m.emit("sum_pool", x, **attrs, bound=m.bounded(x) * 27)
        if len(y.shape) == len(x.shape):
            m.emit("sum_unpool", y, shape=x.shape, **attrs)
        return
    y = m.emit("max_pool", x, **attrs, bound=m.bounded(x))
    index = m.values[-1]
    if index is y or kind_of(index.dtype) != "i":
        return
    if r.random() < 0.6:
        m.emit("max_unpool", y, index, shape=x.shape, **attrs)
    else:
        m.emit("max_pool_gather", x, index, **attrs, bound=m.bounded(x))


def bits(m: Maker) -> None:
    state = m.builder.input(ArrayType((2,), np.dtype(np.uint64)), "state")
    seed = m.random.integers(0, 1 << 63, 2).astype(np.uint64)
    m.arrays.append(lambda sizes: seed.copy())
    b = m.emit("random_bits", state, shape=m.shape(1))
    u = m.emit("right_shift", b, Literal(8, b.dtype))
    m.emit("cast", u, dtype=F32, bound=2.0**24)


def order(m: Maker) -> None:
    """Computed by the host between native segments."""
    x = m.pick(lambda v: numbers(v) and v.shape)
    m.emit("argsort", x, axis=int(m.random.integers(len(x.shape))), descending=bool(m.random.random() < 0.5))


STEPS = [f for f, weight in (
    (unary, 4), (positive, 1), (binary, 5), (quotient, 1), (power, 1), (integer, 2), (boolean, 1), (compare, 2), (choose, 2),
    (convert, 2), (reduce, 4), (softmax, 1), (normalize, 1), (reshape, 3), (transpose, 2), (broadcast, 2), (cut, 2), (update, 1),
    (flip, 1), (pad, 1), (concatenate, 2), (iota, 1), (gather, 1), (scatter, 1), (along, 1), (product, 3), (convolution, 1),
    (pool, 1), (bits, 1), (order, 1), (attend, 1),
) for _ in range(weight)]
