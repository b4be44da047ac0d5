"""For tests of generated code: kernels compiled and run on NumPy arrays, beside the interpreter, in guarded memory."""

import ctypes
import importlib.util

import numpy as np
import pytest

from jit import llvm, machine
from jit.contract import lower_contraction, plain_sink, plain_source
from jit.guard import guarded
from jit.interpret import run_kernel
from jit.launch import Storage
from jit.loopir import Buffer, Kernel, Load, Store, Type, Var, const, ramp, splat
from ndarray.dims import product

TARGETS = {"host": machine.host()}
if machine.host().triple.startswith("x86_64"):
    TARGETS |= {level: machine.restricted(level) for level in ("avx2", "sse")}
if importlib.util.find_spec("unicorn") and importlib.util.find_spec("elftools"):
    TARGETS["aarch64"] = machine.aarch64()
each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)

class Native:
    """Compiled kernels, called with NumPy arrays; those for another machine run in an emulator."""

    def __new__(cls, kernels, target):
        if target.triple.startswith("aarch64") and not machine.host().triple.startswith(("aarch64", "arm64")):
            from emulated import Emulated

            return Emulated(kernels, target)
        return super().__new__(cls)

    def __init__(self, kernels, target):
        text = llvm.emit(kernels, [k.name for k in kernels], target)
        self.kernels = {k.name: k for k in kernels}
        self.library = machine.load(machine.emit_object(text, target))

    def __call__(self, name, buffers, parameters, first, last, scratch=1 << 16):
        pointer, word = ctypes.c_void_p, ctypes.c_int64
        prototype = ctypes.CFUNCTYPE(None, pointer, pointer, word, word, pointer)
        table = np.array([b.ctypes.data for b in buffers], np.uint64)
        numbers = np.array(parameters, np.int64)
        private = np.full(scratch + 64, 0xFF, np.uint8)
        aligned = (private.ctypes.data + 63) // 64 * 64
        prototype(self.library.address(name))(table.ctypes.data, numbers.ctypes.data, first, last, aligned)


def check(kernel, target, arrays, parameters, tasks, native=None, rtol=0.0):
    """Run natively (in guarded memory, both sides) and interpreted; all buffers must come out equal."""
    native = native or Native([kernel], target)
    expected = [a.copy() for a in arrays]
    run_kernel(kernel, expected, parameters, 0, tasks)
    for side in ("after", "before"):
        actual = [guarded(a, side) for a in arrays]
        native(kernel.name, actual, parameters, 0, tasks)
        for buffer, got, want in zip(kernel.buffers, actual, expected, strict=False):
            same(got, want, f"{kernel.name}, buffer {buffer.name}", rtol)


def same(got, want, what, rtol=0.0):
    if got.dtype.kind == "f":
        np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol, equal_nan=True, err_msg=what)
    else:
        np.testing.assert_array_equal(got, want, err_msg=what)


def elementwise(name, dtypes, result, make, lanes):
    """A kernel that applies `make` to n elements of some buffers, `lanes` at a time, with masks."""
    at = Var("t") * const(lanes)
    mask = ramp(at, 1, lanes) < splat(Var("n"), lanes)
    loads = [Load(f"x{i}", at, Type(d, lanes), mask) for i, d in enumerate(dtypes)]
    body = (Store("y", at, make(*loads), mask),)
    buffers = tuple(Buffer(f"x{i}", d, "read") for i, d in enumerate(dtypes)) + (Buffer("y", result, "write"),)
    return Kernel(name, buffers, ("n",), "t", body)


def lowered_contraction(op, x, y, shape, attrs, target, result=None, **schedule):
    """(storages of the operands and the result, launches)."""
    storages = [Storage(a.dtype.name, a.size) for a in (x, y)] + [Storage(result or x.dtype.name, product(shape))]
    sources = [plain_source(s, a.shape) for s, a in zip(storages, (x, y))]
    return storages, lower_contraction(op, attrs, sources, plain_sink(storages[2], shape), target, **schedule)


def run_contraction(op, x, y, shape, attrs, target, **schedule):
    """The op's result (of dtype `result`, if that isn't x's), each of its kernels run in memory that ends, then begins, at an
    inaccessible page."""
    storages, launches = lowered_contraction(op, x, y, shape, attrs, target, **schedule)
    results = []
    compiled = [Native([launch.kernel], target) for launch in launches]
    for side in ("after", "before"):
        memory = {storages[0]: guarded(x.ravel(), side), storages[1]: guarded(y.ravel(), side)}
        for launch, native in zip(launches, compiled):
            for s in launch.buffers:
                if s not in memory:
                    memory[s] = guarded(np.full(s.size, np.nan if s.dtype.startswith("float") else 77, s.dtype), side)
            for task in reversed(range(launch.tasks)):  # tasks are independent of one another
                native(launch.kernel.name, [memory[s] for s in launch.buffers], launch.arguments, task, task + 1, launch.scratch)
        results.append(memory[storages[2]].reshape(shape).copy())
    np.testing.assert_array_equal(*results)
    return results[0]
