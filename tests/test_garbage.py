"""The garbage collector waits while functions are compiled, and goes on whatever happens."""

import gc
import threading

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


def test_objects_that_were_frozen_stay_so():
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with collection_paused():
            pass
        assert gc.get_freeze_count() == frozen > 0
    finally:
        gc.unfreeze()
