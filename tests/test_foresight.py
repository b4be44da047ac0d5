"""Memory of a first call that is provided ahead: sizes kept between processes, wrong guesses, what counts as overwritten."""

import ctypes
import mmap
import threading

import numpy as np
import pytest

import ndarray as nd
from hybrid import hybridize
from jit import foresight
from jit.backend import _Kernels, backend
from jit.foresight import Foresight, provide
from jit.program import arenas
from ndarray.settings import settings

PAGES = 64


def fresh():
    """Memory that nothing has touched."""
    return np.frombuffer(mmap.mmap(-1, PAGES * 4096), np.uint8)


def resident(array):
    """How many of the pages inside of an array are there."""
    low, high = -(-array.ctypes.data // 4096) * 4096, (array.ctypes.data + array.nbytes) // 4096 * 4096
    present = (ctypes.c_ubyte * ((high - low) // 4096))()
    if ctypes.CDLL(None).mincore(ctypes.c_void_p(low), ctypes.c_size_t(high - low), present):
        pytest.skip("mincore isn't to be had here")
    return sum(p & 1 for p in present)


def provided_here():
    """Whether this system provides pages on request."""
    array = fresh()
    provide([array], np.zeros(1, np.int64)).join()
    return resident(array) >= PAGES - 1


def test_pages_are_provided_and_keep_what_they_hold():
    if not provided_here():
        pytest.skip("this system doesn't provide pages on request")
    full, empty = np.arange(3 * PAGES * 4096, dtype=np.uint8), fresh()
    before = full.copy()
    provide([full[5:-3], empty, np.zeros(3)], np.zeros(1, np.int64)).join()
    assert (full == before).all()
    assert resident(empty) >= PAGES - 1


def test_nothing_is_provided_once_stopped():
    array = fresh()
    provide([array], np.ones(1, np.int64)).join()
    assert resident(array) == 0


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A cache folder of the test's own, where small arenas count."""
    monkeypatch.setattr(foresight, "LEAST", 1)
    monkeypatch.setenv("HYBRID_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(arenas, "free", [])


def known_sizes(monkeypatch):
    found = []
    look_up = Foresight._look_up
    monkeypatch.setattr(Foresight, "_look_up", lambda self: (found.append(look_up(self)), found[-1])[1])
    return found


def product(x, y):
    return nd.tanh(x @ y) @ y  # the first product is a temporary


def test_the_arena_of_a_first_call_is_known_to_the_next_one(small, monkeypatch):
    known = known_sizes(monkeypatch)
    x, y = nd.random.normal(shape=(40, 40)), nd.random.normal(shape=(40, 40))
    expected = product(x, y).asnumpy()
    first, second = hybridize(product), hybridize(product)
    results = [first(x, y), second(x, y)]
    assert known[0] == (0, ()) and known[1][0] >= 40 * 40 * 4 and known[1][1]
    for r in results:
        np.testing.assert_allclose(r.asnumpy(), expected, rtol=1e-4, atol=1e-4)
    hybridize(product)(x, nd.random.normal(shape=(40, 30)) @ nd.ones((30, 40)))
    hybridize(product)(nd.ones((8, 40)), y)
    assert known[2] == known[1] and known[3] == (0, ())  # another shape is another call


@pytest.mark.parametrize("guess", [64, 1 << 20], ids=["too small", "too large"])
def test_a_wrong_guess_changes_no_result_and_is_corrected(small, monkeypatch, guess):
    monkeypatch.setattr(Foresight, "_look_up", lambda self: (guess, ("0" * 64,)))
    x, y = nd.random.normal(shape=(40, 40)), nd.random.normal(shape=(40, 40))
    np.testing.assert_allclose(hybridize(product)(x, y).asnumpy(), product(x, y).asnumpy(), rtol=1e-4, atol=1e-4)
    assert all(a.nbytes < 1 << 20 for a in arenas.free)  # what was too large isn't kept


def test_without_a_thread_or_memory_a_call_is_as_ever(small, monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(Foresight, "_look_up", lambda self: (1 << 60, ("0" * 64,)))  # more than can be had
    x, y = nd.random.normal(shape=(40, 40)), nd.random.normal(shape=(40, 40))
    np.testing.assert_allclose(hybridize(product)(x, y).asnumpy(), product(x, y).asnumpy(), rtol=1e-4, atol=1e-4)


def test_a_note_that_makes_no_sense_is_none(small, monkeypatch):
    for note in ({"arena": -1, "objects": []}, {"arena": 1 << 60, "objects": []}, {"arena": "much", "objects": []}, {"arena": 8},
                 {"arena": 8, "objects": 7}, {}, None, [7]):
        monkeypatch.setattr(foresight.DiskCache, "load", lambda self, key, note=note: (note, b""))
        assert Foresight(foresight.DiskCache(settings.cache_dir), "key", [], list)._known == (0, ())


def test_a_trace_that_fails_leaves_no_arena(small, monkeypatch):
    monkeypatch.setattr(Foresight, "_look_up", lambda self: (1 << 20, ()))

    @hybridize
    def wrong(x):
        raise ArithmeticError("on purpose")

    with pytest.raises(ArithmeticError):
        wrong(nd.ones((2, 2)))
    assert arenas.free == []


def test_what_is_overwritten_whole():
    whole, part, given, turned = (nd.zeros((4, 6)) for _ in range(4))
    looped = nd.zeros((6,))

    @hybridize
    def write(x):
        whole[...] = whole * 0.5 + x
        part[1:3] = x[1:3]
        given[...] = given
        turned.T[...] = x.T * 2.0
        looped[...] = nd.foreach(lambda row, s: (row, s + row), x, looped)[1]
        return x + 1.0

    x = nd.ones((4, 6))
    write(x)
    entry = write.last
    found = {id(a) for a in entry.overwritten([x], write._surroundings.read())}
    assert found == {id(whole._data), id(turned._data)}


def test_kernels_are_loaded_while_the_function_is_traced(small, monkeypatch):
    x, y = nd.random.normal(shape=(24, 24)), nd.random.normal(shape=(24, 24))
    compiled = hybridize(product)
    expected = compiled(x, y).asnumpy()
    needed = set(compiled.last.program.recipe.kernels)
    kernels = _Kernels()  # none, as in a fresh process
    monkeypatch.setattr(backend, "_kernels", kernels)
    monkeypatch.setattr(Foresight, "_look_up", lambda self: (0, tuple({d for d, _ in needed})))
    found = []

    def traced(x, y):
        for thread in [t for t in threading.enumerate() if t.name == "hybrid-foresight"]:
            thread.join()
        found.append(set(kernels.addresses))
        return product(x, y)

    assert (hybridize(traced)(x, y).asnumpy() == expected).all()
    assert needed <= found[0]
