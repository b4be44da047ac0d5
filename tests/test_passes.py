"""Passes: what each rewrites, that values stay the same, and that gradients of graphs are right."""

import numpy as np
import pytest

import ndarray as nd
from hybrid.graph import Builder, Literal, render
from hybrid.interpret import evaluate_graph
from hybrid.passes import (
    PIPELINE,
    abreast,
    absorb,
    always_verify,
    cse,
    dce,
    fold,
    inline,
    layout,
    optimize,
    simplify,
    skip_passes,
    turn,
)
from hybrid.passes.gradient import joint, split
from hybrid.trace import Tracer
from hybrid.verify import verify
from ndarray.dims import symbol
from ndarray.op import ArrayType

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


def traced(function, *shapes, dtype=F64):
    """The graph of a function of arrays."""
    tracer = Tracer(getattr(function, "__name__", "f"))
    args = [tracer.argument(ArrayType(tuple(s), dtype), nd.cpu(), f"x{i}") for i, s in enumerate(shapes)]
    with tracer.under():
        out = function(*args)
        return verify(tracer.finish(out if isinstance(out, (list, tuple)) else [out]).graph)


def ops(graph):
    return [eq.op.name for eq in graph.equations]


def same(before, after, seed=0):
    """Both graphs give the same values."""
    r = np.random.default_rng(seed)
    arrays = [r.standard_normal([d if isinstance(d, int) else 5 for d in v.shape]).astype(v.dtype) for v in before.inputs]
    for a, b in zip(evaluate_graph(before, [a.copy() for a in arrays]), evaluate_graph(after, [a.copy() for a in arrays])):
        np.testing.assert_allclose(b, a, rtol=1e-12, err_msg=f"{render(before)}\n{render(after)}")


def p(op, *inputs, **attrs):
    from ndarray.apply import apply
    from ndarray.op import OPS

    return apply(OPS[op], *inputs, **attrs)


SIMPLIFIED = {
    "x * 1": (lambda x: x * 1.0, []),
    "1 * x": (lambda x: 1.0 * x, []),
    "x + 0": (lambda x: 0 + x, []),
    "x - 0": (lambda x: x - 0, []),
    "x / 1": (lambda x: x / 1, []),
    "--x": (lambda x: nd.negative(nd.negative(x)), []),
    "x + -x": (lambda x: x + (-(x * 2)), ["multiply", "subtract"]),
    "x.T.T": (lambda x: x.T.T, []),
    "transpose composed": (lambda x: p("transpose", p("transpose", x.reshape((1, 2, 3)), axes=(1, 2, 0)), axes=(1, 2, 0)),
                           ["reshape", "transpose"]),
    "reshape of reshape": (lambda x: x.reshape((6,)).reshape((3, 2)), ["reshape"]),
    "reshape back": (lambda x: x.reshape((6,)).reshape((2, 3)), []),
    "reshape to itself": (lambda x: p("reshape", x, shape=(2, 3)), []),
    "cast to itself": (lambda x: p("cast", x, dtype=F64), []),
    "cast there and back": (lambda x: p("cast", p("cast", p("cast", x, dtype=F32), dtype=F64), dtype=F32), ["cast"]),
    "lossy cast is kept": (lambda x: p("cast", p("cast", x, dtype=F32), dtype=F64), ["cast", "cast"]),
    "flip twice": (lambda x: x[::-1][::-1], []),
    "whole slice": (lambda x: p("slice", x, start=(0, 0), stop=(2, 3), step=(1, 1)), []),
    "relu twice": (lambda x: nd.relu(nd.relu(x)), ["relu"]),
    "copy": (lambda x: x.copy(), []),
    "scalar broadcast feeds an elementwise op": (
        lambda x: x + nd.full((2, 3), 2.5, dtype=F64), ["add"]),
    "times a matrix of ones": (lambda x: x * nd.ones((2, 3), dtype=F64), []),
    "x + 0.5 stays": (lambda x: x + 0.5, ["add"]),
    "row times 1 that broadcasts": (lambda x: nd.ones((4, 2, 3), dtype=F64) * x, ["broadcast_to", "multiply"]),
}


@pytest.mark.parametrize("name", SIMPLIFIED)
def test_simplify(name):
    function, expected = SIMPLIFIED[name]
    before = traced(function, (2, 3))
    after = verify(dce(verify(simplify(before))))
    assert ops(after) == expected, f"{render(before)}\n{render(after)}"
    same(before, after)
    verify(optimize(before))


ONE_COLUMN = [((5, 3), (3, 1)), ((2, 5, 3), (2, 3, 1)), ((4, 5, 3), (3, 1)), ((symbol("n", 5), 3), (3, 1))]


@pytest.mark.parametrize(("x", "y"), ONE_COLUMN)
def test_a_product_by_one_column_is_one_by_a_vector(x, y):
    before = traced(nd.matmul, x, y)
    after = simplify(before)
    product = next(eq for eq in after.equations if eq.op.name == "dot_general")
    assert len(product.inputs[1].shape) == len(y) - 1
    same(before, after)


def test_one_number_by_one_number_stays():
    assert "reshape" not in ops(simplify(traced(nd.matmul, (1, 3), (3, 1))))


def test_scalar_broadcast_is_gone_after_dce():
    after = dce(simplify(traced(lambda x: x + nd.full((2, 3), 2.5, dtype=F64), (2, 3))))
    assert ops(after) == ["add"]
    assert Literal(2.5, F64) in after.equations[0].inputs


def test_rules_hold_for_symbolic_sizes():
    n = symbol("n", 4)
    before = traced(lambda x: (x.reshape((-1,)).reshape((x.shape[0], 3)) * 1 + 0).T.T, (n, 3))
    after = optimize(before)
    assert ops(after) == []
    same(before, after)


def test_a_written_copy_of_the_input_is_no_state():
    b = Builder()
    x = b.input(ArrayType((2,), F32), "x")
    assert simplify(b.build([x], {0: x})).state == {}


def test_fold_literals_only():
    b = Builder()
    x = b.input(ArrayType((2,), F32), "x")
    (six,) = b.emit("multiply", Literal(2.0, F32), Literal(3.0, F32))
    (y,) = b.emit("add", x, six)
    after = dce(fold(b.build([y])))
    assert ops(after) == ["add"]
    assert after.equations[0].inputs[1] == Literal(6.0, F32)


def test_fold_keeps_quiet_about_infinities():
    b = Builder()
    (inf,) = b.emit("divide", Literal(1.0, F32), Literal(0.0, F32))
    assert fold(b.build([inf])).outputs == (Literal(float("inf"), F32),)


def test_cse_merges_equal_equations_but_not_signs_of_zero():
    before = traced(lambda x: nd.exp(x) + nd.exp(x), (2,))
    assert ops(cse(before)) == ["exp", "add"]
    b = Builder()
    x = b.input(ArrayType((2,), F32), "x")
    (y,) = b.emit("divide", x, Literal(0.0, F32))
    (z,) = b.emit("divide", x, Literal(-0.0, F32))
    assert ops(cse(b.build([y, z]))) == ["divide", "divide"]


def test_two_draws_of_random_bits_stay_two():
    state = nd.random.state()

    def draws(x):
        return [x + nd.random.uniform(shape=(2,), dtype=F64), x + nd.random.uniform(shape=(2,), dtype=F64)]

    graph = traced(draws, (2,))
    assert ops(optimize(graph)).count("random_bits") == 2
    assert [graph.inputs[i].dtype for i in graph.state] == [state.dtype]


def test_dce_keeps_what_state_needs():
    b = Builder()
    x, w = (b.input(ArrayType((2,), F32), n) for n in "xw")
    (new,) = b.emit("add", w, x)
    b.emit("exp", x)
    after = dce(b.build([x], {1: new}))
    assert ops(after) == ["add"]


def test_passes_can_be_left_out():
    graph = traced(lambda x: x * 1 + x * 1, (2,))
    with skip_passes("simplify"):
        assert "multiply" in ops(optimize(graph))
    with skip_passes(*(name for name, _ in PIPELINE)):
        assert optimize(graph) is graph
    with pytest.raises(ValueError, match="simplify"), skip_passes("nonsense"):
        pass


def test_debug_verifies_and_prints(capsys):
    with nd.settings(HYBRID_DEBUG=2):
        optimize(traced(lambda x: x * 1, (2,)))
    assert "after simplify" in capsys.readouterr().err


def test_inline_renames_symbols():
    n, m = symbol("n", 4), symbol("m", 6)
    inner = traced(lambda x: [x.reshape((-1,)) * 2, x.sum()], (n, 3))
    b = Builder()
    y = b.input(ArrayType((m * 2, 3), F64), "y")
    b.input(ArrayType((m,), F64), "z")
    flat, total = b.emit("graph_call", y, graph=inner)
    graph = b.build([flat, total])
    after = verify(inline(verify(graph)))
    assert "graph_call" not in ops(after)
    assert str(after.outputs[0].shape[0]) == "6*m"


# -- gradients

def mlp(x, w, b):
    h = nd.tanh(nd.dot(x, w) + b)
    return nd.relu(h) * 2 + h.sum(axis=0)


def branches(x, w, b):
    y = nd.where(x > 0, nd.exp(x), x * 3)[:, :2]
    return [y.sum(), (nd.dot(x, w) / (1 + b * b)).max(axis=1)]


def dead(x, w, b):
    return nd.dot(x, w) * 0 + 1


@pytest.mark.parametrize("function", [mlp, branches, dead])
@pytest.mark.parametrize("rows", [4, symbol("n", 4)])
def test_gradient_and_split_agree_with_the_tape(function, rows):
    graph = traced(function, (rows, 3), (3, 2), (2,))
    r = np.random.default_rng(1)
    arrays = [r.standard_normal((4 if isinstance(rows, int) else 5, 3)), r.standard_normal((3, 2)), r.standard_normal(2)]
    leaves = [nd.array(a) for a in arrays]
    for leaf in leaves:
        leaf.attach_grad()
    with nd.autograd.record():
        out = function(*leaves)
    outs = list(out) if isinstance(out, (list, tuple)) else [out]
    weights = [r.standard_normal(o.shape) for o in outs]
    expected = nd.autograd.grad(outs, leaves, [nd.array(g) for g in weights])
    with always_verify():
        whole = joint(graph, (True, True, True))
        verify(optimize(whole.graph))
        parts = split(whole)
        verify(optimize(parts.forward))
        verify(optimize(parts.backward))
    results = evaluate_graph(whole.graph, [*arrays, *weights])
    found = dict(zip(whole.gradients, results[len(outs):]))
    forward = evaluate_graph(parts.forward, list(arrays))
    residuals = [arrays[i] if kind == "input" else forward[i] for kind, i in parts.residuals]
    again = dict(zip(parts.gradients, evaluate_graph(parts.backward, [*residuals, *weights])))
    for i, e in enumerate(expected):
        for g in (found, again):
            np.testing.assert_allclose(g.get(i, np.zeros(e.shape)), e.asnumpy(), rtol=1e-10, atol=1e-12)
    for o, f in zip(outs, forward):
        np.testing.assert_allclose(f, o.asnumpy(), rtol=1e-12)


def test_gradient_only_where_wanted():
    whole = joint(traced(mlp, (4, 3), (3, 2), (2,)), (False, True, False))
    assert whole.gradients == (1,)
    assert ops(whole.graph).count("dot_general") == 2  # none for x


def test_gradient_equations_carry_the_users_line():
    whole = joint(traced(mlp, (4, 3), (3, 2), (2,)), (True, True, True))
    assert {eq.source.file for eq in whole.graph.equations} == {__file__}
    assert {eq.source.function for eq in whole.graph.equations} == {"mlp"}


def test_cheap_elementwise_results_are_computed_again():
    parts = split(joint(traced(lambda x, w: nd.relu(nd.dot(x, w) + 1.0) * 2, (4, 3), (3, 2)), (True, True)))
    kept = [i for kind, i in parts.residuals if kind == "output" and i >= 1]
    assert len(kept) <= 1  # one array stands for the sum, the mask and the rectified values


def test_of_a_dropout_only_a_mask_is_kept():
    nd.random.seed(0)

    def drop(x):
        with nd.autograd.train_mode():
            keep = nd.random.uniform(shape=x.shape, dtype=F32) < 0.5
        return nd.where(keep, x, nd.zeros(x.shape, dtype=x.dtype)) * 2

    parts = split(joint(traced(drop, (64, 64)), (True, False)))
    kept = [parts.forward.outputs[i] for kind, i in parts.residuals if kind == "output"]
    assert [v.dtype for v in kept] == [np.bool_]


def test_a_loss_that_keeps_nothing_still_knows_its_size():
    n = symbol("n", 4)
    parts = split(joint(traced(lambda x: (x * 3).sum(), (n, 2)), (True,)))
    verify(parts.backward)
    (g,) = evaluate_graph(parts.backward, [np.zeros((6, 2))] * len(parts.residuals) + [np.array(2.0)])
    np.testing.assert_array_equal(g, np.full((6, 2), 6.0))


def test_sums_of_paddings_are_stored_as_they_are_read():
    """The gradient of ``q, k, v = transpose(x)`` is padded in x's order of axes; other readers keep the sum as it is."""

    def parts(q, k, v):
        def spread(x, at):
            row = p("reshape", x, shape=(1, *x.shape))
            return p("pad", row, low=(at, 0, 0), high=(2 - at, 0, 0), interior=(0,) * 3, value=0.0)

        return spread(q, 0) + spread(k, 1) * 2 + spread(v, 2)

    def alone(q, k, v):
        return p("transpose", parts(q, k, v), axes=(1, 0, 2))

    def twice(q, k, v):
        whole = parts(q, k, v)
        return p("transpose", whole, axes=(1, 0, 2)), whole

    before = traced(alone, (4, 5), (4, 5), (4, 5))
    after = verify(turn(before))
    same(before, after)
    assert ops(after)[-1] == "add" and ops(after).count("transpose") == 3
    kept = traced(twice, (4, 5), (4, 5), (4, 5))
    assert turn(kept) is kept
    products = traced(lambda a, b: p("transpose", nd.matmul(a, b) + 1.0, axes=(1, 0)), (3, 4), (4, 5))
    assert turn(products) is products


CHAINS = {  # what stands behind a convolution, and how much of it stays there
    "normalization": (lambda y, m, s, b: (y - m) * s + b, 1),
    "bias": (lambda y, m, s, b: m + y, 1),
    "two shifts": (lambda y, m, s, b: (y + m) - b, 1),
    "factor alone": (lambda y, m, s, b: s * y * 2.0, 0),
    "negative shifts": (lambda y, m, s, b: ((y - m) - b) * s - b, 1),
    "negative, then more": (lambda y, m, s, b: (y - m) * s * b + m, 1),
    "negative at the end": (lambda y, m, s, b: (y - m) * s, 1),
    "the other way round": (lambda y, m, s, b: (m - y) * s, 2),
    "read twice": (lambda y, m, s, b: (y * s) + y, 2),
    "not per channel": (lambda y, m, s, b: y * nd.transpose(y, (0, 1, 3, 2)), 1),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("groups", [1, 3])
def test_absorb(name, groups):
    function, left = CHAINS[name]

    def net(x, w, *v):
        return function(nd.convolution(x, w, padding=1, groups=groups), *[nd.reshape(a, (1, 6, 1, 1)) for a in v])

    graph = layout(traced(net, (2, 3, 5, 5), (6, 3 // groups, 3, 3), (6,), (6,), (6,)))
    new = verify(absorb(graph, range(1, 5)))
    same(graph, new)
    arithmetic = [eq for eq in new.equations if eq.op.name in ("add", "subtract", "multiply") and eq.output.shape[1] == 5]
    assert len(arithmetic) == left
    assert absorb(graph, ()) is graph
    assert len(absorb(graph, [1]).equations) <= len(graph.equations)  # what changes from call to call isn't moved


def test_absorb_leaves_what_inputs_scale():
    """A factor that comes from the input would mean new weights at each call."""
    graph = layout(traced(lambda x, w, s: nd.convolution(x, w) * nd.reshape(s, (1, 6, 1, 1)), (1, 3, 4, 4), (6, 3, 1, 1), (6,)))
    assert absorb(graph, [1]) is graph
    assert absorb(graph, [2]) is graph
    assert "multiply" in ops(absorb(graph, [1, 2]))


@pytest.mark.parametrize("activation", [nd.gelu, lambda x: nd.gelu(x, "tanh"), nd.silu, nd.mish])
def test_an_activations_derivative_is_one_kept_array(activation):
    """Not the several of which it is made: the forward part makes the factor by which the cotangent is multiplied."""
    parts = split(joint(traced(lambda x: activation(nd.exp(x)), (5, 7)), [True]))
    kept = [v for v in parts.backward.inputs if v.shape == (5, 7)]
    assert len(kept) == 3 and ops(parts.backward) == ["multiply", "multiply"]  # exp, the factor and the cotangent


@pytest.mark.parametrize(("shape", "rows"), [
    ((64, 6, 6, 6), (288, 48)), ((64, 9, 9, 3), (324, 48)), ((63, 9, 9, 3), None), ((2048, 10), (256, 80)), ((2048, 16), None),
    ((40, 5), None), (("n", 16, 16, 7), ("n", 16, 112)), (("n", 12), None),
])
def test_sums_over_many_short_rows_have_several_side_by_side(shape, rows):
    shape = tuple(symbol(n, 64) if isinstance(n, str) else n for n in shape)
    graph = traced(lambda x: nd.sum(x * x, tuple(range(len(shape) - 1)), keepdims=True), shape)
    found = abreast(graph)
    if rows is None:
        assert found is graph
    else:
        longer = next(eq.inputs[0].shape for eq in found.equations if eq.op.name == "sum")
        assert str(longer) == str(rows).replace("'", "")
        same(graph, verify(found))


def test_sums_of_what_is_turned_or_broadcast_stay():
    for function in (lambda x: nd.sum(nd.transpose(x), 0), lambda x: nd.sum(nd.transpose(x) * nd.mean(x, 1), 0)):
        graph = traced(function, (6, 4096))
        assert abreast(graph) is graph
