"""Index algebra, and what is fused with what."""

import time

import numpy as np
import pytest

import ndarray as nd
from hybrid.graph import Builder, Literal, Value
from hybrid.passes import optimize
from hybrid.passes.gradient import joint
from hybrid.trace import Tracer
from jit.fuse import fuse
from jit.nodes import Arena, hint, nonnegative, same, volume
from ndarray.dims import symbol
from ndarray.op import OPS, ArrayType

F32 = np.dtype(np.float32)


class Maker(Builder):
    """``m.add(x, 2.0)`` emits an equation and returns its result; Python floats become literals."""

    def op(self, name, *inputs, **attrs):
        if name in ("sum", "max", "min", "argmax"):
            attrs.setdefault("keepdims", False)
        atoms = [Literal(a, F32) if isinstance(a, float) else a for a in inputs]
        outputs = self.emit(OPS[name], *atoms, **attrs)
        return outputs[0] if len(outputs) == 1 else outputs

    def __getattr__(self, name):
        if name not in OPS:
            raise AttributeError(name)
        return lambda *inputs, **attrs: self.op(name, *inputs, **attrs)

    def array(self, *shape, dtype=F32) -> Value:
        return self.input(ArrayType(shape, np.dtype(dtype)))


def kinds(graph):
    return [g.kind for g in fuse(graph).groups]


# -- the algebra of indices

def test_reshape_of_reshape_is_the_identity():
    arena, n, m = Arena(), symbol("n", 6), symbol("m", 5)
    i, j = arena.var("i", n), arena.var("j", m)
    assert arena.unflatten(arena.flatten((i, j), (n, m)), (n, m)) == (i, j)


@pytest.mark.parametrize("shape", [(4, 6, 5), (4, 30), (24, 5), (2, 2, 6, 5), (120,)])
def test_static_reshapes_have_no_divisions(shape):
    arena = Arena()
    index = tuple(arena.var(f"i{k}", n) for k, n in enumerate((2, 2, 2, 3, 5)))
    flat = arena.flatten(index, (2, 2, 2, 3, 5))
    for i in arena.unflatten(flat, shape):
        assert i.op in ("var", "affine")
        assert all(a.op == "var" for a in arena.parts(i)[0])


def test_range_proofs():
    arena, n = Arena(), symbol("n", 4)
    i = arena.var("i", n)
    assert arena.in_range(arena.add(i, arena.size(3)), n + 3)
    assert not arena.in_range(arena.add(i, arena.size(-1)), n)
    clipped = arena.operate("max", (arena.operate("min", (arena.load(Value(ArrayType((), np.dtype(np.int64))), ()),
                                                         arena.size(n - 1)), np.dtype(np.int64)), arena.size(0)),
                            np.dtype(np.int64))
    assert arena.in_range(clipped, n)


def test_proofs_about_sizes_never_use_hints():
    n, m = symbol("n", 4), symbol("m", 4)
    assert not same(n, m)
    assert not same(n, 4)
    assert nonnegative(n - 1)
    assert nonnegative(n * m - n)
    assert not nonnegative(n - m)


def test_philox_index_bits():
    arena = Arena()
    group, lane = arena.var("g", 100), arena.var("l", 16)
    i = arena.affine({group: 64, lane: 1}, 32)
    word = arena.operate("and", (arena.operate("shr", (i, arena.size(4)), i.dtype), arena.size(3)), i.dtype)
    assert arena.constant_of(word) == 2
    assert arena.floordiv(i, 64) is group


# -- fusion

def test_chain_is_one_group():
    m = Maker()
    x = m.array(37)
    y = m.tanh(m.add(m.multiply(x, 2.0), 1.0))
    assert kinds(m.build([m.multiply(y, y)])) == ["map"]


def test_softmax_is_one_group():
    m = Maker()
    x = m.array(8, 37)
    e = m.exp(m.subtract(x, m.max(x, axes=(1,), keepdims=True)))
    assert kinds(m.build([m.divide(e, m.sum(e, axes=(1,), keepdims=True))])) == ["rows"]


def test_variance_is_one_group():
    m = Maker()
    x = m.array(8, 37)
    d = m.subtract(x, m.divide(m.sum(x, axes=(1,), keepdims=True), 37.0))
    assert kinds(m.build([m.divide(m.sum(m.multiply(d, d), axes=(1,)), 37.0)])) == ["rows"]


def test_reductions_over_different_axes_stay_apart():
    m = Maker()
    x = m.array(16, 37)
    fusion = fuse(m.build([m.sum(x, axes=(0,)), m.sum(x, axes=(1,))]))
    assert [g.kind for g in fusion.groups] == ["rows", "rows"]


def test_epilogue_joins_the_product():
    m = Maker()
    x, w, b = m.array(8, 16), m.array(4, 16), m.array(4)
    y = m.relu(m.add(m.dot_general(x, w, contract=((1,), (1,)), batch=((), ())), b))
    fusion = fuse(m.build([y]))
    assert [g.kind for g in fusion.groups] == ["template"]
    assert len(fusion.groups[0].equations) == 3


def test_reason_is_given():
    m = Maker()
    x, w = m.array(8, 16), m.array(4, 16)
    y = m.dot_general(x, w, contract=((1,), (1,)), batch=((), ()))
    fusion = fuse(m.build([m.sum(y, axes=(1,))]))
    assert [g.kind for g in fusion.groups] == ["template", "rows"]
    assert fusion.reasons == [(0, 1, "a reduction is not fused into a contraction")]


def test_groups_are_convex():
    """x -> exp -> product -> add, and exp -> add: the product has to run between the two maps."""
    m = Maker()
    x, w = m.array(16, 16), m.array(16, 16)
    e = m.exp(x)
    y = m.add(m.dot_general(m.tanh(e), w, contract=((1,), (0,)), batch=((), ())), e)
    groups = fuse(m.build([m.multiply(y, e)])).groups
    made = set()
    for g in groups:
        inside = {v for eq in g.equations for v in eq.outputs}
        computed = {v for v in g.reads if any(v in eq.outputs for other in groups for eq in other.equations)}
        assert computed <= made | inside
        made |= inside


def test_expensive_small_values_are_stored_before_they_are_broadcast():
    m = Maker()
    x, b = m.array(64, 100), m.array(100)
    assert kinds(m.build([m.multiply(x, m.exp(m.tanh(b)))])) == ["map", "map"]


def test_number_of_buffers_is_bounded():
    m = Maker()
    total = m.array(100)
    for _ in range(100):
        total = m.add(total, m.array(100))
    fusion = fuse(m.build([total]))
    assert all(len(g.reads) + len(g.outputs) <= 40 for g in fusion.groups)
    assert len(fusion.groups) == 3


def test_time_grows_linearly():
    def seconds(n):
        m = Maker()
        x = m.array(32, 32)
        w = m.array(32, 32)
        for k in range(n):
            x = m.dot_general(x, w, contract=((1,), (0,)), batch=((), ())) if k % 9 == 8 else m.add(m.exp(x), x)
        graph, best = m.build([x]), float("inf")
        for _ in range(3):
            begin = time.thread_time()  # of this thread's processor, whatever else the machine does
            fuse(graph)
            best = min(best, time.thread_time() - begin)
        return best

    seconds(50)
    assert seconds(1600) < 12 * seconds(400)  # 4 if it is linear, 16 if quadratic


def test_positions_are_written_alike_whatever_came_first():
    from jit.nodes import Arena

    orders = []
    for names in (("i0", "i1", "i2"), ("i2", "i1", "i0")):
        arena = Arena()
        variables = {n: arena.var(n, 10) for n in names}
        flat = arena.flatten(tuple(variables[f"i{k}"] for k in range(3)), (10, 10, 10))
        orders.append([(atom.args[0], factor) for atom, factor in flat.args[0]])
    assert orders[0] == orders[1]


def test_kernels_are_the_same_for_all_sizes_of_scratch_memory():
    from jit.launch import KernelBuilder

    launches = []
    for size in (64, 1000):
        builder = KernelBuilder()
        builder.scratch("float32", size)
        launches.append(builder.launch("k", [], "task", 1, 1))
    assert launches[0].kernel == launches[1].kernel
    assert [x.scratch for x in launches] == [256, 4032]


def test_batch_norm_between_convolutions_stores_no_more_than_its_result_and_gradients():
    """Forward: mean, variance, result. Backward: both sums over the gradient in one pass, then the gradient for x. Neither
    ``x - mean`` is stored nor a product of the gradient, which the passes over it make themselves."""
    tracer = Tracer("step")
    shapes = ((32, 16, 32, 32), (32, 16, 1, 1), (32,), (32,), (16, 32, 1, 1))
    args = [tracer.argument(ArrayType(s, F32), nd.cpu(), f"x{i}") for i, s in enumerate(shapes)]
    with tracer.under():
        x, v, gamma, beta, w = args
        out = nd.convolution(nd.relu(nd.batch_norm(nd.convolution(x, v), gamma, beta)[0]), w)
        graph = tracer.finish([nd.sum(out * out)]).graph
    groups = fuse(optimize(joint(graph, (False, True, True, True, True)).graph)).groups
    large = 32 * 32 * 32 * 32
    stored = [(g.kind, sum(hint(volume(v.shape)) == large for v in g.outputs)) for g in groups]
    assert [n for kind, n in stored if kind == "template" and n] == [1, 1]  # the convolution, a gradient for its result
    assert sum(n for kind, n in stored if kind == "map") == 3  # the result and its sign, the gradient for x
    sums = [g for g in groups if g.kind == "rows" and hint(volume(g.rows.domain)) == 32 * 32 * 32 and len(g.rows.positions) == 1]
    assert len([g for g in sums if g.rows.positions[0] == 32]) == 3


@pytest.mark.parametrize("behind", ["product", "rows", "map"])
def test_random_bits_are_made_in_order(behind):
    """Dropout's bits have a pass of their own unless all beside them is read in the same order; the product or the rows keep
    what else stands behind them."""
    m = Maker()
    x, state = m.array(8, 6), m.array(2, dtype=np.uint64)
    keep = m.greater_equal(m.random_bits(state, shape=(8, 6)), Literal(429496729, np.dtype(np.uint32)))
    if behind == "product":
        x = m.dot_general(x, m.array(6, 6), contract=((1,), (0,)), batch=((), ()))
    elif behind == "rows":
        x = m.exp(m.subtract(x, m.broadcast_to(m.max(x, axes=(1,), keepdims=True), shape=(8, 6))))
    y = m.where(keep, m.multiply(x, 1.25), 0.0)
    groups = [[eq.op.name for eq in g.equations] for g in fuse(m.build([y])).groups]
    bits = ["random_bits", "greater_equal"]
    if behind == "map":
        assert [sorted(g) for g in groups] == [sorted([*bits, "multiply", "where"])]
    else:
        assert sorted(groups[0 if groups[0] == bits else 1]) == sorted(bits) and len(groups) == 2
