"""What can not be traced is refused with the line, the reason, and what to write instead; and nothing is left behind."""

import copy
import math

import numpy as np
import pytest

import ndarray as nd
from blocks import HybridBlock, Parameter, nn
from hybrid import LeakedTracerError, TraceError, hybridize
from ndarray import autograd
from ndarray.testing import assert_close
from tests.networks import trainer_of

WHY = "its numbers are not known while the function is traced, only when the compiled program runs"


def branch(x):
    if x.sum() > 0:
        return x
    return -x


def loop(x):
    while x.sum() > 1:
        x = x / 2
    return x


def negation(x):
    return x if not x[0, 0] else -x


def conjunction(x):
    return x.sum() and x


def membership(x):
    return 1.0 in x


def largest(x):
    return max(x[0, 0], x[0, 1])


def assertion(x):
    assert (x > 0).all()
    return x


def number(x):
    return x * float(x.sum())


def root(x):
    return math.sqrt(x.sum())


def whole(x):
    return int(x.sum())


def item(x):
    return x.sum().item()


def scalar(x):
    return x.sum().asscalar()


def text(x):
    return f"{x.sum():.2f}"


def numpy_array(x):
    return x.asnumpy().max()


def numpy_function(x):
    return np.array(x)


def nested_list(x):
    return x.tolist()


def deep_copy(x):
    return copy.deepcopy(x)


def counting(x):
    return [x for _ in range(x.sum().astype("int32"))]


def subscript(x):
    return [1, 2, 3][x.sum().astype("int32")]


def selection(x):
    return x[x > 0]


INSTEAD = {
    branch: r"nd\.where\(condition, a, b\) instead of `if`", loop: r"nd\.where", negation: r"nd\.where",
    conjunction: r"nd\.where", membership: r"nd\.where", largest: r"nd\.where", assertion: "decide outside the function",
    number: "Keep it an array", root: "Keep it an array", whole: "Keep it an array", item: "Keep it an array",
    scalar: "Keep it an array", text: "return it and convert it outside", numpy_array: "Return it and convert it outside",
    numpy_function: "Return it and convert it outside", nested_list: "Return it and convert it outside",
    deep_copy: "Return it and convert it outside", counting: r"x\.take\(i\)", subscript: r"x\.take\(i\)",
    selection: r"nd\.where\(mask, x, 0\)",
}


class Layer(HybridBlock):
    """A Block whose forward is one of the functions above, behind a layer with a parameter."""

    def __init__(self, function):
        super().__init__()
        self.first, self.function = nn.Dense(3, in_units=3), function

    def forward(self, x):
        return self.function(self.first(x))


@pytest.mark.parametrize("inside", ["function", "block", "recorded block", "training step"])
@pytest.mark.parametrize("function", INSTEAD, ids=lambda f: f.__name__)
def test_what_cannot_be_traced(function, inside):
    x = nd.ones((2, 3))
    if inside == "function":
        run = hybridize(function)
    else:
        net = Layer(function)
        net.initialize()
        if inside == "training step":
            trainer = trainer_of(net, "sgd")

            @hybridize
            def run(x):
                with autograd.record():
                    y = net(x).sum()
                y.backward()
                trainer.step(2)
        else:
            net.hybridize()
            run = net
    recording = autograd.record() if inside == "recorded block" else autograd.pause()
    with pytest.raises(TraceError, match=INSTEAD[function]) as error, recording:
        run(x)
    message, line = str(error.value), function.__code__.co_firstlineno + 1
    assert message.startswith(f"{__file__}:{line}: "), message
    assert WHY in message
    # nothing is left of the trace
    assert not autograd.is_recording()
    assert_close(nd.exp(x * 0), x)
    assert_close(hybridize(lambda x: x + 1)(x), x + 1)
    if inside != "function":
        assert np.isfinite(net.first.weight.data().asnumpy()).all()
        net.function = nd.tanh
        net.hybridize()
        assert net(x).shape == (2, 3)


class Keeper(HybridBlock):
    """Keeps what it should not."""

    def __init__(self):
        super().__init__()
        self.weight = Parameter("weight", shape=(3,), init="one")
        self.kept, self.things = None, []

    def forward(self, x):
        y = x * self.weight.data()
        self.kept = y
        self.things.append(y)
        return y + 1


def uses():
    yield "operator", lambda t, x: t + x
    yield "function", lambda t, x: nd.exp(t)
    yield "asnumpy", lambda t, x: t.asnumpy()
    yield "float", lambda t, x: float(t[0, 0])
    yield "write", lambda t, x: t.__setitem__(0, 1)
    yield "written", lambda t, x: x.__setitem__(0, t[0])
    yield "recorded", lambda t, x: _recorded(t, x)
    yield "traced", lambda t, x: hybridize(lambda x: x + t)(x)
    yield "argument", lambda t, x: hybridize(lambda x: x + 1)(t)
    yield "layer", lambda t, x: _layer()(t)


def _layer():
    layer = nn.Dense(2, in_units=3)
    layer.initialize()
    return layer


def _recorded(t, x):
    x.attach_grad()
    with autograd.record():
        return (x * t).sum()


@pytest.mark.parametrize(("name", "use"), list(uses()), ids=[n for n, _ in uses()])
def test_a_leaked_tracer(name, use):
    net = Keeper()
    net.initialize()
    net.hybridize()
    x = nd.ones((2, 3))
    net(x)
    made = Keeper.forward.__code__.co_firstlineno + 1
    for leaked in (net.kept, net.things[0]):
        with pytest.raises(LeakedTracerError) as error:
            use(leaked, nd.ones((2, 3)))
        message = str(error.value)
        assert f"{__file__}:{made}" in message, message
        assert "keeper" in message
        if name not in ("traced",):
            assert "Return it from the function, or write it into an array that exists outside" in message
    assert not autograd.is_recording()
    assert_close(net(x), x + 1)


def test_a_number_leaked_from_a_trace():
    kept = []

    @hybridize
    def f(x, rate):
        kept.append(rate * 2)
        return x * rate

    f(nd.ones((3,)), 0.5)
    with pytest.raises(LeakedTracerError, match="after its trace"):
        nd.ones((3,)) * kept[0]


def test_an_error_in_forward_is_the_users_own():
    class Wrong(HybridBlock):
        def forward(self, x):
            raise KeyError("mine")

    net = Wrong()
    net.hybridize()
    for _ in range(2):
        with pytest.raises(KeyError, match="mine"):
            net(nd.ones((2,)))
    with pytest.raises(ValueError, match=r"reshape"):
        hybridize(lambda x: x.reshape((7, -1)))(nd.ones((2, 3)))
    with pytest.raises(ValueError, match=r"broadcast|shapes"):
        hybridize(lambda x, y: x + y)(nd.ones((2, 3)), nd.ones((4,)))
