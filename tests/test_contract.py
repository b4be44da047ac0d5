"""Contractions against NumPy in float64: random shapes, strides, paddings and groups, interpreted."""

from dataclasses import replace
from itertools import product as cartesian

import numpy as np
import pytest

from jit.contract import lower_contraction, plain_sink, plain_source
from jit.interpret import run_launches
from jit.launch import Position, Sink, Source, Storage
from jit.loopir import Let, Prefetch, Store, Var, apply, walk_statements
from jit.target import Target
from jit.verify import verify
from ndarray.dims import product, symbol

SMALL = Target("", "", "", 16, 16)  # 4 lanes of float32: interpreted quickly
TARGETS = {
    "sse": SMALL,
    "avx2": Target("", "", "", 32, 16),
    "avx512": Target("", "", "", 64, 32),
    "plain": Target("", "", "", 16, 16, fma=False, masked=False),
}


def values(rng, shape, dtype):
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(-9, 9, shape).astype(dtype)


def dot_reference(x, y, contract, batch):
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    xs, ys = [next(letters) for _ in x.shape], [next(letters) for _ in y.shape]
    for i, j in (*zip(*contract), *zip(*batch)):
        ys[j] = xs[i]
    both = [xs[i] for i in batch[0]]
    out = both + [a for i, a in enumerate(xs) if i not in (*contract[0], *batch[0])]
    out += [a for i, a in enumerate(ys) if i not in (*contract[1], *batch[1])]
    return np.einsum(f"{''.join(xs)},{''.join(ys)}->{''.join(out)}", wide(x), wide(y))


def wide(x):
    return x.astype(np.float64) if x.dtype.kind == "f" else x


def out_size(n, k, s, p, d):
    return (n + sum(p) - d * (k - 1) - 1) // s + 1


def taps(kernel, out, stride, dilation):
    """For each tap: its index and the slices of the padded input that it sees."""
    for tap in cartesian(*map(range, kernel)):
        yield (
            tap,
            tuple(
                slice(t * d, t * d + s * (o - 1) + 1 if o else 0, s) for t, d, s, o in zip(tap, dilation, stride, out)
            ),
        )


def convolution_reference(x, w, stride, padding, dilation, groups):
    x, w = wide(x), wide(w)
    out = tuple(out_size(*a) for a in zip(x.shape[2:], w.shape[2:], stride, padding, dilation))
    xp = np.pad(x, ((0, 0), (0, 0), *padding)).reshape(
        x.shape[0], groups, w.shape[1], *(n + sum(p) for n, p in zip(x.shape[2:], padding))
    )
    wg = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    y = np.zeros((x.shape[0], groups, w.shape[0] // groups, *out), x.dtype)
    for tap, where in taps(w.shape[2:], out, stride, dilation):
        y += np.einsum("ngc...,goc->ngo...", xp[(..., *where)], wg[(..., *tap)])
    return y.reshape(x.shape[0], w.shape[0], *out)


def data_gradient_reference(g, w, shape, stride, padding, dilation, groups):
    g, w = wide(g), wide(w)
    padded = tuple(n + sum(p) for n, p in zip(shape[2:], padding))
    dx = np.zeros((shape[0], groups, w.shape[1], *padded), g.dtype)
    wg = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    gg = g.reshape(g.shape[0], groups, g.shape[1] // groups, *g.shape[2:])
    for tap, where in taps(w.shape[2:], g.shape[2:], stride, dilation):
        dx[(..., *where)] += np.einsum("ngo...,goc->ngc...", gg, wg[(..., *tap)])
    return dx[(..., *(slice(p[0], p[0] + n) for p, n in zip(padding, shape[2:])))].reshape(shape)


def weight_gradient_reference(x, g, shape, stride, padding, dilation, groups):
    x, g = wide(x), wide(g)
    xp = np.pad(x, ((0, 0), (0, 0), *padding)).reshape(
        x.shape[0], groups, shape[1], *(n + sum(p) for n, p in zip(x.shape[2:], padding))
    )
    gg = g.reshape(g.shape[0], groups, g.shape[1] // groups, *g.shape[2:])
    dw = np.zeros((groups, shape[0] // groups, *shape[1:]), x.dtype)
    for tap, where in taps(shape[2:], g.shape[2:], stride, dilation):
        part = xp[(..., *where)]
        dw[(..., *tap)] = np.einsum(
            "ngcp,ngop->goc", *(a.reshape(*a.shape[:3], product(a.shape[3:])) for a in (part, gg))
        )
    return dw.reshape(shape)


def source_of(storage, shape, prologue):
    plain = plain_source(storage, shape)
    if not prologue:
        return plain
    return Source(plain.shape, plain.dtype, lambda b, at: _where(at, apply("mul", plain.load(b, at), 2) + 1), None)


def _where(at, value):
    """Masked-off lanes are 0 after a prologue as well."""
    return value if at.mask is None else apply("select", at.mask, value, 0)


def sink_of(storage, shape, epilogue, calls):
    plain = plain_sink(storage, shape)
    if not epilogue:
        return plain
    return Sink(plain.shape, plain.dtype, lambda b, at, v: plain.store(b, at, apply("max", v * 3 - 1, 0)), None)


def run(op, attrs, x, y, shape, target=SMALL, fused=False, symbolic=None, native=False, **schedule):
    """The result of the lowered op; `symbolic` replaces (operand, axis) pairs and result axes by dimensions."""
    sx, sy, so = (
        Storage(x.dtype.name, x.size, "x"),
        Storage(y.dtype.name, y.size, "y"),
        Storage(x.dtype.name, product(shape), "out"),
    )
    xs, ys, os, sizes = x.shape, y.shape, shape, {}
    if symbolic:
        xs, ys, os, attrs, sizes = symbolic
    launches = lower_contraction(
        op, attrs, [source_of(sx, xs, fused), source_of(sy, ys, fused)], sink_of(so, os, fused, []), target, **schedule
    )
    memory = {sx: x.reshape(-1).copy(), sy: y.reshape(-1).copy()}
    for launch in launches:
        verify(launch.kernel)
    if native:
        from benchmarks.launches import Launches, aligned

        for storage in memory:
            memory[storage], value = aligned(memory[storage].size, storage.dtype), memory[storage]
            memory[storage][:] = value
        program = Launches(launches, memory, sizes, target)
        program.run(2)
        memory = program.memory
    else:
        run_launches(launches, memory, sizes)
    return memory[so].reshape(shape) if so in memory else np.empty(shape, x.dtype)


def check(op, reference, attrs, x, y, fused=False, **options):
    px, py = (x * 2 + 1, y * 2 + 1) if fused else (x, y)
    want = reference(px, py, **attrs)
    if fused:
        want = np.maximum(want * 3 - 1, 0)
    got = run(op, attrs, x, y, want.shape, fused=fused, **options)
    assert got.shape == want.shape
    tolerance = {"f": 1e-5, "i": 0, "u": 0, "b": 0}[x.dtype.kind] * (1e-8 if x.dtype == np.float64 else 1)
    scale = max(1.0, float(np.abs(want).max(initial=0)))
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * scale, err_msg=f"{op} {attrs} {x.shape} {y.shape}")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("seed", range(10))
def test_dot_general(target, seed):
    rng = np.random.default_rng(seed)
    m, n, k = (int(rng.choice([0, 1, 2, 3, 5, 8, 13, 17, 31])) for _ in range(3))
    dtype = rng.choice(["float32", "float64", "int32", "int64"])
    lead = int(rng.choice([0, 0, 2, 3]))
    xs, ys = [m, k], [k, n]
    tx, ty = bool(rng.integers(2)), bool(rng.integers(2))
    xs, ys = xs[::-1] if tx else xs, ys[::-1] if ty else ys
    contract, batch = ((0 if tx else 1,), (1 if ty else 0,)), ((), ())
    if lead:
        xs, ys = [lead, *xs], [lead, *ys]
        contract, batch = ((contract[0][0] + 1,), (contract[1][0] + 1,)), ((0,), (0,))
    check(
        "dot_general",
        dot_reference,
        {"contract": contract, "batch": batch},
        values(rng, xs, dtype),
        values(rng, ys, dtype),
        fused=bool(rng.integers(2)),
        target=TARGETS[target],
    )


@pytest.mark.parametrize("pack_a", ["no", "global"])
@pytest.mark.parametrize("pack_b", ["no", "task", "global"])
@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("transposed", [0, 1, 2, 3])
def test_schedules(pack_a, pack_b, blocked, transposed):
    rng = np.random.default_rng(0)
    x, y = (
        values(rng, (11, 23) if transposed & 1 else (23, 11), "float32"),
        values(rng, (19, 11) if transposed & 2 else (11, 19), "float32"),
    )
    attrs = {"contract": ((0 if transposed & 1 else 1,), (1 if transposed & 2 else 0,)), "batch": ((), ())}
    kd = {"kd": 4, "kc": 4} if blocked else {}
    check(
        "dot_general",
        dot_reference,
        attrs,
        x,
        y,
        fused=True,
        pack_a=pack_a,
        pack_b=pack_b,
        blocked=blocked,
        mr=3,
        nv=2,
        mt=6,
        nt=8,
        **kd,
    )


@pytest.mark.parametrize(
    "case",
    [
        ((3, 4, 5), (5, 4, 6), ((1, 2), (1, 0)), ((), ())),
        ((2, 3, 4, 5), (2, 4, 7, 5), ((3,), (3,)), ((0, 2), (0, 1))),
        ((6, 5), (5,), ((1,), (0,)), ((), ())),
        ((5,), (5, 6), ((0,), (0,)), ((), ())),
        ((7,), (7,), ((0,), (0,)), ((), ())),
        ((3,), (4,), ((), ()), ((), ())),
        ((2, 3, 5), (5, 3, 4), ((2,), (0,)), ((), ())),
        ((4, 33), (4, 33), ((1,), (1,)), ((0,), (0,))),
        ((1, 70), (9, 70), ((1,), (1,)), ((), ())),
        ((3, 2, 40), (5, 40), ((2,), (1,)), ((), ())),
        ((), (3,), ((), ()), ((), ())),
        ((), (), ((), ()), ((), ())),
        ((2, 37, 3), (2, 37, 9), ((1,), (1,)), ((0,), (0,))),
        ((3, 2), (2, 1), ((1,), (0,)), ((), ())),
    ],
)
def test_dot_general_axes(case):
    xs, ys, contract, batch = case
    rng = np.random.default_rng(1)
    for fused in (False, True):
        check(
            "dot_general",
            dot_reference,
            {"contract": contract, "batch": batch},
            values(rng, xs, "float32"),
            values(rng, ys, "float32"),
            fused=fused,
        )


CONVOLUTIONS = {"convolution": 0, "convolution_data_gradient": 1, "convolution_weight_gradient": 2}


def convolution_case(rng, rank=None):
    rank = rank or int(rng.choice([1, 2, 2, 2, 3]))
    groups = int(rng.choice([1, 1, 2, 3]))
    pick = lambda *of: tuple(int(rng.choice(of)) for _ in range(rank))
    kernel, stride, dilation = pick(1, 2, 3), pick(1, 1, 2, 3), pick(1, 1, 2)
    padding = tuple((int(rng.integers(0, 3)), int(rng.integers(0, 3))) for _ in range(rank))
    spatial = tuple(
        max(d * (k - 1) + 1 - sum(p), int(rng.choice([1, 3, 4, 7]))) for d, k, p in zip(dilation, kernel, padding)
    )
    x = (int(rng.choice([1, 2, 3])), groups * int(rng.choice([1, 2, 3])), *spatial)
    w = (groups * int(rng.choice([1, 2, 5])), x[1] // groups, *kernel)
    out = tuple(out_size(*a) for a in zip(spatial, kernel, stride, padding, dilation))
    return x, w, (x[0], w[0], *out), {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


def check_convolution(op, x, w, g, attrs, rng, dtype="float32", **options):
    if op == "convolution":
        check(op, convolution_reference, attrs, values(rng, x, dtype), values(rng, w, dtype), **options)
    elif op == "convolution_data_gradient":
        check(
            op, data_gradient_reference, {"shape": x, **attrs}, values(rng, g, dtype), values(rng, w, dtype), **options
        )
    else:
        check(
            op,
            weight_gradient_reference,
            {"shape": w, **attrs},
            values(rng, x, dtype),
            values(rng, g, dtype),
            **options,
        )


@pytest.mark.parametrize("op", CONVOLUTIONS)
@pytest.mark.parametrize("seed", range(25))
def test_convolution(op, seed):
    rng = np.random.default_rng(seed)
    x, w, g, attrs = convolution_case(rng)
    dtype = rng.choice(["float32", "float32", "float64", "int32"])
    options = {}
    if seed % 3 == 0 and op == "convolution_weight_gradient":
        options = {"block": 3, "height": 2, "width": 3, "vectors": 2, "panels": 1, "blocks": 1}
    elif seed % 3 == 0:
        options = {"rows": 2, "columns": 3, "height": 4, "width": 6, "vectors": 2, "parts": 2, "together": 2}
    if seed % 5 == 0 and op == "convolution_weight_gradient" and x[0] > 1:
        options["parts"] = x[0]
    # a fused prologue has no zero for padding to hide behind: the padding must still be 0
    check_convolution(
        op, x, w, g, attrs, rng, dtype, fused=bool(seed % 2), target=list(TARGETS.values())[seed % 4], **options
    )


@pytest.mark.parametrize(
    ("x", "kernel", "padding", "dilation", "groups"),
    [
        ((2, 3, 14, 14), (5, 5), ((0, 0), (0, 0)), (1, 1), 1),
        ((1, 4, 9, 13), (5, 3), ((1, 0), (2, 1)), (1, 1), 2),
        ((2, 2, 11, 15), (3, 3), ((0, 1), (0, 0)), (2, 2), 1),
        ((1, 1, 12, 33), (7, 2), ((0, 0), (1, 1)), (1, 3), 1),
    ],
)
def test_data_gradient_of_wide_filters(x, kernel, padding, dilation, groups):
    """Most of the positions that an output's taps meet lie outside of what is read."""
    rng = np.random.default_rng(0)
    w = (4, x[1] // groups, *kernel)
    out = tuple(out_size(n, k, 1, p, d) for n, k, p, d in zip(x[2:], kernel, padding, dilation))
    attrs = {"stride": (1, 1), "padding": padding, "dilation": dilation, "groups": groups}
    for fused in (False, True):
        check_convolution("convolution_data_gradient", x, w, (x[0], 4, *out), attrs, rng, fused=fused)


def test_weight_gradient_with_few_outputs():
    """The form with vectors along the image: few outputs, wide images; also in parts."""
    rng = np.random.default_rng(3)
    attrs = {"stride": (1, 2), "padding": ((1, 1), (2, 0)), "dilation": (1, 1), "groups": 2}
    for parts in (1, 2):
        x, g, w = values(rng, (4, 4, 5, 21), "float32"), values(rng, (4, 4, 5, 11), "float32"), (4, 2, 3, 3)
        want = weight_gradient_reference(x, g, w, **attrs)
        got = run(
            "convolution_weight_gradient", {"shape": w, **attrs}, x, g, w, **({"parts": parts} if parts > 1 else {})
        )
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_weight_gradient_with_few_outputs_in_uneven_parts():
    """Images are cut into parts also where their number is odd, or known only when the program is called."""
    rng = np.random.default_rng(4)
    attrs = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    n, w, more = symbol("n", 64), (3, 1, 2, 3), {"target": TARGETS["avx512"]}
    for batch in (11, 0, 1, 3, 17):
        x, g = values(rng, (batch, 1, 13, 18), "float32"), values(rng, (batch, 3, 12, 16), "float32")
        want = weight_gradient_reference(x, g, w, **attrs)
        symbolic = ((n, 1, 13, 18), (n, 3, 12, 16), w, {"shape": w, **attrs}, {"n": batch})
        for options in ({}, {"symbolic": symbolic}) if batch else ({"symbolic": symbolic},):
            got = run("convolution_weight_gradient", {"shape": w, **attrs}, x, g, w, **more, **options)
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * max(1, np.abs(want).max()))


def test_symbolic_batch():
    """One lowering serves every batch size, 0 and 1 included."""
    rng = np.random.default_rng(0)
    n = symbol("n", 6)
    for batch in (0, 1, 2, 9):
        x, w = values(rng, (batch, 20), "float32"), values(rng, (7, 20), "float32")
        attrs = {"contract": ((1,), (1,)), "batch": ((), ())}
        got = run("dot_general", attrs, x, w, (batch, 7), symbolic=((n, 20), (7, 20), (n, 7), attrs, {"n": batch}))
        np.testing.assert_allclose(got, x @ w.T, rtol=0, atol=1e-5)
        g = values(rng, (batch, 7), "float32")  # the batch is summed over
        attrs = {"contract": ((0,), (0,)), "batch": ((), ())}
        got = run("dot_general", attrs, g, x, (7, 20), symbolic=((n, 7), (n, 20), (7, 20), attrs, {"n": batch}))
        np.testing.assert_allclose(got, g.T @ x, rtol=0, atol=1e-5)
        attrs = {"stride": (2, 1), "padding": ((1, 1), (1, 0)), "dilation": (1, 1), "groups": 1}
        x, w = values(rng, (batch, 3, 6, 5), "float32"), values(rng, (4, 3, 3, 2), "float32")
        want = convolution_reference(x, w, **attrs)
        out = (n, *want.shape[1:])
        got = run("convolution", attrs, x, w, want.shape, symbolic=((n, 3, 6, 5), w.shape, out, attrs, {"n": batch}))
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
        g = values(rng, want.shape, "float32")
        more = {"shape": (n, 3, 6, 5), **attrs}
        got = run(
            "convolution_data_gradient", more, g, w, x.shape, symbolic=(out, w.shape, (n, 3, 6, 5), more, {"n": batch})
        )
        np.testing.assert_allclose(got, data_gradient_reference(g, w, x.shape, **attrs), rtol=0, atol=1e-5)
        more = {"shape": w.shape, **attrs}
        got = run(
            "convolution_weight_gradient",
            more,
            x,
            g,
            w.shape,
            symbolic=((n, 3, 6, 5), out, w.shape, more, {"n": batch}),
        )
        np.testing.assert_allclose(got, weight_gradient_reference(x, g, w.shape, **attrs), rtol=0, atol=2e-5)


def test_equal_contractions_share_their_kernels():
    """Sizes are parameters: products of other sizes with the same tile are the same kernel."""

    def kernels(m, n, k):
        a, b, c = Storage("float32", m * k), Storage("float32", k * n), Storage("float32", m * n)
        attrs = {"contract": ((1,), (0,)), "batch": ((), ())}
        launches = lower_contraction(
            "dot_general",
            attrs,
            [plain_source(a, (m, k)), plain_source(b, (k, n))],
            plain_sink(c, (m, n)),
            SMALL,
            mr=2,
            nv=2,
            mt=8,
            nt=8,
            pack_a="no",
            pack_b="no",
            blocked=False,
        )
        return [launch.kernel for launch in launches]

    assert kernels(30, 40, 50) == kernels(64, 64, 64)


@pytest.mark.parametrize("blocked", [False, True])
def test_a_tile_asks_early_for_what_its_epilogue_touches(blocked):
    """The result and what is added to it are prefetched while the sums are made; a vector of the columns is not."""
    a, b, c, e, bias = (Storage("float32", n) for n in (30 * 50, 50 * 40, 30 * 40, 30 * 40, 40))
    out, other, row = plain_sink(c, (30, 40)), plain_source(e, (30, 40)), plain_source(bias, (40,))

    def store(builder, at, value):
        vector = Position(at.index[1:], 0 if at.lanes > 1 else None, at.lanes, at.mask)
        return out.store(builder, at, value + other.load(builder, at) + row.load(builder, vector))

    attrs = {"contract": ((1,), (0,)), "batch": ((), ())}
    sources = [plain_source(a, (30, 50)), plain_source(b, (50, 40))]
    (launch,) = lower_contraction("dot_general", attrs, sources, Sink((30, 40), "float32", store), SMALL, pack_a="no",
                                  pack_b="no", blocked=blocked, **({"kd": 16, "kc": 16} if blocked else {}))
    names = dict(zip((x.name for x in launch.kernel.buffers), launch.buffers))
    asked = {names[s.buffer] for s in walk_statements(launch.kernel.body) if isinstance(s, Prefetch)}
    assert {c, e} <= asked and bias not in asked


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("along_k", [False, True])
@pytest.mark.parametrize(("rows", "width"), [(1, 48), (7, 37)])
@pytest.mark.parametrize("parts", [2, 3, 4])
def test_columns_delivered_in_parts(parts, rows, width, along_k, native):
    """An epilogue that reads the same column of each of several equal parts, which fill vectors or do not."""
    from jit.machine import host

    target, rng = host() if native else SMALL, np.random.default_rng(parts)
    x, y = rng.standard_normal((rows, 37)).astype(np.float32), rng.standard_normal((37, parts * width)).astype(np.float32)
    stored = np.ascontiguousarray(y.T) if along_k else y
    a, b, out = Storage("float32", x.size), Storage("float32", y.size), Storage("float32", rows * width)
    plain = plain_sink(out, (rows, width))

    def matrix(builder, at, values):
        value = values[0]
        for more in values[1:]:
            value = value * 2 - more
        return plain.store(builder, at, value)

    attrs = {"contract": ((1,), (1 if along_k else 0,)), "batch": ((), ())}
    launches = lower_contraction("dot_general", attrs, [plain_source(a, x.shape), plain_source(b, stored.shape)],
                                 Sink((rows, parts * width), "float32", None, matrix=matrix, beside=parts), target)
    asked = [s for s in walk_statements(launches[-1].kernel.body) if isinstance(s, Prefetch)]
    assert rows == 1 or len(asked) == 2  # the lines that a vector of results lies in, where 37 columns make a row
    for launch in launches:
        verify(launch.kernel)
    memory = {a: x.reshape(-1), b: stored.reshape(-1)}
    if native:
        from benchmarks.launches import Launches
        from jit.guard import guarded

        memory[out] = np.zeros(out.size, np.float32)
        program = Launches(launches, {s: guarded(v) for s, v in memory.items()}, {}, target)
        program.run(2)
        memory = program.memory
    else:
        run_launches(launches, memory, {})
    split = (x.astype(np.float64) @ y).reshape(rows, parts, width)
    want = split[:, 0]
    for p in range(1, parts):
        want = want * 2 - split[:, p]
    np.testing.assert_allclose(memory[out].reshape(rows, width), want, rtol=1e-5, atol=1e-4)


def test_an_operand_that_is_read_often_is_packed():
    """The weights of a loop's steps, though they could be read where they lie."""
    attrs = {"contract": ((1,), (0,)), "batch": ((), ())}
    for uses, launches in ((1, 1), (64, 2)):
        b = plain_source(Storage("float32", 64 * 48), (64, 48))
        b.uses = uses
        found = lower_contraction("dot_general", attrs, [plain_source(Storage("float32", 32 * 64), (32, 64)), b],
                                  plain_sink(Storage("float32", 32 * 48), (32, 48)), SMALL)
        assert len(found) == launches


def test_unknown_contraction_is_an_error():
    with pytest.raises(ValueError, match="no contraction is called 'einsum'"):
        lower_contraction("einsum", {}, [], None, SMALL)


NATIVE = [
    ("dot_general", (70, 300), (300, 90), {"contract": ((1,), (0,)), "batch": ((), ())}),
    ("dot_general", (70, 300), (90, 300), {"contract": ((1,), (1,)), "batch": ((), ())}),
    ("dot_general", (300, 130), (300, 90), {"contract": ((0,), (0,)), "batch": ((), ())}),
    ("dot_general", (1, 513), (513, 300), {"contract": ((1,), (0,)), "batch": ((), ())}),
    ("dot_general", (1, 513), (301, 513), {"contract": ((1,), (1,)), "batch": ((), ())}),
    ("dot_general", (3, 4), (2, 4), {"contract": ((1,), (1,)), "batch": ((), ())}),
    ("dot_general", (200, 600), (300, 600), {"contract": ((1,), (1,)), "batch": ((), ())}),
    ("dot_general", (5, 37, 41), (5, 37, 43), {"contract": ((1,), (1,)), "batch": ((0,), (0,))}),
]


@pytest.mark.parametrize("level", ["host", "avx2", "sse"])
@pytest.mark.parametrize("fused", [False, True])
def test_native(level, fused):
    """Larger sizes in generated code, on this machine's vectors and on lesser ones."""
    machine = pytest.importorskip("jit.machine")
    target = machine.host() if level == "host" else machine.restricted(level)
    rng = np.random.default_rng(5)
    cases = [(op, xs, ys, attrs, dot_reference) for op, xs, ys, attrs in NATIVE]
    for _ in range(3):
        x, w, g, attrs = convolution_case(rng, 2)
        x = (x[0], x[1], *(n + 20 for n in x[2:]))
        g = (
            *g[:2],
            *(
                out_size(n, k, s, p, d)
                for n, k, s, p, d in zip(x[2:], w[2:], attrs["stride"], attrs["padding"], attrs["dilation"])
            ),
        )
        cases += [
            ("convolution", x, w, attrs, convolution_reference),
            ("convolution_data_gradient", g, w, {"shape": x, **attrs}, data_gradient_reference),
            ("convolution_weight_gradient", x, g, {"shape": w, **attrs}, weight_gradient_reference),
        ]
    for op, xs, ys, attrs, reference in cases:
        check(
            op,
            reference,
            attrs,
            values(rng, xs, "float32"),
            values(rng, ys, "float32"),
            fused=fused,
            target=target,
            native=True,
        )


@pytest.mark.parametrize(("target", "m", "n", "k"), [
    pytest.param(target, *size, id=f"{name}-{'-'.join(map(str, size))}",
                 marks=[pytest.mark.slow] if name == "plain" and size[0] == 64 else [])  # without vectors, nothing is turned
    for name, target in TARGETS.items() for size in ((9, 16, 16), (40, 37, 21), (33, 70, 5), (64, 131, 34))
])
def test_packing_turns_operands_in_registers(target, m, n, k):
    rng = np.random.default_rng(m)
    x, y = values(rng, (m, k), np.float32), values(rng, (n, k), np.float32)
    attrs = {"contract": ((1,), (1,)), "batch": ((), ())}
    check("dot_general", dot_reference, attrs, x, y, target=target, pack_b="global")
    check("dot_general", dot_reference, attrs, x, y, target=target, pack_b="task", kc=16)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(("m", "n", "k"), [(40, 150, 3), (13, 64, 1), (19, 33, 7)])
def test_results_of_short_sums_leave_from_registers(m, n, k, native, fused):
    """Whole tiles are stored as they are, what is left at the edges by way of private memory."""
    from jit.machine import host

    target, rng = host() if native else SMALL, np.random.default_rng(k)
    x, y = values(rng, (m, k), np.float32), values(rng, (k, n), np.float32)
    attrs = {"contract": ((1,), (0,)), "batch": ((), ())}
    check("dot_general", dot_reference, attrs, x, y, target=target, fused=fused, native=native)


def test_long_epilogues_are_written_once():
    """A tile's results are delivered one by one only where that is a short text."""

    def stores(terms, k):
        a, b, c = Storage("float32", 64 * k), Storage("float32", k * 64), Storage("float32", 64 * 64)
        out = plain_sink(c, (64, 64))

        def store(builder, at, value):
            body = []
            for _ in range(terms):
                body.append(Let(builder.fresh("e"), value * 2))
                value = Var(body[-1].name, value.type)
            return [*body, *out.store(builder, at, value)]

        attrs = {"contract": ((1,), (0,)), "batch": ((), ())}
        (launch,) = lower_contraction("dot_general", attrs, [plain_source(a, (64, k)), plain_source(b, (k, 64))],
                                      Sink((64, 64), "float32", store), SMALL, pack_a="no", pack_b="no")
        name = next(x.name for x, s in zip(launch.kernel.buffers, launch.buffers) if s is c)
        return sum(isinstance(s, Store) and s.buffer == name for s in walk_statements(launch.kernel.body))

    assert stores(1, 8) > stores(1, 400) == stores(9, 400) == stores(9, 8)


def test_short_sums_read_few_vectors_of_b_for_each_row():
    """784 columns are 7 panels of 7 vectors; a tile of 3 rows, though, would wait for those in the second-level cache."""
    attrs, tiles = {"contract": ((1,), (0,)), "batch": ((), ())}, []
    for depth in (64, 400):
        a, b = (plain_source(Storage("float32", s[0] * s[1]), s) for s in ((512, depth), (depth, 784)))
        out = plain_sink(Storage("float32", 512 * 784), (512, 784))
        launch = lower_contraction("dot_general", attrs, [a, b], out, TARGETS["avx512"])[-1]
        tiles.append(launch.kernel.name)
    assert tiles == ["dot_5x80", "dot_3x112"]


def vectors_stored(launch):
    """Whether a kernel delivers vectors to what it writes."""
    names = {b.name for b in launch.kernel.buffers if b.access == "write"}
    return any(s.value.type.lanes > 1 for s in walk_statements(launch.kernel.body) if isinstance(s, Store) and s.buffer in names)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("lead", [0, 3])
@pytest.mark.parametrize(("m", "n", "k"), [(21, 3, 31), (34, 1, 12), (19, 2, 20)])
def test_few_columns_have_vectors_along_the_rows(m, n, k, lead, native):
    """x^T y of few columns: the lanes hold rows; the numbers are those of vectors along the columns, bit for bit."""
    from jit.machine import host

    target, rng = host() if native else SMALL, np.random.default_rng(m)
    x, y = (values(rng, ((lead,) if lead else ()) + s, np.float32) for s in ((k, m), (k, n)))
    attrs = {"contract": ((1,), (1,)), "batch": ((0,), (0,))} if lead else {"contract": ((0,), (0,)), "batch": ((), ())}
    for fused in (False, True):
        check("dot_general", dot_reference, attrs, x, y, target=target, native=native, fused=fused)
    size = symbol("n", 40)  # of the rows
    xs, ys, os = (k, size), (k, n), (size, n)
    if not lead:
        got = run("dot_general", attrs, x, y, (m, n), symbolic=(xs, ys, os, attrs, {"n": m}), target=target, native=native)
        np.testing.assert_allclose(got, x.T @ y, rtol=0, atol=1e-4)


def test_which_products_have_vectors_along_the_rows():
    def lowered(m, n, k, transposed=True, fused=False):
        shapes = ((k, m) if transposed else (m, k)), (k, n)
        a, b = (plain_source(Storage("float32", s[0] * s[1]), s) for s in shapes)
        attrs = {"contract": ((0 if transposed else 1,), (0,)), "batch": ((), ())}
        sink = sink_of(Storage("float32", m * n), (m, n), fused, [])
        return lower_contraction("dot_general", attrs, [a, b], sink, TARGETS["avx512"])[-1]

    assert not vectors_stored(lowered(512, 7, 1024)) and not vectors_stored(lowered(512, 3, 32))
    for other in (lowered(512, 64, 1024), lowered(512, 10, 32), lowered(20, 7, 1024), lowered(512, 7, 1024, False),
                  lowered(512, 7, 1024, fused=True)):
        assert vectors_stored(other)


def test_each_task_turns_b_for_its_own_rows_unless_they_are_few():
    def notes(m, n, k, **changes):
        a, b = (plain_source(Storage("float32", s[0] * s[1]), s) for s in ((m, k), (n, k)))
        attrs = {"contract": ((1,), (1,)), "batch": ((), ())}
        out = plain_sink(Storage("float32", m * n), (m, n))
        launches = lower_contraction("dot_general", attrs, [a, replace(b, **changes)], out, TARGETS["avx512"])
        return [x.note.split()[0] for x in launches]

    assert notes(1000, 192, 48) == ["product"]  # blocks of 192 rows or more
    assert notes(1024, 1024, 1024) == ["pack", "product"]  # 32 blocks would each turn all of B
    assert notes(1000, 192, 48, constant=True) == notes(1000, 192, 48, uses=4) == ["pack", "product"]


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(("rows", "shares"), [(40, 2), (40, 4), (17, 4), (5, 4), (0, 2)])
@pytest.mark.parametrize("fused", [False, True])
def test_rows_in_shares(rows, shares, fused, native):
    """Also where a share has fewer blocks of rows than the others, or none; one lowering for several numbers of rows."""
    from jit.machine import host

    target, rng = host() if native else SMALL, np.random.default_rng(rows)
    x, y = values(rng, (rows, 6), "float32"), values(rng, (6, 50), "float32")
    attrs = {"contract": ((1,), (0,)), "batch": ((), ())}
    blocks = {"mr": 4, "nv": 1, "mt": 8, "nt": target.lanes("float32"), "shares": shares}
    check("dot_general", dot_reference, attrs, x, y, target=target, native=native, fused=fused, **blocks)
    n = symbol("n", 30)
    symbolic = ((n, 6), (6, 50), (n, 50), attrs, {"n": rows})
    check("dot_general", dot_reference, attrs, x, y, target=target, native=native, fused=fused, symbolic=symbolic, **blocks)


def test_shares_are_equal():
    from jit.contraction import _shares

    assert _shares(114, 4, True, 4) == (4, 4) and _shares(10, 1, True, 4) == (2, 2)
    assert _shares(9, 2, True, 4) == (2, 2) and _shares(3, 1, True, 4) == (1, 1) and _shares(171, 6, True, 2) == (2, 6)
    assert _shares(16, 1, False, 4) == (1, 1) and _shares(16, 8, False, 4) == (4, 8)
