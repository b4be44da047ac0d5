"""Loops that become functions of their own: shared by equal ones, in one module or several, and never wrongly."""

import contextlib
import sys

import numpy as np
import pytest
from native_kernels import Native, check, each_target

from jit import generate, llvm, machine
from jit.loopir import Buffer, Const, For, Get, Kernel, Let, Load, Prefetch, Register, Set, Store, Type, Var, apply, cast, const

F = Type("float32")


def scaled_sums(name, names="ijs", factor=2.0, more=1.0, buffers="xy"):
    """y[task] = factor * (sum of x[task * n : task * n + n]), then `more`: the sum is a loop apart."""
    i, j, s = names
    x, y = buffers
    body = (
        Let("at", Var("task") * Var("n")),
        Let("to", Var("task") + 0),
        For(i, const(0), const(1), 1, (
            Register(s, Const(0.0, F)),
            For(j, const(0), Var("n"), 1, (Prefetch(x, Var("at")), Set(s, Get(s, F) + Load(x, Var("at") + Var(j), F)))),
            Store(y, Var("to"), Get(s, F) * Const(factor, F)),
        ), apart=True),
        Store(y, Var("to"), Load(y, Var("to"), F) + Const(more, F)),
    )
    return Kernel(name, (Buffer(x, "float32", "read"), Buffer(y, "float32", "write")), ("n",), "task", body)


def definitions(kernels):
    text = llvm.emit(kernels, [k.name for k in kernels], machine.host())
    return text.count("define hidden")


@each_target
def test_equal_loops_under_other_names_are_one_function(target):
    kernels = [scaled_sums("first"), scaled_sums("second", "uvw", more=7.0, buffers="pq"), scaled_sums("third", factor=3.0)]
    assert definitions(kernels[:2]) == 1 and definitions(kernels) == 2
    native = Native(kernels, target)
    x = np.arange(20, dtype=np.float32)
    for kernel in kernels:
        check(kernel, target, [x, np.zeros(4, np.float32)], [5], 4, native)


def test_facts_from_outside_tell_loops_apart():
    """A known number, and a variable that may be negative, make other functions."""
    divided = []
    for name, value in (("c", Var("n")), ("d", Var("z")), ("e", const(3))):
        store = Store("y", const(0), cast(Var("a") // 2, "float32"))
        body = (Let("a", value), For("o", const(0), const(1), 1, (store,), apart=True))
        divided.append(Kernel(name, (Buffer("y", "float32", "write"),), ("n", "z"), "task", body))
    assert definitions(divided) == 3
    for kernel in divided:
        check(kernel, machine.host(), [np.zeros(1, np.float32)], [7, -7], 1)


def test_signs_matter_only_where_something_is_divided():
    kernels = []
    for name, value in (("c", Var("n")), ("d", Var("z"))):
        store = Store("y", const(0), cast(Var("a") * 2, "float32"))
        body = (Let("a", value), For("o", const(0), const(1), 1, (store,), apart=True))
        kernels.append(Kernel(name, (Buffer("y", "float32", "write"),), ("n", "z"), "task", body))
    assert definitions(kernels) == 1


def test_other_types_and_other_aliases_are_other_functions():
    """x[0] + x[1] into y, and x[0] + y[1] into y, differ; so do loads of float32 and float64."""
    def kernel(name, first, second, dtype="float32"):
        kind = Type(dtype)
        value = apply("add", Load(first, const(0), kind), Load(second, const(1), kind))
        body = (For("o", const(0), const(1), 1, (Store("y", const(0), value),), apart=True),)
        return Kernel(name, (Buffer("x", dtype, "read"), Buffer("y", dtype, "readwrite")), (), "task", body)

    kernels = [kernel("a", "x", "x"), kernel("b", "x", "y"), kernel("c", "y", "x"), kernel("d", "x", "x", "float64")]
    assert definitions(kernels) == 4
    for k in kernels:
        dtype = k.buffers[0].dtype
        check(k, machine.host(), [np.array([1, 2], dtype), np.array([30, 40], dtype)], [], 1)


@pytest.mark.parametrize("tied", ["register", "vector"])
def test_a_loop_that_is_tied_to_its_surroundings_stays(tied):
    lanes = Type("float32", 4)
    if tied == "register":
        body = (Register("s", Const(0.0, lanes)), For("o", const(0), const(2), 1, (
            Set("s", Get("s", lanes) + Load("x", Var("o") * 4, lanes)),), apart=True), Store("y", const(0), Get("s", lanes)))
    else:
        body = (Let("v", Load("x", const(0), lanes)), For("o", const(0), const(2), 1, (
            Store("y", const(0), Var("v", lanes) + Load("x", Var("o") * 4, lanes)),), apart=True))
    kernel = Kernel("tied", (Buffer("x", "float32", "read"), Buffer("y", "float32", "write")), (), "task", body)
    assert definitions([kernel]) == 0
    check(kernel, machine.host(), [np.arange(8, dtype=np.float32), np.zeros(4, np.float32)], [], 1)


def test_a_function_serves_several_objects(monkeypatch):
    """Pieces of one kernel each: the first defines it, the second calls it."""
    monkeypatch.setattr(generate, "PIECE", 1)
    kernels = [scaled_sums("first"), scaled_sums("second", "uvw", more=7.0)]
    texts = []
    real = machine.emit_object
    monkeypatch.setattr(machine, "emit_object", lambda text, target, level=1: texts.append(text) or real(text, target, level))
    with generate.Generation(machine.host(), ()) as made:
        for kernel in kernels:
            made.add(kernel)
    assert len(made.objects) == 2 and sum(t.count("define hidden") for t in texts) == 1
    library = machine.load(*made.objects)
    native = Native(kernels, machine.host())
    native.library.address = lambda name: library.address(made.symbols[native.kernels[name]])
    for kernel in kernels:
        check(kernel, machine.host(), [np.arange(20, dtype=np.float32), np.zeros(8, np.float32)], [5], 4, native)


def test_what_only_counts_and_calls_is_not_optimized(monkeypatch):
    """A kernel that touches memory in functions only goes to the code generator with others of its kind."""
    whole = scaled_sums("whole")
    counting = Kernel("counting", whole.buffers, whole.parameters, whole.task, whole.body[:3])
    levels = []
    real = machine.emit_object

    def emit(text, target, level=1):
        levels.append((level, text))
        return real(text, target, level)

    with monkeypatch.context() as patch:
        patch.setattr(machine, "emit_object", emit)
        with generate.Generation(machine.host(), ()) as made:
            for kernel in (counting, whole):
                made.add(kernel)
    assert {level: text.count("define void") for level, text in levels} == {0: 1, 1: 1}
    library = machine.load(*made.objects)
    native = Native([counting, whole], machine.host())
    native.library.address = lambda name: library.address(made.symbols[native.kernels[name]])
    for kernel in (counting, whole):
        check(kernel, machine.host(), [np.arange(20, dtype=np.float32), np.zeros(4, np.float32)], [5], 4, native)


@pytest.mark.parametrize("fails", [False, True])
def test_pythons_switch_interval_is_restored(fails):
    """Also where lowering fails, and where several graphs are generated at once."""
    usual = sys.getswitchinterval()
    outer = generate.Generation(machine.host(), ())
    with outer:
        assert sys.getswitchinterval() <= generate.SWITCH * 1.01
        expected = pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext()
        with expected, generate.Generation(machine.host(), ()) as made:
            made.add(scaled_sums("first"))
            assert 1 // (not fails)
        assert sys.getswitchinterval() <= generate.SWITCH * 1.01
    assert sys.getswitchinterval() == usual
