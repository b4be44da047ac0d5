"""Two threads in one net, two processes in one cache folder, and whatever can lie in that folder: right results, always."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import ndarray as nd
from hybrid import hybridize
from ndarray import autograd
from tests.networks import batch, make, snapshot, trainer_of, training_step

ROOT = Path(__file__).parent.parent


def in_threads(*functions):
    """Run all at once, begun together; raises the first error."""
    errors, gate = [], threading.Barrier(len(functions))

    def body(function):
        gate.wait()
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(f,)) for f in functions]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert not any(t.is_alive() for t in threads), "a thread hangs"
    if errors:
        raise errors[0]


# -- threads

def test_the_first_call_may_come_from_several_threads():
    net, shape, classes = make("lenet")
    other, _, _ = make("lenet")
    net.hybridize()
    inputs = [batch(shape, classes, 6, k)[0] for k in range(4)]
    found = {}
    in_threads(*[lambda k=k: found.__setitem__(k, net(inputs[k]).asnumpy()) for k in range(4)])
    assert net._compiled.traces == 1
    for k, x in enumerate(inputs):
        np.testing.assert_allclose(found[k], other(x).asnumpy(), rtol=1e-4, atol=1e-5)


def test_threads_with_sizes_of_their_own():
    net, shape, classes = make("convnet")
    other, _, _ = make("convnet")
    net.hybridize()
    want = {n: other(batch(shape, classes, n, n)[0]).asnumpy() for n in range(1, 9)}

    def work(sizes):
        for n in sizes:
            for _ in range(5):
                x, _ = batch(shape, classes, n, n)
                np.testing.assert_allclose(net(x).asnumpy(), want[n], rtol=1e-4, atol=1e-5)

    in_threads(lambda: work((3, 1, 5, 7)), lambda: work((2, 4, 8, 6)), lambda: work((8, 7, 6, 5)))
    assert net._compiled.traces == 2


def test_large_work_in_two_threads_shares_the_workers():
    w = nd.array(np.random.default_rng(0).standard_normal((256, 256)).astype("f"))
    f = hybridize(lambda x: nd.relu(nd.dot(x, w)) + nd.dot(x, w).sum(axis=1, keepdims=True))
    inputs = [nd.array(np.random.default_rng(k).standard_normal((300, 256)).astype("f")) for k in range(3)]
    want = [f(x).asnumpy() for x in inputs]

    def work(k):
        for _ in range(40):
            assert f(inputs[k]).asnumpy().tobytes() == want[k].tobytes()

    in_threads(*[lambda k=k: work(k) for k in range(3)])


def test_gradients_in_two_threads():
    w = nd.array(np.random.default_rng(0).standard_normal((20, 10)).astype("f"))
    f = hybridize(lambda x: nd.tanh(nd.dot(x, w)) ** 2)

    def gradient(g, seed):
        x = nd.array(np.random.default_rng(seed).standard_normal((7, 20)).astype("f"))
        x.attach_grad()
        with autograd.record():
            y = g(x).sum()
        y.backward()
        return x.grad.asnumpy()

    want = {k: gradient(f._function, k) for k in range(6)}

    def work(seeds):
        for _ in range(5):
            for k in seeds:
                np.testing.assert_allclose(gradient(f, k), want[k], rtol=1e-4, atol=1e-5)

    in_threads(lambda: work(range(3)), lambda: work(range(3, 6)))


def test_states_are_written_by_one_call_at_a_time():
    total = nd.zeros((64,))

    @hybridize
    def add(x):
        total[...] = total + x

    one = nd.ones((64,))
    in_threads(*[lambda: [add(one) for _ in range(100)] for _ in range(3)])
    np.testing.assert_array_equal(total.asnumpy(), np.full(64, 300, "f"))


def test_training_in_two_threads_apart():
    def train(seed, hybrid):
        net, shape, classes = make("lenet", seed=seed)
        if hybrid:
            net.hybridize()
        trainer = trainer_of(net, "sgd")
        step = training_step(net, trainer)
        for k in range(3):
            step(*batch(shape, classes, 5, k))
        return snapshot(net)

    want, found = {}, {}
    for k in (1, 2):
        want[k] = train(k, False)
    # initialization draws from the process's generator, so the nets are made one after the other
    nets = {k: make("lenet", seed=k) for k in (1, 2)}

    def work(k):
        net, shape, classes = nets[k]
        net.hybridize()
        step = training_step(net, trainer_of(net, "sgd"))
        for i in range(3):
            step(*batch(shape, classes, 5, i))
        found[k] = snapshot(net)

    in_threads(lambda: work(1), lambda: work(2))
    for k in (1, 2):
        for name, w in want[k].items():
            np.testing.assert_allclose(found[k][name], w, rtol=1e-3, atol=1e-5, err_msg=name)


def test_a_forked_child_computes_too():
    w = nd.array(np.random.default_rng(0).standard_normal((300, 300)).astype("f"))
    f = hybridize(lambda x: nd.relu(nd.dot(x, w)))
    x = nd.array(np.random.default_rng(1).standard_normal((300, 300)).astype("f"))
    want = f(x).asnumpy()

    from jit.guard import signal_of

    def child():
        np.testing.assert_array_equal(f(x).asnumpy(), want)
        g = hybridize(lambda x: nd.exp(x) + w)  # compiled in the child
        np.testing.assert_allclose(g(x).asnumpy(), np.exp(x.asnumpy()) + w.asnumpy(), rtol=1e-5, atol=1e-5)

    assert signal_of(child) == 0


# -- processes and the cache on disk

PROGRAM = """
import sys, time
import numpy as np
import ndarray as nd
from jit.backend import backend
from tests.networks import batch, make, trainer_of, training_step

nd.random.seed(1)
net, shape, classes = make("mlp")
net.hybridize()
step = training_step(net, trainer_of(net, "sgd"))
for k, size in enumerate((4, 3, 2)):
    out, value = step(*batch(shape, classes, size, k))
print("result", net(batch(shape, classes, 5)[0]).asnumpy().tobytes().hex())
s = backend.statistics
print("counts", s.compilations, s.disk_hits)
"""


def start(folder, preexec_fn=None):
    environment = {**os.environ, "HYBRID_CACHE_DIR": str(folder), "HYBRID_NUM_THREADS": "2", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, preexec_fn=preexec_fn)


def finish(process):
    """(what it computed, graphs compiled, graphs from disk) of a process that must have succeeded."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    words = dict(line.split(" ", 1) for line in out.splitlines())
    compiled, hits = map(int, words["counts"].split())
    return words["result"], compiled, hits


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A cache folder that one run has filled, and that run's result."""
    folder = tmp_path_factory.mktemp("filled")
    result, compiled, hits = finish(start(folder))
    assert compiled > 0
    assert hits == 0
    return folder, result


def copy_of(filled, tmp_path):
    folder = tmp_path / "cache"
    shutil.copytree(filled[0], folder)
    return folder, filled[1]


def test_a_second_process_compiles_nothing(filled):
    folder, want = filled
    result, compiled, hits = finish(start(folder))
    assert result == want
    assert compiled == 0
    assert hits > 0


def test_processes_that_fill_one_folder_at_once(tmp_path, filled):
    processes = [start(tmp_path / "shared") for _ in range(2)]
    assert [finish(p)[0] for p in processes] == [filled[1]] * 2
    assert finish(start(tmp_path / "shared"))[1] == 0
    assert not list((tmp_path / "shared").glob(".writing-*"))


def truncate(path, k):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * (k % 5) // 6])


def flip(path, k):
    data = bytearray(path.read_bytes())
    data[(k * 7919) % len(data)] ^= 1 << k % 8
    path.write_bytes(bytes(data))


def foreign(path, k):
    path.write_bytes([b"", b"\0" * 4096, b"HYBRIDC1" + b"\xff" * 60, os.urandom(1000), b"{}"][k % 5])


def exchange(path, k):
    """Another entry's file under this name: whole, but not what was asked for."""
    others = sorted(p for p in path.parent.glob("*.hybrid") if p != path)
    path.write_bytes(others[k % len(others)].read_bytes())


def folder_instead(path, k):
    path.unlink()
    path.mkdir()


DAMAGES = [truncate, flip, foreign, exchange, folder_instead]


@pytest.mark.parametrize("damages", [DAMAGES, *[pytest.param([d], marks=pytest.mark.slow) for d in DAMAGES]],
                         ids=["all", *[d.__name__ for d in DAMAGES]])
def test_damaged_entries(damages, tmp_path, filled):
    folder, want = copy_of(filled, tmp_path)
    for k, path in enumerate(sorted(folder.glob("*.hybrid"))):
        damages[k % len(damages)](path, k)
    result, compiled, _ = finish(start(folder))
    assert result == want
    assert compiled > 0


def test_objects_that_are_gone(tmp_path, filled):
    """Recipes without their object files, and object files without recipes."""
    for gone in ("object-*", "[!o]*"):
        folder, want = copy_of(filled, tmp_path / gone[:1])
        for path in folder.glob(gone + ".hybrid"):
            path.unlink()
        assert finish(start(folder))[0] == want


def without_privileges():
    """In a child, before it runs a program: take from root (on Linux) what makes it ignore permissions."""
    if os.getuid() == 0:
        import ctypes

        drop = ctypes.CDLL(None, use_errno=True).prctl
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH; PR_CAPBSET_DROP is 24
            if drop(24, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "prctl")


@pytest.mark.parametrize(
    "place", ["{}/file/below", *[pytest.param(p, marks=pytest.mark.slow) for p in ("/proc/no/such/folder", "{}/file", "")]]
)
def test_folders_that_cannot_be_written(place, tmp_path, filled):
    file = tmp_path / "file"
    file.write_text("I am a file")
    assert finish(start(place.format(tmp_path)))[0] == filled[1]
    assert file.read_text() == "I am a file"


def test_a_read_only_folder(tmp_path, filled):
    """Empty: nothing is kept; filled: what is there is used; unreadable: as if it were empty."""
    folder, want = copy_of(filled, tmp_path)
    empty, secret = tmp_path / "empty", tmp_path / "secret"
    empty.mkdir()
    secret.mkdir()
    for place, mode in ((empty, 0o555), (folder, 0o555), (secret, 0)):
        before = {p.name for p in place.iterdir()}
        place.chmod(mode)
        try:
            probe = subprocess.run([sys.executable, "-c", f"open({str(place / 'probe')!r}, 'w')"], capture_output=True,
                                   preexec_fn=without_privileges)
            if probe.returncode == 0:
                pytest.skip("permissions do not bind this user")
            result, compiled, _ = finish(start(place, preexec_fn=without_privileges))
        finally:
            place.chmod(0o755)
        assert result == want
        assert {p.name for p in place.iterdir()} == before
        assert (compiled == 0) == (place is folder)


def test_a_full_disk(tmp_path, filled):
    """Writing fails half way (a limit on the size of files stands in for the disk): the run goes on, no debris is taken."""
    import resource

    folder = tmp_path / "full"

    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    assert finish(start(folder, preexec_fn=small_files))[0] == filled[1]
    assert not list(folder.glob(".writing-*"))
    assert finish(start(folder))[0] == filled[1]


def test_killed_writers(tmp_path, filled):
    """Processes are killed at several points of filling the folder; the next one is right all the same."""
    folder = tmp_path / "killed"
    for _ in range(3):
        process = start(folder)
        entries = len(list(folder.glob("*.hybrid"))) if folder.exists() else 0
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            if folder.exists() and len(list(folder.iterdir())) > entries:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    (folder / ".writing-left-behind").write_bytes(b"half an entry")
    result, _, _ = finish(start(folder))
    assert result == filled[1]
    assert finish(start(folder))[1] == 0
