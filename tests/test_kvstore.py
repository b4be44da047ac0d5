"""The local store."""

import numpy as np
import pytest

import kvstore as kv
import ndarray as nd
from kvstore import optimizer as base
from ndarray.array import storage_of

devices = [nd.cpu(0), nd.cpu(1)]


def copies(value, shape=(2, 3)):
    return [nd.full(shape, value, device=d) for d in devices]


@pytest.mark.parametrize("name", ["local", "device"])
def test_init_push_pull(name):
    store = kv.create(name)
    assert (store.type, store.rank, store.num_workers) == (name, 0, 1)
    store.init("w", nd.ones((2, 3)))
    with pytest.raises(ValueError, match="exists"):
        store.init("w", nd.ones((2, 3)))
    store.push("w", copies(3.0))
    out = copies(0.0)
    store.pull("w", out=out)
    for o in out:
        np.testing.assert_array_equal(o.asnumpy(), np.full((2, 3), 6))
    with pytest.raises(KeyError, match="'v'"):
        store.pull("v", out=out)
    store.barrier()


def test_lists_of_keys():
    store = kv.create("local")
    store.init([1, 2], [nd.zeros((2,)), nd.zeros((3,))])
    store.push([1, 2], [[nd.ones((2,)), nd.ones((2,))], nd.ones((3,))])
    out = [nd.zeros((2,)), nd.zeros((3,))]
    store.pull([1, 2], out)
    assert [o.asnumpy().sum() for o in out] == [4, 3]
    with pytest.raises(ValueError, match="2 keys"):
        store.push([1, 2], [nd.ones((2,))])
    with pytest.raises(ValueError, match="shapes"):
        store.push(1, [nd.ones((2,)), nd.ones((3,))])


def test_pushpull_and_broadcast():
    store = kv.create("device")
    values = copies(1.5)
    store.pushpull(0, values)
    for v in values:
        np.testing.assert_array_equal(v.asnumpy(), np.full((2, 3), 3))
    out = copies(0.0)
    store.pushpull(0, copies(2.0), out=out[::-1])
    assert [o.asnumpy()[0, 0] for o in out] == [4, 4]
    store.broadcast("b", nd.full((2, 3), 7.0), out)
    assert [o.asnumpy()[0, 0] for o in out] == [7, 7]


def test_optimizer_on_the_store(tmp_path):
    import blocks.optimizer as opt

    store = kv.create("local")
    assert store.is_capable("optimizer")
    store.set_optimizer(opt.SGD(learning_rate=0.5, momentum=0.9))
    store.init("w", nd.ones((2, 3)))
    out = copies(0.0)
    store.pushpull("w", copies(1.0), out)
    np.testing.assert_allclose(out[1].asnumpy(), np.zeros((2, 3)))
    store.pushpull("w", copies(1.0), out)
    np.testing.assert_allclose(out[0].asnumpy(), np.full((2, 3), -1.9), rtol=1e-6)
    path = tmp_path / "states"
    store.save_optimizer_states(path, dump_optimizer=True)
    other = kv.create("local")
    other.set_optimizer(opt.SGD(momentum=0.9))
    other.init("w", out[0])
    other.load_optimizer_states(path)
    again = copies(0.0)
    other.pushpull("w", copies(1.0), again)
    np.testing.assert_allclose(again[0].asnumpy(), np.full((2, 3), -1.9 - 1.71 - 1.0), rtol=1e-6)


def test_what_is_not_supported_says_so():
    store = kv.create("local")
    with pytest.raises(NotImplementedError, match="row"):
        store.row_sparse_pull("w")
    with pytest.raises(NotImplementedError, match="supported: 'none'"):
        store.set_gradient_compression({"type": "2bit"})
    store.set_gradient_compression({"type": "none"})
    with pytest.raises(RuntimeError, match="set_optimizer"):
        store.save_optimizer_states("x")
    with pytest.raises(ValueError, match="device, local"):
        kv.create("nothing")


def test_registry():
    @kv.KVStoreBase.register
    class Mine(kv.KVStoreBase):
        pass

    try:
        assert type(kv.create("mine")) is Mine
        with pytest.raises(NotImplementedError, match="broadcast"):
            kv.create("mine").broadcast(0, None, None)
    finally:
        del kv.KVStoreBase.kv_registry["mine"]


def test_an_optimizer_of_ones_own(monkeypatch):
    import blocks.optimizer as opt

    monkeypatch.setattr("kvstore.optimizer._registry", {})

    @opt.register
    class Halving(base.Optimizer):
        def create_state(self, index, weight):
            return None

        def update(self, index, weight, grad, state):
            weight[...] = weight / 2

    made = opt.create("Halving", learning_rate=0.5)
    assert type(made) is Halving and made.lr == 0.5
    assert type(base.Optimizer.from_config(made.config())) is Halving
    with pytest.raises(ValueError, match=r"no optimizer 'sgd'; known: halving$"):
        opt.create("sgd")


def test_optimizer_config_round_trip():
    import blocks.optimizer as opt

    adam = opt.create("adam", learning_rate=0.01, beta1=0.8, wd=0.1)
    again = base.Optimizer.from_config(adam.config())
    assert again.config() == adam.config()
    with pytest.raises(ValueError, match="adam, adamw, lamb, nag, sgd"):
        opt.create("nothing")


@pytest.mark.parametrize("devices", [[nd.cpu(0), nd.cpu(1)], [nd.sim(0), nd.sim(1)]], ids=["cpu", "sim"])
@pytest.mark.parametrize("name", ["local", "device", "nccl"])
def test_sums_in_place_end_a_write(name, devices):
    """What programs keep of weights, packed or cast, is stale when a store has summed into them."""
    if name == "nccl" and devices[0].kind == "cpu":
        pytest.skip("nccl sums over GPUs")
    store = kv.create(name)
    weights = [nd.ones((2, 3), device=d) for d in devices]
    store.init(0, weights[0])
    before = [storage_of(w).stamp for w in weights]
    store.pushpull(0, weights, out=weights)
    for w, stamp in zip(weights, before):
        assert storage_of(w).stamp != stamp
        assert (w.asnumpy() == 2).all()
