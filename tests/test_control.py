"""foreach, while_loop and cond: eager, traced and compiled agree, with their gradients."""

from __future__ import annotations

import numpy as np
import pytest

import ndarray as nd
from hybrid import TraceError, hybridize
from ndarray import autograd

BACKENDS = ["interpreter", "jit"]


def array(*shape, seed=0, dtype="float64"):
    return nd.array(np.random.RandomState(seed).randn(*shape), dtype=dtype)


def outcome(function, arrays, also=()):
    """Results, and gradients of a weighted sum of them."""
    every = [a for a in (*arrays, *also) if a.dtype.kind == "f"]
    for a in every:
        a.attach_grad()
    with autograd.record():
        results = function(*arrays)
        flat = [r for r in nd.control.flatten("test", "results", results)[0] if r.dtype.kind == "f"]
        loss = sum(((r * r + r) * (k + 1)).sum() for k, r in enumerate(flat))
    loss.backward()
    return [r.asnumpy() for r in nd.control.flatten("test", "results", results)[0]] + [a.grad.asnumpy() for a in every]


def agree(function, *arrays, backend, also=(), tolerance=1e-10):
    """Eager, without gradient and with it."""
    expected = outcome(function, arrays, also)
    compiled = hybridize(function, backend=backend)
    plain = nd.control.flatten("test", "results", compiled(*arrays))[0]
    for a, b in zip(plain, expected):
        np.testing.assert_allclose(a.asnumpy(), b, rtol=tolerance, atol=tolerance)
        assert a.dtype == b.dtype
    for a, b in zip(outcome(compiled, arrays, also), expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def recurrence(w, b):
    def step(x, s):
        s = nd.tanh(nd.dot(s, w.T) + x + b)
        return s * 2, s

    return lambda x, s: nd.foreach(step, x, s)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_foreach_is_a_recurrence(backend, steps):
    w, b = array(4, 4, seed=1), array(4, seed=2)
    agree(recurrence(w, b), array(steps, 3, 4, seed=3), array(3, 4, seed=4), backend=backend, also=(w, b))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_foreach_from_the_last_step_to_the_first(backend, steps):
    w = array(4, 4, seed=1)

    def run(x, s):
        return nd.foreach(lambda x, s: (s * x, nd.tanh(nd.dot(s, w) + x)), x, s, reverse=True)

    def turned(x, s):
        ys, last = nd.foreach(lambda x, s: (s * x, nd.tanh(nd.dot(s, w) + x)), x[::-1], s)
        return ys[::-1], last

    x, s = array(steps, 3, 4, seed=3), array(3, 4, seed=4)
    agree(run, x, s, backend=backend, also=(w,))
    for a, b in zip(run(x, s), turned(x, s)):
        np.testing.assert_array_equal(a.asnumpy(), b.asnumpy())


def test_foreach_against_numpy():
    w, b, x, s = array(4, 4, seed=1), array(4, seed=2), array(6, 3, 4, seed=3), array(3, 4, seed=4)
    ys, last = recurrence(w, b)(x, s)
    h, expected = s.asnumpy(), []
    for t in range(6):
        h = np.tanh(h @ w.asnumpy().T + x.asnumpy()[t] + b.asnumpy())
        expected.append(2 * h)
    np.testing.assert_allclose(ys.asnumpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(last.asnumpy(), h, rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nested_structures_and_states_of_several_dtypes(backend):
    def step(data, states):
        (x, [y]), (s, n) = data, states
        s = s * 0.5 + x.sum() * y
        return {"a": s + 1, "b": (x, n)}, (s, n + 1)

    agree(lambda x, y, s, n: nd.foreach(step, [x, [y]], (s, n)), array(4, 3), array(4, seed=1), array(seed=2),
          nd.array(7, dtype="int32"), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_loops_in_loops(backend):
    w = array(3, 3, seed=5)

    def outer(x, s):
        ys, inner = nd.foreach(lambda z, h: (h * z, nd.tanh(nd.dot(h, w) + z)), x, s)
        return ys.sum(axis=0), inner * 0.5 + s

    agree(lambda x, s: nd.foreach(outer, x, s), array(4, 2, 3), array(3, seed=1), backend=backend, also=(w,))


@pytest.mark.parametrize("backend", BACKENDS)
def test_states_that_are_exchanged_and_kept(backend):
    def step(x, states):
        a, b, c = states
        return a + c, [b, a + x, c]

    agree(lambda x, a, b, c: nd.foreach(step, x, [a, b, c]), array(5, 2), array(2, seed=1), array(2, seed=2), array(2, seed=3),
          backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("limit", [0, 3, 10])
def test_while_loop(backend, limit):
    w = array(3, seed=5)

    def run(i, s):
        return nd.while_loop(
            lambda i, s: (s * s).sum() < 50, lambda i, s: ((s * w, i), [i + 1, s * 1.5 + nd.tanh(w)]), [i, s], limit)

    agree(run, nd.array(0, dtype="int64"), array(3, seed=1), backend=backend, also=(w,))


@pytest.mark.parametrize("backend", BACKENDS)
def test_while_loop_that_takes_no_step(backend):
    agree(lambda s: nd.while_loop(lambda s: s.sum() < -1e9, lambda s: (s, s + 1), s, 4), array(3, seed=1), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sign", [1, -1])
def test_cond(backend, sign):
    w = array(3, seed=5)

    def run(x):
        y, n = nd.cond((x * sign).sum() > 0, lambda: (nd.sin(x) * w, x), lambda: (x * 3, x + 1))
        return y * 2, n

    agree(run, array(3, seed=1), backend=backend, also=(w,))


@pytest.mark.parametrize("backend", BACKENDS)
def test_cond_in_a_loop(backend):
    w = array(3, seed=5)

    def step(x, s):
        s = nd.cond(x.sum() > 0, lambda: s * w + x, lambda: nd.tanh(s) - x)
        return s, s

    agree(lambda x, s: nd.foreach(step, x, s), array(6, 3), array(3, seed=1), backend=backend, also=(w,))


@pytest.mark.parametrize("backend", BACKENDS)
def test_random_numbers_and_statistics_in_a_body(backend):
    total = nd.zeros((3,), dtype="float64")

    def step(x, s):
        total[...] = total * 0.5 + x
        s = s + nd.dropout(x, 0.5) + total + nd.random.uniform(shape=(3,), dtype="float64")
        return s, s

    x, s = array(4, 3), array(3, seed=1)
    found = []
    for function in (lambda x, s: nd.foreach(step, x, s), hybridize(lambda x, s: nd.foreach(step, x, s), backend=backend)):
        nd.random.seed(7)
        total[...] = 1
        with autograd.train_mode():
            found.append([a.asnumpy() for r in (function(x, s), function(x, s)) for a in r] + [total.asnumpy()])
        found[-1].append(nd.random.uniform(shape=(2,)).asnumpy())
    for a, b in zip(*found):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_second_derivatives_are_right(backend):
    w = array(3, 3, seed=2)

    def value(x, s, w):
        ys, last = nd.foreach(lambda x, s: (s * x, nd.tanh(nd.dot(s, w) + x)), x, s)
        return (ys * ys).sum() + last.sum()

    def inner(x, s, w):  # a gradient as a function
        for a in (x, s, w):
            a.attach_grad()
        with autograd.record():
            y = value(x, s, w)
            gs = autograd.grad(y, [x, s, w], create_graph=True)
            z = sum((g * g).sum() for g in gs)
        z.backward()
        return [a.grad.asnumpy() for a in (x, s, w)]

    arrays = array(4, 3), array(3, seed=1), w
    expected = inner(*arrays)
    plain = value
    value = hybridize(plain, backend=backend)
    for a, b in zip(inner(*arrays), expected):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)

    @hybridize(backend=backend)
    def whole(x, s, w):
        for a in (x, s, w):
            a.attach_grad()
        with autograd.record():
            y = plain(x, s, w)
            gs = autograd.grad(y, [x, s, w], create_graph=True)
            z = sum((g * g).sum() for g in gs)
        return autograd.grad(z, [x, s, w])

    for a, b in zip(whole(*arrays), expected):
        np.testing.assert_allclose(a.asnumpy(), b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_agree_with_differences(backend):
    w, x, s = array(3, 3, seed=2), array(4, 3), array(3, seed=1)
    function = hybridize(
        lambda x, s, w: nd.foreach(lambda x, s: (s * x, nd.tanh(nd.dot(s, w) + x)), x, s)[0].sum(), backend=backend)
    gradients = outcome_gradients(function, x, s, w)
    for a, g in zip((x, s, w), gradients):
        direction = np.random.RandomState(9).randn(*a.shape)
        here, step = a.asnumpy().copy(), 1e-6
        values = []
        for k in (step, -step):
            a[...] = here + k * direction
            values.append(function(x, s, w).item())
        a[...] = here
        np.testing.assert_allclose((values[0] - values[1]) / (2 * step), (g * direction).sum(), rtol=1e-7)


def outcome_gradients(function, *arrays):
    for a in arrays:
        a.attach_grad()
    with autograd.record():
        y = function(*arrays)
    y.backward()
    return [a.grad.asnumpy() for a in arrays]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_training_step_with_a_loop_is_one_program(backend):
    w, x, s = array(3, 3, seed=2), array(4, 3), array(3, seed=1)

    def train(w, x, s):
        w.attach_grad()
        with autograd.record():
            ys, last = nd.foreach(lambda x, s: (s * x, nd.tanh(nd.dot(s, w) + x)), x, s)
            loss = (ys * ys).sum() + last.sum()
        loss.backward()
        return loss, w - 0.1 * w.grad

    expected = [a.asnumpy() for a in train(w, x, s)]
    for a, b in zip(hybridize(train, backend=backend)(w, x, s), expected):
        np.testing.assert_allclose(a.asnumpy(), b, rtol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_number_of_steps_is_one_program(backend):
    w, b = array(4, 4, seed=1), array(4, seed=2)
    eager = recurrence(w, b)
    compiled = hybridize(eager, backend=backend)
    for steps in (3, 4, 5, 9, 1, 6):
        x, s = array(steps, 3, 4, seed=steps), array(3, 4, seed=4)
        for a, c in zip(compiled(x, s), eager(x, s)):
            np.testing.assert_allclose(a.asnumpy(), c.asnumpy(), rtol=1e-11, atol=1e-12)
        for a, c in zip(outcome(compiled, (x, s), (w, b)), outcome(eager, (x, s), (w, b))):
            np.testing.assert_allclose(a, c, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("traced", [False, True])
def test_errors_name_the_argument(traced):
    run = (lambda f, *a: hybridize(f, backend="interpreter")(*a)) if traced else (lambda f, *a: f(*a))
    x, s = array(3, 2), array(2, seed=1)
    with pytest.raises(ValueError, match=r"state 0 was float64\[2\], and body returned float32\[2\]"):
        run(lambda x, s: nd.foreach(lambda x, s: (x, s.astype("float32")), x, s), x, s)
    with pytest.raises(ValueError, match="body returned 2 states"):
        run(lambda x, s: nd.foreach(lambda x, s: (x, [s, s]), x, s), x, s)
    with pytest.raises(TypeError, match=r"body must return \(outputs, states\)"):
        run(lambda x, s: nd.foreach(lambda x, s: x, x, s), x, s)
    with pytest.raises(ValueError, match=r"array 0 is float64\[3,2\], array 1 float64\[2\]"):
        run(lambda x, s: nd.foreach(lambda x, s: (x, s), [x, s], s), x, s)
    with pytest.raises(ValueError, match="cond: expected an array with one element"):
        run(lambda x: nd.while_loop(lambda x: x > 0, lambda x: (x, x), x, 3), x)
    with pytest.raises(ValueError, match="max_iterations must be given"):
        run(lambda x: nd.while_loop(lambda x: x > 0, lambda x: (x, x), x), x)

    def writes(x, s):
        s += x
        return s, s

    with pytest.raises((RuntimeError, TraceError), match=r"body wrote, at .*test_control.py:\d+"):
        run(lambda x, s: nd.foreach(writes, x, s * 1), x, s)


def test_branches_that_differ_are_refused():
    x = array(3)
    with pytest.raises(ValueError, match=r"result 0 of then_func is float64\[3\], of else_func float64\[\]"):
        hybridize(lambda x: nd.cond(x.sum() > 0, lambda: x, lambda: x.sum()))(x)


def test_a_traced_value_that_leaves_its_body_says_so():
    kept = []

    def step(x, s):
        kept.append(x * 2)
        return x, s

    with pytest.raises(RuntimeError, match="has left its trace"):
        hybridize(lambda x: nd.foreach(step, x, x[0])[0] + kept[0])(array(3, 2))


class Straight(autograd.Function):
    """sign(x) * w forwards; backwards x is taken to be itself."""

    def forward(self, x, w):
        self.save_for_backward(w, nd.sign(x))
        return nd.sign(x) * w

    def backward(self, g):
        w, s = self.saved_tensors
        return g * w * 3, (g * s)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_function_with_a_gradient_of_its_own(backend):
    w = array(3, seed=5)
    agree(lambda x: Straight()(x * x - 0.5, w) + nd.sin(Straight()(x, x)), array(4, 3), backend=backend, also=(w,))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_function_with_a_gradient_of_its_own_in_a_loop(backend):
    w = array(3, seed=5)

    def step(x, s):
        s = Straight()(s + x, nd.tanh(w)) + s * 0.5
        return s, s

    agree(lambda x, s: nd.foreach(step, x, s), array(4, 3), array(3, seed=1), backend=backend, also=(w,))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gradient_of_a_gradient_of_its_own_is_that_of_backward(backend):
    class Cube(autograd.Function):
        def forward(self, x):
            self.save_for_backward(x)
            return x * x * x

        def backward(self, g):
            (x,) = self.saved_tensors
            return g * 3 * x * x

    x = array(4)
    function = hybridize(lambda x: Cube()(x), backend=backend)
    x.attach_grad()
    with autograd.record():
        y = function(x)
        (g,) = autograd.grad(y, [x], create_graph=True)
        z = (g * g).sum()
    z.backward()
    np.testing.assert_allclose(x.grad.asnumpy(), 36 * x.asnumpy() ** 3, rtol=1e-10)


def test_states_kept_for_the_gradient_are_stored_by_what_computes_the_new_ones():
    """A step of an LSTM that is recorded is a product and one pass, as without a gradient."""
    arrays = [array(6, 3, 5), array(16, 5), array(16, 4)]
    net = hybridize(lambda x, w, v: nd.lstm_layer(x, w, v)[0])
    for a in arrays:
        a.attach_grad()
    with autograd.record():
        net(*arrays)
        forward = net.explain(*arrays).programs[0]
    assert [k.note.split()[0] for k in forward.kernels if k.repeats == 6 and not k.note.startswith("pack")] == \
        [k.note.split()[0] for k in net.explain(*arrays).programs[0].kernels if k.repeats == 6 and not k.note.startswith("pack")]
