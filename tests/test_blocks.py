"""Blocks: registration, names, initialization, deferred shapes, files, hooks."""

import numpy as np
import pytest

import ndarray as nd
from blocks import Block, Constant, DeferredInitializationError, HybridBlock, Parameter, init, nn
from hybrid.epoch import epoch
from ndarray import autograd
from ndarray.files import FileFormatError


def mlp(**options):
    net = nn.HybridSequential()
    net.add(nn.Dense(8, activation="relu", **options), nn.Dense(3))
    return net


class Residual(HybridBlock):
    def __init__(self, units):
        super().__init__()
        self.dense = nn.Dense(units, flatten=False)
        self.scale = Parameter("scale", shape=(1,), init="ones")

    def forward(self, x):
        return x + self.dense(x) * self.scale.data(x.device)


class Old(HybridBlock):
    """Gluon 1's form."""

    def __init__(self, units, in_units, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.weight = self.params.get("weight", shape=(units, in_units))
            self.child = nn.Dense(2)

    def hybrid_forward(self, F, x, weight):
        return self.child(F.relu(F.dot(x, weight.T)))


def test_structured_names_and_selection():
    net = nn.HybridSequential()
    net.add(nn.Dense(4), Residual(4))
    assert list(net.collect_params()) == ["0.weight", "0.bias", "1.scale", "1.dense.weight", "1.dense.bias"]
    assert list(net.collect_params(".*bias")) == ["0.bias", "1.dense.bias"]
    assert list(net.collect_params("0")) == ["0.weight", "0.bias"]


def test_deferred_shapes_are_completed_by_the_first_batch():
    net = mlp()
    net.initialize()
    assert net[0].weight.shape == (8, -1)
    with pytest.raises(DeferredInitializationError, match="first batch"):
        net[0].weight.data()
    out = net(nd.ones((2, 5)))
    assert out.shape == (2, 3)
    assert net[0].weight.shape == (8, 5)
    assert net[0].weight.data().shape == (8, 5)
    assert net[0].weight.grad().shape == (8, 5)


def test_uninitialized_use_says_what_to_call():
    net = mlp()
    with pytest.raises(RuntimeError, match=r"0\.weight.*initialize"):
        net.collect_params()["0.weight"].data()
    with pytest.raises(RuntimeError, match="initialize"):
        net(nd.ones((2, 5)))


def test_wrong_input_size_after_the_first_is_an_error():
    net = mlp()
    net.initialize()
    net(nd.ones((2, 5)))
    with pytest.raises(ValueError):
        net(nd.ones((2, 6)))


def test_initialization_is_reproducible_and_uses_the_right_initializer():
    values = []
    for _ in range(2):
        nd.random.seed(7)
        net = mlp(in_units=5, bias_initializer="ones")
        net.initialize(init.Xavier())
        values.append(net[0].weight.data().asnumpy())
    np.testing.assert_array_equal(*values)
    bound = np.sqrt(3 / ((5 + 8) / 2))
    assert np.abs(values[0]).max() <= bound
    assert values[0].std() > bound / 4
    np.testing.assert_array_equal(net[0].bias.data().asnumpy(), np.ones(8))


@pytest.mark.parametrize(
    ("initializer", "low", "high"),
    [("zeros", 0, 0), ("ones", 1, 1), (init.Constant(2), 2, 2), ("uniform", -0.07, 0.07), (init.Normal(0.1), -1, 1)],
)
def test_initializers(initializer, low, high):
    p = Parameter("w", shape=(20, 30), init=initializer)
    p.initialize()
    value = p.data().asnumpy()
    assert value.min() >= low
    assert value.max() <= high
    assert initializer in ("zeros", "ones") or low == high or value.std() > 0.03


def test_msra_prelu_scale_and_json():
    p = Parameter("w", shape=(200, 100), init=init.MSRAPrelu("in", 0.0))
    p.initialize()
    assert p.data().asnumpy().std() == pytest.approx(np.sqrt(2 / 100), rel=0.05)
    again = init.create(init.Xavier(magnitude=2).dumps())
    assert again == init.Xavier(magnitude=2)
    with pytest.raises(ValueError, match="xavier"):
        init.create("nothing")


def test_user_defined_initializer():
    class Five(init.Initializer):
        def _init_weight(self, name, data):
            data[:] = 5

    net = nn.Dense(2, in_units=3)
    net.initialize(Five())
    np.testing.assert_array_equal(net.weight.data().asnumpy(), np.full((2, 3), 5))
    np.testing.assert_array_equal(net.bias.data().asnumpy(), np.zeros(2))


def test_attribute_rules():
    net = nn.HybridSequential()
    net.add(nn.Dense(2))
    net.extra = nn.Dense(3)
    assert "extra.weight" in net.collect_params()
    with pytest.raises(TypeError, match="extra"):
        net.extra = 5

    class NoSuper(Block):
        def __init__(self):
            self.dense = nn.Dense(2)

    with pytest.raises(RuntimeError, match="super"):
        NoSuper()


def test_writes_of_attributes_raise_the_epoch():
    net = mlp()
    before = epoch.value
    net[0].note = 3
    assert epoch.value > before
    before = epoch.value
    net.add(nn.Dense(2))
    assert epoch.value > before


def test_gluon_1_form():
    net = Old(4, 5, prefix="old_")
    net.initialize()
    x = nd.array(np.random.default_rng(0).normal(size=(2, 5)).astype("float32"))
    w, child = net.weight.data().asnumpy(), net.child
    out = net(x).asnumpy()
    hidden = np.maximum(x.asnumpy() @ w.T, 0)
    np.testing.assert_allclose(out, hidden @ child.weight.data().asnumpy().T, rtol=1e-5, atol=1e-6)


def test_unknown_shapes_without_infer_shape():
    class Custom(HybridBlock):
        def __init__(self):
            super().__init__()
            self.w = Parameter("w", shape=(3, 0))

        def forward(self, x):
            return x * self.w.data()

    net = Custom()
    net.initialize()
    with pytest.raises(RuntimeError, match="infer_shape"):
        net(nd.ones((2, 3)))


def test_save_and_load(tmp_path):
    path = tmp_path / "net.params"
    net, other = mlp(), mlp()
    net.initialize(init.Xavier())
    x = nd.ones((2, 5))
    expected = net(x).asnumpy()
    net.save_parameters(path)
    other.load_parameters(path)
    np.testing.assert_array_equal(other(x).asnumpy(), expected)
    assert [p.name for p in tmp_path.iterdir()] == ["net.params"]


def test_load_errors(tmp_path):
    path = tmp_path / "net.params"
    net = mlp(in_units=5)
    net.initialize()
    net(nd.ones((1, 5)))
    net.save_parameters(path)
    bigger = mlp(in_units=5)
    bigger.add(nn.Dense(2))
    with pytest.raises(ValueError, match=r"2\.weight.*allow_missing"):
        bigger.load_parameters(path)
    bigger.load_parameters(path, allow_missing=True)
    smaller = nn.HybridSequential()
    smaller.add(nn.Dense(8))
    with pytest.raises(ValueError, match=r"1\..*ignore_extra"):
        smaller.load_parameters(path)
    smaller.load_parameters(path, ignore_extra=True)
    with pytest.raises(ValueError, match=r"0\.weight.*\(8, 5\).*\(8, 6\)"):
        mlp(in_units=6).load_parameters(path)
    half = mlp(in_units=5, dtype="float64")
    with pytest.raises(ValueError, match="cast_dtype"):
        half.load_parameters(path)
    half.load_parameters(path, cast_dtype=True)
    assert half[0].weight.data().dtype == np.float64


@pytest.mark.parametrize("damage", [lambda b: b[:-3], lambda b: b[:5], lambda b: b"\xff" * 16 + b[16:], lambda b: b + b"x"])
def test_damaged_parameter_files(tmp_path, damage):
    path = tmp_path / "net.params"
    net = mlp(in_units=5)
    net.initialize()
    net(nd.ones((1, 5)))
    net.save_parameters(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FileFormatError, match=r"net\.params"):
        mlp().load_parameters(path)


def test_shared_parameters():
    class Tied(HybridBlock):
        def __init__(self):
            super().__init__()
            self.a = nn.Dense(4, in_units=4)
            self.b = nn.Dense(4, in_units=4)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    net = Tied()
    net.initialize()
    assert net.b.weight.data() is net.a.weight.data()
    assert len(list(net.collect_params().unique())) == 3
    other = nn.Dense(4, in_units=4).share_parameters({"weight": net.a.weight})
    assert other.weight is net.a.weight


def test_hooks_and_apply():
    net, seen = mlp(), []
    net.initialize()
    handle = net[0].register_forward_hook(lambda block, args, out: seen.append(out.shape))
    net.register_forward_pre_hook(lambda block, args: seen.append("pre"))
    net(nd.ones((2, 5)))
    handle.detach()
    net(nd.ones((2, 5)))
    assert seen == ["pre", (2, 8), "pre"]
    names = []
    net.apply(lambda b: names.append(b.name))
    assert names == ["dense", "dense", "hybridsequential"]


def test_several_devices():
    devices = [nd.cpu(0), nd.cpu(1)]
    net = mlp()
    net.initialize(device=devices)
    x = nd.ones((2, 5), device=devices[1])
    out = net(x)
    assert out.device == devices[1]
    weight = net[0].weight
    assert weight.list_device() == devices
    np.testing.assert_array_equal(*(w.asnumpy() for w in weight.list_data()))
    with pytest.raises(RuntimeError, match=r"cpu\(2\)"):
        weight.data(nd.cpu(2))
    net.reset_ctx(nd.cpu(2))
    assert weight.data().device == nd.cpu(2)



def test_set_data_without_a_copy_takes_the_memory_over():
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    p = Parameter("w", shape=(2, -1))
    p.set_data(value, copy=False)
    assert p.shape == (2, 3) and np.shares_memory(p.data()._data, value)
    assert p.grad().shape == (2, 3)
    for other in (value.astype(np.float64), np.asfortranarray(value), np.broadcast_to(np.float32(1), (2, 3)), nd.array(value)):
        q = Parameter("w", shape=(2, 3))
        q.set_data(other, copy=False)
        assert q.data().dtype == np.float32 and q.data()._data.flags.c_contiguous and q.data()._data.flags.writeable
        assert not np.shares_memory(q.data()._data, np.asarray(other))
        np.testing.assert_array_equal(q.data().asnumpy(), np.asarray(other))
    generation = p.generation
    p.set_data(value + 1, copy=False)
    assert p.generation > generation and float(p.data()[0, 0]) == 1
    with pytest.raises(ValueError, match="shape"):
        p.set_data(np.zeros((3, 3), np.float32), copy=False)


def test_a_hybridized_block_sees_data_that_were_taken_over():
    net = nn.Dense(2, in_units=3, use_bias=False)
    net.initialize()
    net.hybridize()
    x = nd.ones((1, 3))
    for k in range(4):
        net(x)
        net.weight.set_data(np.full((2, 3), k, np.float32), copy=False)
        np.testing.assert_array_equal(net(x).asnumpy(), np.full((1, 2), 3.0 * k))


def test_parameter_methods():
    p = Parameter("w", shape=(2, 3), init="ones")
    p.initialize()
    p.set_data(nd.full((2, 3), 4.0))
    np.testing.assert_array_equal(p.data().asnumpy(), np.full((2, 3), 4))
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        p.set_data(nd.ones((3, 2)))
    p.grad_req = "null"
    with pytest.raises(RuntimeError, match="grad_req"):
        p.grad()
    p.grad_req = "add"
    for _ in range(2):
        with autograd.record():
            y = (p.data() * 2.0).sum()
        y.backward()
    np.testing.assert_array_equal(p.grad().asnumpy(), np.full((2, 3), 4))
    p.zero_grad()
    assert not p.grad().asnumpy().any()
    p.cast("float64")
    assert p.data().dtype == np.float64
    constant = Constant([[1.0, 2.0]])
    constant.initialize()
    assert constant.grad_req == "null"
    np.testing.assert_array_equal(constant.data().asnumpy(), [[1, 2]])


def test_repr_and_summary(capsys):
    net = mlp()
    net.initialize()
    net.summary(nd.ones((2, 5)))
    text = capsys.readouterr().out
    assert "Total params: 75" in text
    assert "(2, 8)" in text
    assert "Dense(5 -> 8, relu)" in repr(net)
