"""The garbage collector waits while functions are compiled, and goes on whatever happens."""

import gc
import threading
import weakref

import pytest

import ndarray as nd
from hybrid import hybridize
from hybrid.garbage import collection_paused


@pytest.fixture(autouse=True)
def collecting():
    assert gc.isenabled()
    yield
    gc.enable()


def test_blocks_are_nested_and_end_with_errors():
    with collection_paused():
        with pytest.raises(KeyError), collection_paused():
            raise KeyError
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off():
    gc.disable()
    with collection_paused():
        pass
    assert not gc.isenabled()


def test_the_last_thread_switches_it_on():
    inside, leave = threading.Event(), threading.Event()

    def other():
        with collection_paused():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with collection_paused():
        thread.start()
        assert inside.wait(10)
    assert not gc.isenabled()
    leave.set()
    thread.join()
    assert gc.isenabled()


def test_traces_run_without_it_and_calls_with_it():
    seen = []

    @hybridize
    def function(x):
        seen.append(gc.isenabled())
        return x + 1

    assert float(function(nd.array(1.0))) == 2
    assert seen == [False] and gc.isenabled()

    @hybridize
    def wrong(x):
        raise LookupError

    with pytest.raises(LookupError):
        wrong(nd.array(1.0))
    assert gc.isenabled()


def test_what_the_first_blocks_make_is_old_at_once_and_later_garbage_is_found(monkeypatch):
    import hybrid.garbage

    class Cycle:
        def __init__(self):
            self.me = self

    monkeypatch.setattr(hybrid.garbage, "_aged", 0)
    made = []
    for n in range(hybrid.garbage.FIRST + 2):
        gc.collect(0)
        with collection_paused():
            made.append(weakref.ref(Cycle()))
        young = any(type(x) is Cycle for x in gc.get_objects(generation=0))
        assert young == (n >= hybrid.garbage.FIRST)
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert not any(cycle() for cycle in made)


def test_objects_that_someone_has_frozen_stay_so(monkeypatch):
    import hybrid.garbage

    monkeypatch.setattr(hybrid.garbage, "_aged", 0)
    gc.freeze()
    try:
        with collection_paused():
            pass
        assert gc.get_freeze_count()
    finally:
        gc.unfreeze()
