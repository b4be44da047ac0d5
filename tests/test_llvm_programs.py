"""Whole kernels of generated code against the interpreter: elementary functions, and random programs."""

import random

import numpy as np
import pytest
from native_kernels import Native, check, each_target, elementwise

from jit import machine
from jit.loopir import (
    INT,
    Apply,
    Buffer,
    Const,
    For,
    Get,
    If,
    Kernel,
    Let,
    Load,
    Register,
    Set,
    Store,
    Type,
    Var,
    apply,
    const,
    ramp,
)
from jit.vector_math import expand

FUNCTIONS = ("exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "erf")


@each_target
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_elementary_functions(dtype, target):
    """Equal to the interpreter bit for bit where the machine fuses multiply and add, nearly so elsewhere."""
    lanes = target.lanes(dtype)
    kernels = {op: elementwise(op, [dtype], dtype, lambda x, op=op: apply(op, x), lanes) for op in FUNCTIONS}
    native = Native(list(kernels.values()), target)
    x = np.concatenate([np.linspace(-6, 6, 77), [0.0, -0.0, 1e-9, 50.0, np.inf, -np.inf, np.nan]]).astype(dtype)
    for op, kernel in kernels.items():
        y = np.zeros(len(x), dtype)
        native(op, [x, y], [len(x)], 0, -(-len(x) // lanes))
        with np.errstate(all="ignore"):
            want = REFERENCE[op](x.astype(np.float64))
        tolerance = 2e-6 if dtype == "float32" else 2e-14
        absolute = tolerance * (1e-3 if target.fma else 1)  # range reduction by fma is the more exact
        np.testing.assert_allclose(y, want.astype(dtype), rtol=tolerance, atol=absolute, err_msg=op)
        if target.fma:
            check(expand(kernel), target, [x, np.zeros(len(x), dtype)], [len(x)], -(-len(x) // lanes), native)


def _erf(x):
    from math import erf

    return np.array([erf(v) for v in x])


REFERENCE = {op: getattr(np, op) for op in FUNCTIONS if op != "erf"} | {"erf": _erf}


class Programs:
    """Random kernels over one int64 buffer of 64 elements, one float32 buffer of 64 and two parameters."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.count = 0

    def name(self):
        self.count += 1
        return f"v{self.count}"

    def integer(self, scope, depth=3):
        """An int64 expression over the names in scope."""
        r = self.random
        leaf = r.random()
        if depth == 0 or leaf < 0.25:
            kind = r.randrange(4)
            if kind == 0:
                return const(r.choice([0, 1, 2, 3, -1, 7, 16, -5]))
            if kind == 1 and scope["registers"]:
                return Get(r.choice(scope["registers"]), INT)
            if kind == 2:
                return Load("x", self.place(scope, 0), INT)
            return Var(r.choice(scope["variables"]))
        a, b = self.integer(scope, depth - 1), self.integer(scope, depth - 1)
        op = r.choice(["add", "add", "sub", "mul", "mul", "floordiv", "mod", "min", "max", "xor", "select"])
        if op == "select":
            condition = apply(r.choice(["lt", "ge", "eq"]), a, b)
            return apply("select", condition, self.integer(scope, depth - 1), b + const(1))
        return Apply(op, (a, b), INT) if r.random() < 0.3 else apply(op, a, b)

    def place(self, scope, depth=2):
        """An index within the buffers."""
        return apply("mod", self.integer(scope, depth), const(32))

    def floats(self, scope, lanes):
        r, type = self.random, Type("float32", lanes)
        x = Load("f", self.place(scope, 1), type)
        if r.random() < 0.5:
            x = apply(r.choice(["min", "max", "add", "mul"]), x, Load("f", self.place(scope, 1), type))
        if r.random() < 0.3:
            x = apply("fma", x, Const(0.5, type), Apply("cast", (self.vector(scope, lanes),), type))
        return x

    def vector(self, scope, lanes):
        return ramp(apply("mod", self.integer(scope, 1), const(9)), self.random.choice([0, 1, 3]), lanes)

    def body(self, scope, depth):
        r, out = self.random, []
        scope = {k: list(v) for k, v in scope.items()}
        for _ in range(r.randrange(1, 5)):
            kind = r.randrange(8)
            if kind == 0:
                out.append(Let(name := self.name(), self.integer(scope)))
                scope["variables"].append(name)
            elif kind == 1:
                out.append(Register(name := self.name(), self.integer(scope)))
                scope["registers"].append(name)
            elif kind in (2, 3) and scope["registers"]:
                out.append(Set(r.choice(scope["registers"]), self.integer(scope)))
            elif kind == 4:
                out.append(Store("x", self.place(scope), self.integer(scope)))
            elif kind == 5:
                lanes = r.choice([1, 4, 8, 16])
                mask = None
                if r.random() < 0.5:
                    mask = apply("lt", self.vector(scope, lanes), Const(5, Type("int64", lanes)))
                out.append(Store("f", self.place(scope), self.floats(scope, lanes), mask))
            elif depth and kind == 6:
                var = self.name()
                start = r.choice([const(0), const(r.randrange(3)), apply("mod", self.integer(scope, 1), const(3))])
                stop = r.choice([const(r.randrange(6)), Var("n"), apply("mod", self.integer(scope, 1), const(6))])
                inner = {**scope, "variables": [*scope["variables"], var]}
                step, unroll = r.choice([1, 1, 2, 3]), r.choice([1, 1, 2, 4])
                out.append(For(var, start, stop, step, self.body(inner, depth - 1), unroll))
            elif depth:
                condition = apply(r.choice(["lt", "ne"]), self.integer(scope, 2), self.integer(scope, 1))
                if not hasattr(condition, "args"):
                    continue
                otherwise = self.body(scope, depth - 1) if r.random() < 0.5 else ()
                out.append(If(condition, self.body(scope, depth - 1), otherwise))
        return tuple(out) or (Store("x", self.place(scope), self.integer(scope)),)

    def kernel(self, name):
        body = self.body({"variables": ["t", "n", "zm"], "registers": []}, 4)
        buffers = (Buffer("x", "int64", "readwrite"), Buffer("f", "float32", "readwrite"))
        return Kernel(name, buffers, ("n", "zm"), "t", body)  # z: may be negative


@pytest.mark.parametrize("seed", range(6))
def test_random_programs(seed):
    """Eight programs a seed; a failure names the program, which `Programs(seed)` makes again."""
    kernels = [Programs(1000 * seed + i).kernel(f"program{1000 * seed + i}") for i in range(8)]
    target = machine.host()
    native = Native(kernels, target)
    generator = np.random.default_rng(seed)
    for kernel in kernels:
        x, f = generator.integers(-50, 50, 64), generator.standard_normal(64).astype("f")
        for n, m in ((3, 4), (0, -2), (5, 1)):
            check(kernel, target, [x, f], [n, m], 3, native)
