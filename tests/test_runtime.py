"""The native runner and its workers: every task exactly once, whatever the number of threads, callers and processes."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from jit import llvm, machine, runner_ir, runner_pool, runtime
from jit.loopir import INT, Buffer, For, Get, Kernel, Let, Load, Register, Set, Store, Type, Var, cast, const

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _kernels():
    """count: y[t] += 1 for each task. scaled: y[t] = x[t] * p + q. busy: y[t] = sum of p terms, kept in scratch."""
    t, p, q = Var("t"), Var("p"), Var("q")
    y, s = Load("y", t, INT), Type("float64")
    loop = For("i", const(0), p, 1, (Set("a", Get("a", s) + cast(Var("i"), "float64")),))
    return [
        Kernel("count", (Buffer("y", "int64", "readwrite"),), (), "t", (Store("y", t, y + const(1)),)),
        Kernel("scaled", (Buffer("x", "int64", "read"), Buffer("y", "int64", "write")), ("p", "q"), "t",
               (Store("y", t, Load("x", t, INT) * p + q),)),
        Kernel("busy", (Buffer("y", "float64", "write"), Buffer("w", "float64", "scratch", p)), ("p",), "t", (
            For("j", const(0), p, 1, (Store("w", Var("j"), cast(t + Var("j"), "float64")),)),
            Register("a", cast(const(0) * t, "float64")), loop,
            Let("b", Load("w", p - const(1), s)),
            Store("y", t, Get("a", s) + Var("b", s)),
        )),
    ]


@pytest.fixture(scope="module")
def kernels():
    made = _kernels()
    library = machine.load(machine.emit_object(llvm.emit(made, [k.name for k in made], machine.host()), machine.host()))
    return np.array([library.address(k.name) for k in made], np.uint64)


@pytest.fixture(autouse=True)
def workers():
    runtime.start_workers(4)


def launch(kernel, tasks, threads, buffers, parameters=(), scratch=(0, 0, 0)):
    places = [word for place in buffers for word in place]
    return [kernel, tasks, threads, *scratch, len(buffers), len(parameters), *places, *parameters]


def plan_of(*launches):
    return np.array([len(launches), *(word for item in launches for word in item)], np.int64)


def words(*values):
    return np.array(values, np.int64)


def slots_of(*arrays):
    return np.array([a.ctypes.data for a in arrays], np.uint64)


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 7, 64])
@pytest.mark.parametrize("release", [False, True])
def test_every_task_runs_once(kernels, threads, release):
    for tasks in (1, 2, 5, 64, 1001):
        for parts in (0, threads, 4 * threads, 1000):
            y = np.zeros(tasks, np.int64)
            runtime.run(slots_of(y), plan_of(launch(0, tasks, threads | parts << runtime.PARTS, [(0, 0)])), kernels, release)
            assert (y == 1).all()


def test_launches_run_in_order_over_slots_and_offsets(kernels):
    n = 100
    x, y, arena = np.arange(n), np.zeros(n, np.int64), np.zeros(4 * n, np.int64)
    first = launch(1, n, 2, [(1, 0), (0, 8 * n)], (3, 1))
    second = launch(1, n, 3, [(0, 8 * n), (0, 24 * n)], (-2, 5))
    third = launch(1, n, 1, [(0, 24 * n), (2, 0)], (7, 0))
    runtime.run(slots_of(arena, x, y), plan_of(first, second, third), kernels)
    np.testing.assert_array_equal(y, ((3 * x + 1) * -2 + 5) * 7)
    assert (arena[:n] == 0).all()
    assert (arena[2 * n : 3 * n] == 0).all()


def test_no_launches(kernels):
    runtime.run(slots_of(np.zeros(1)), plan_of(), kernels)


def test_arrays_instead_of_addresses(kernels):
    x, y = np.arange(50), np.zeros(50, np.int64)
    plan = plan_of(launch(1, 50, 2, [(0, 0), (1, 0)], (2, 1)))
    before = runtime.native_calls()
    for release in (False, True):
        y[:] = 0
        assert runtime.run_arrays([x, y], plan.ctypes.data, kernels.ctypes.data, words(0, 0).ctypes.data, release) == 0
        np.testing.assert_array_equal(y, 2 * x + 1)
    assert runtime.native_calls() == before + 2


def test_arrays_that_must_not_be_used_as_they_are_stop_the_call(kernels):
    arena, plan, before = np.zeros(1), plan_of(), runtime.native_calls()

    def status(arrays, written):
        checks = words(len(arrays), len(written), *(a.nbytes for a in arrays), *written)
        return runtime.run_arrays([arena, *arrays], plan.ctypes.data, kernels.ctypes.data, checks.ctypes.data)

    x, y = np.zeros((6, 4)), np.zeros(5)
    assert status([x, y, x], []) == 0
    assert status([x, y], [0, 1]) == 0
    assert status([y, x.T], []) == 2
    assert status([x[:, 1:]], []) == 1
    assert status([x[:3], x[3:]], [0]) == 0  # neighbours don't overlap
    assert status([x[:3], y, x[2:]], [2]) in (-1, -3)
    assert status([x, y, x[5:]], [0]) in (-1, -3)
    assert runtime.native_calls() == before + 3


def test_overlaps_are_found_among_many_arrays(kernels):
    random, arena, plan, memory = np.random.default_rng(7), np.zeros(1), plan_of(), np.zeros(4000, np.uint8)
    found = {True: 0, False: 0}
    for _ in range(300):
        count = int(random.integers(2, 12))
        spans = [(b, b + int(random.integers(0, 300))) for b in random.integers(0, 3700, count).tolist()]
        written = [i for i in range(count) if random.random() < 0.3]
        meet = {
            i for i, (a, b) in enumerate(spans) for k, (c, d) in enumerate(spans)
            if i != k and (i in written or k in written) and max(a, c) < min(b, d)
        }
        arrays = [memory[a:b] for a, b in spans]
        checks = words(count, len(written), *(a.nbytes for a in arrays), *written)
        status = runtime.run_arrays([arena, *arrays], plan.ctypes.data, kernels.ctypes.data, checks.ctypes.data)
        assert -status - 1 in meet if meet else status == 0, (spans, written)
        found[bool(meet)] += 1
    assert min(found.values()) > 30


def test_workers_have_scratch_of_their_own(kernels):
    tasks, p, stride = 40, 16, 192
    for threads in (1, 2, 3, 8):
        y, arena = np.zeros(tasks), np.zeros(1024 + stride * threads, np.uint8)
        plan = plan_of(launch(2, tasks, threads, [(0, 0)], (p,), (1, 64, stride)))
        runtime.run(slots_of(y, arena), plan, kernels)
        np.testing.assert_array_equal(y, p * (p - 1) / 2 + np.arange(tasks) + p - 1)
        used = arena[64 : 64 + stride * threads].reshape(threads, stride)
        assert used.any()
        for part in used:
            if part.any():  # of one task's numbers; whoever came too late has none
                left = part[: 8 * p].view(np.float64)
                np.testing.assert_array_equal(left, left[0] + np.arange(p))
                assert left[0] in range(tasks)
            assert (part[8 * p :] == 0).all()
        assert (arena[:64] == 0).all()


def test_many_launches_in_one_call_and_many_calls(kernels):
    y = np.zeros(8, np.int64)
    runtime.run(slots_of(y), plan_of(*[launch(0, 8, 2 + i % 4, [(0, 0)]) for i in range(3000)]), kernels)
    assert (y == 3000).all()
    slots, plan = slots_of(y), plan_of(launch(0, 8, 2, [(0, 0)]))
    for _ in range(3000):
        runtime.run(slots, plan, kernels)
    assert (y == 6000).all()


def test_sleeping_workers_wake_up(kernels):
    y = np.zeros(8, np.int64)
    plan = plan_of(launch(0, 8, 4, [(0, 0)]))
    for _ in range(20):
        time.sleep(0.003)
        runtime.run(slots_of(y), plan, kernels)
    assert (y == 20).all()


def test_concurrent_callers(kernels):
    """Callers that find the pool in use do their launches alone; all get their own results."""
    failures = []

    def call(seed):
        y = np.zeros(64)
        plan = plan_of(*[launch(2, 64, 3, [(0, 0)], (50 + seed,), (1, 0, 1024)) for _ in range(20)])
        arena = np.zeros(3 * 1024, np.uint8)
        p = 50 + seed
        for _ in range(20):
            y[:] = 0
            runtime.run(slots_of(y, arena), plan, kernels, release=True)
            if not np.array_equal(y, p * (p - 1) / 2 + np.arange(64) + p - 1):
                failures.append(seed)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_other_threads_run_while_native_code_does(kernels):
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(1)
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    y, arena = np.zeros(4), np.zeros(2 << 20, np.uint8)
    plan = plan_of(*[launch(2, 4, 2, [(0, 0)], (1 << 17,), (1, 0, 1 << 20)) for _ in range(60)])
    before = len(ticks)
    runtime.run(slots_of(y, arena), plan, kernels, release=True)
    during = len(ticks) - before
    done.set()
    thread.join()
    assert during >= 3


SCRIPT = """
import os, sys, threading
import numpy as np
from jit import runtime
from tests.test_runtime import _kernels, launch, plan_of, slots_of
from jit import llvm, machine
made = _kernels()
library = machine.load(machine.emit_object(llvm.emit(made, [k.name for k in made], machine.host()), machine.host()))
kernels = np.array([library.address(k.name) for k in made], np.uint64)
y = np.zeros(100, np.int64)
plan = plan_of(*[launch(0, 100, 3, [(0, 0)]) for _ in range(50)])
runtime.start_workers(3)
runtime.run(slots_of(y), plan, kernels)
assert (y == 50).all()
"""


def script(text, **environment):
    return subprocess.run([sys.executable, "-c", SCRIPT + text], cwd=ROOT, env={**os.environ, **environment},
                          capture_output=True, text=True, timeout=60)


def test_a_forked_child_makes_its_own_pool():
    done = script("""
assert runtime.worker_count() == 2
for _ in range(5):  # also while another thread holds the pool
    stop = threading.Event()
    def work():
        z = np.zeros(100, np.int64)
        while not stop.is_set():
            runtime.run(slots_of(z), plan, kernels)
    thread = threading.Thread(target=work); thread.start()
    child = os.fork()
    if child == 0:
        y[:] = 0
        ok = runtime.worker_count() == 0
        runtime.run(slots_of(y), plan, kernels, release=False)  # before there are workers
        ok = ok and runtime.start_workers(3) == 3
        runtime.run(slots_of(y), plan, kernels)
        os._exit(0 if ok and (y == 100).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    stop.set(); thread.join()
print("fine")
""", PYTHONWARNINGS="ignore")
    assert (done.returncode, done.stdout.strip()) == (0, "fine"), done.stderr


def test_the_process_ends_cleanly_with_workers_asleep_or_spinning():
    for wait in ("", "import time; time.sleep(0.05)"):
        done = script(wait + "\nprint(runtime.worker_count())")
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "2", "")


def test_the_number_of_threads_is_a_setting():
    done = script("", HYBRID_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    text = "from jit import runtime; print(runtime.start_workers())"
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, env={**os.environ, "HYBRID_NUM_THREADS": "3"},
                          capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "3", done.stderr


def test_the_serial_runner_of_other_systems(kernels, monkeypatch):
    monkeypatch.setattr(runner_pool.sys, "platform", "other")
    serial = runtime.Runner(machine.emit_object(runner_ir.ir(machine.host()), machine.host()))
    monkeypatch.undo()
    y = np.zeros(10, np.int64)
    plan = plan_of(launch(0, 10, 4, [(0, 0)]))
    serial.call(slots_of(y).ctypes.data, plan.ctypes.data, kernels.ctypes.data)
    assert (y == 1).all()
    assert serial.start(3) == 0


def test_a_damaged_runner_on_disk_is_replaced(tmp_path):
    for content in (None, b"garbage"):
        for file in tmp_path.iterdir():
            file.write_bytes(content)
        done = script("", HYBRID_CACHE_DIR=str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert len(list(tmp_path.glob("*.hybrid"))) >= 1


def test_a_bound_function_does_as_run_arrays(kernels):
    """A method of Python's own kind runs the plan, gives the status, counts its calls and leaves no references behind."""
    x, y = np.arange(50), np.zeros(50, np.int64)
    plan, checks = plan_of(launch(1, 50, 2, [(1, 0), (2, 0)], (2, 1))), words(2, 1, 400, 400, 1)
    call = runtime.bound(plan.ctypes.data, kernels.ctypes.data, checks.ctypes.data)
    before, table = runtime.native_calls(), [np.zeros(1), x, y]
    references = [sys.getrefcount(a) for a in (table, x)]
    for _ in range(1000):
        assert call(table) == 0
    np.testing.assert_array_equal(y, 2 * x + 1)
    assert runtime.native_calls() == before + 1000
    assert [sys.getrefcount(a) for a in (table, x)] == references
    assert call([np.zeros(1), x, np.zeros((3, 4)).T]) == 2
    assert call([np.zeros(1), y, y]) in (-1, -2)
    assert runtime.native_calls() == before + 1000
    with pytest.raises(TypeError):
        call()
