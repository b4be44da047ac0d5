"""Tracing: views and writes as NumPy has them, captures, lines, errors. The table "What a trace captures" is in
test_hybridize.py and here, one test a row."""

import numpy as np
import pytest

import ndarray as nd
from hybrid import LeakedTracerError, TraceError, hybridize
from hybrid.graph import Literal
from hybrid.trace import Tracer
from hybrid.verify import verify
from ndarray.dims import symbol
from ndarray.op import ArrayType
from ndarray.testing import assert_close

F32 = np.dtype(np.float32)


def trace(function, *args):
    tracer = Tracer(getattr(function, "__name__", "f"))
    inputs = [tracer.argument(ArrayType(tuple(a.shape), a.dtype), a.device, f"x{i}") for i, a in enumerate(args)]
    with tracer.under():
        out = function(*inputs)
        outputs = out if isinstance(out, (list, tuple)) else [] if out is None else [out]
        found = tracer.finish(outputs)
    verify(found.graph)
    return found


def x23():
    return nd.array(np.arange(6, dtype="f").reshape(2, 3))


# -- what becomes what

def test_literals_and_captures():
    w = nd.array([1.0, 2.0, 3.0])
    found = trace(lambda x: x * w + w * 2.0, x23())
    assert found.captured == (w,)  # once, by identity
    assert found.graph.equations[1].inputs[1] == Literal(2.0, F32)
    assert not found.graph.state


def test_data_given_inside_is_captured():
    found = trace(lambda x: x + nd.array([1.0, 2.0, 3.0]), x23())
    assert len(found.captured) == 1


def test_every_equation_has_the_users_line():
    def f(x):
        y = nd.softmax(x)
        return y + 1

    first = f.__code__.co_firstlineno
    sources = [eq.source for eq in trace(f, x23()).graph.equations]
    assert {s.file for s in sources} == {__file__}
    assert sources[0].line == first + 1
    assert sources[-1].line == first + 2


def test_writes_are_state_in_program_order():
    w = nd.array([1.0, 2.0, 3.0])

    def f(x):
        before = w * 1
        w[...] = w + x[0]
        w[0] = 7
        return before, w * 1

    found = trace(f, x23())
    assert list(found.graph.state) == [1]
    assert w.asnumpy().tolist() == [1, 2, 3]  # tracing writes nothing
    g = hybridize(f, backend="interpreter")
    before, after = g(x23())
    assert before.asnumpy().tolist() == [1, 2, 3]
    assert after.asnumpy().tolist() == w.asnumpy().tolist() == [7, 3, 5]


def test_a_write_to_an_argument_reaches_it():
    @hybridize(backend="interpreter")
    def f(x):
        x += 1
        x[:, 0] = 0

    x = x23()
    f(x)
    assert x.asnumpy().tolist() == [[0, 2, 3], [0, 5, 6]]


# -- views: each program must do to arrays what it does eagerly

def base_to_view(x, y):
    v = x[1]
    x[1, 1] = 10
    return [v * 1, x * 1]


def view_to_base(x, y):
    v = x[0]
    v[...] = y[0, 0]
    return [v * 1, x * 1]


def view_of_view(x, y):
    v = x[:, 1:]
    w = v[::-1, 1]
    w += 100
    x[0] = 5
    return [v * 1, w * 1, x * 1]


def transposed(x, y):
    t = x.T
    t[2] = 9
    x[0, 0] = -1
    return [t * 1, x * 1]


def reshaped(x, y):
    r = x.reshape(6)
    r[1:4] = y.reshape(-1)[:3]
    x[1, 2] = 77
    return [r * 1, x * 1]


def reshape_of_a_transpose_is_a_copy(x, y):
    r = x.T.reshape(6)
    r[0] = 50
    x[1, 1] = 60
    return [r * 1, x * 1]


def reshape_of_a_column_slice(x, y):
    r = x[:, :1].reshape(2)  # one element a row: NumPy shares memory here
    r[1] = 50
    return [r * 1, x * 1]


def reshape_of_a_slice_is_a_copy(x, y):
    r = x[:, :2].reshape(4)
    r[1] = 50
    return [r * 1, x * 1]


def backwards(x, y):
    v = x[::-1, ::-2]
    v[0] = 8
    return [v * 1, x * 1]


def strided(x, y):
    v = x[:, ::2]
    v *= 2
    x *= 3
    return [v * 1, x * 1]


def new_axes(x, y):
    v = x[:, None, 1]
    v[0] = 4
    return [v * 1, x * 1]


def through_a_temporary(x, y):
    t = x * 2
    v = t[0]
    v[1] = 1000
    t[0, 0] = 3
    return [t * 1, v * 1, x * 1]


def copies_are_apart(x, y):
    c = x[0].copy()
    c[...] = 0
    f = x.flatten()
    f[0] = 99
    return [c * 1, x * 1]


def detached(x, y):
    d = x.detach()
    d[0] = 3
    return [d * 1, x * 1]


def broadcast_write(x, y):
    x[...] = y[0]
    x[:, 1] = 2.5
    return [x * 1]


def masked(x, y):
    x[x > 2] = 0
    return [x * 1]


def one_axis_of_a_swap(x, y):
    v = x.swapaxes(0, 1)[1:]
    v[0, 0] = 11
    u = v.reshape(-1)
    u[0] = 12
    return [v * 1, u * 1, x * 1]


VIEWS = [
    base_to_view, view_to_base, view_of_view, transposed, reshaped, reshape_of_a_transpose_is_a_copy,
    reshape_of_a_column_slice, reshape_of_a_slice_is_a_copy, backwards, strided, new_axes, through_a_temporary,
    copies_are_apart, detached, broadcast_write, masked, one_axis_of_a_swap,
]


@pytest.mark.parametrize("function", VIEWS)
@pytest.mark.parametrize("order", ["C", "F"])
def test_views_are_numpys(function, order):
    def arrays():
        x = np.arange(6, dtype="f").reshape(2, 3)
        return nd.from_numpy(np.asarray(x, order=order)), nd.array(-x)

    x, y = arrays()
    a, b = arrays()
    expected = function(x, y)
    captured = hybridize(lambda y: function(a, y), backend="interpreter")(b)
    for e, c in zip(expected, captured):
        assert_close(c, e)
    assert_close(a, x)
    if order == "C":  # arguments lie in memory as they come; row-major ones are what a program is made for
        a, b = arrays()
        for e, c in zip(expected, hybridize(function, backend="interpreter")(a, b)):
            assert_close(c, e)
        assert_close(a, x)


@pytest.mark.parametrize("seed", range(20))
def test_random_programs_of_views_and_writes(seed):
    def program(x):
        r = np.random.default_rng(seed)
        pool = [x, x * 2]
        for step in range(12):
            v = pool[r.integers(len(pool))]
            kind = r.integers(6)
            if kind == 0 and v.ndim:
                v = v.T
            elif kind == 1 and v.ndim and v.shape[0] > 1:
                a, b = sorted(r.integers(0, v.shape[0] + 1, 2))
                v = v[a:b] if a < b else v[::-1]
            elif kind == 2 and v.ndim:
                v = v.reshape(-1)
            elif kind == 3 and v.ndim and v.shape[-1] > 1:
                v = v[..., ::2]
            elif kind == 4:
                v[...] = step
            elif v.ndim and v.size:
                v[0] = v[-1] * 1 + step
            pool.append(v)
        return [p * 1 for p in pool]

    x, y = (nd.array(np.arange(12, dtype="f").reshape(3, 4)) for _ in range(2))
    expected = program(x)
    for e, c in zip(expected, hybridize(program, backend="interpreter")(y)):
        assert_close(c, e, what=f"seed {seed}")
    assert_close(y, x)


def test_a_broadcast_is_read_only():
    def f(x):
        v = x[0].broadcast_to((2, 3))
        v[0] = 1

    with pytest.raises(ValueError, match="read-only"):
        trace(f, x23())


def test_memory_shared_outside_is_refused_when_written():
    base = x23()
    row = base[0]

    def f(x):
        row[...] = 0
        return base + x

    with pytest.raises(TraceError, match="shares"):
        trace(f, x23())


# -- what can't be traced

def refused():
    yield "bool", lambda x: 1 if x.sum() > 0 else 2, "nd.where"
    yield "float", lambda x: float(x.sum()), "float"
    yield "int", lambda x: int(x.sum()), "int"
    yield "item", lambda x: x.sum().item(), "item"
    yield "asnumpy", lambda x: x.asnumpy(), "Return it"
    yield "asarray", lambda x: np.asarray(x), "Return it"
    yield "index", lambda x: [1, 2, 3][x.sum().astype("int32")], "index"
    yield "tolist", lambda x: x.tolist(), "Return it"
    yield "mask", lambda x: x[x > 0], r"nd.where\(mask"


@pytest.mark.parametrize(("name", "function", "advice"), list(refused()), ids=[r[0] for r in refused()])
def test_asking_for_numbers_is_refused(name, function, advice):
    with pytest.raises(TraceError, match=advice) as error:
        hybridize(function, backend="interpreter")(x23())
    line = function.__code__.co_firstlineno
    assert f"{__file__}:{line}" in str(error.value)
    assert "of a traced array (" in str(error.value)


def test_a_leaked_tracer_says_where_it_was_made():
    kept = []

    @hybridize(backend="interpreter")
    def leaky(x):
        kept.append(x * 2)
        return x + 1

    leaky(x23())
    made = leaky._function.__code__.co_firstlineno + 2
    for use in (lambda t: t + 1, lambda t: t.asnumpy(), lambda t: nd.exp(t), lambda t: t.__setitem__(0, 1)):
        with pytest.raises(LeakedTracerError, match=f"{__file__}:{made}") as error:
            use(kept[0])
        assert "leaky" in str(error.value)
    with pytest.raises(LeakedTracerError, match=str(made)):
        hybridize(lambda x: x + kept[0], backend="interpreter")(x23())
    assert "traced" in repr(kept[0])


def test_an_error_of_the_user_leaves_the_stack_clean():
    def f(x):
        return x.reshape(5)

    with pytest.raises(ValueError, match="reshape"):
        hybridize(f, backend="interpreter")(x23())
    assert (x23() + 1).asnumpy().sum() == 21


def test_symbolic_sizes_ask_with_guards_that_know_their_line():
    n = symbol("n", 4)
    tracer = Tracer("f")
    x = tracer.argument(ArrayType((n, 3), F32), nd.cpu(), "x")
    with tracer.under():
        y = x * 2 if x.shape[0] > 2 else x
        found = tracer.finish([y.sum() / x.shape[0], nd.zeros((x.shape[0], 2))])
    verify(found.graph)
    ((guard, source),) = found.guards
    assert str(guard) == "n > 2"
    assert source.file == __file__


def test_devices_are_not_mixed():
    with pytest.raises(ValueError, match="different devices"):
        trace(lambda x: x + nd.ones((3,), device=nd.cpu(1)), x23())
