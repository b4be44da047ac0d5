"""Contractions against NumPy in float64: random shapes, strides, paddings and groups, interpreted."""

from itertools import product as cartesian

import numpy as np
import pytest

from jit.contract import lower_contraction, plain_sink, plain_source
from jit.interpret import run_launches
from jit.launch import Sink, Source, Storage
from jit.loopir import apply
from jit.target import Target
from jit.verify import verify
from ndarray.dims import product, symbol

SMALL = Target("", "", "", 16, 16)  # 4 lanes of float32: interpreted quickly
TARGETS = {"sse": SMALL, "avx2": Target("", "", "", 32, 16), "avx512": Target("", "", "", 64, 32), "plain": Target("", "", "", 16, 16, fma=False, masked=False)}


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
        yield tap, tuple(slice(t * d, t * d + s * (o - 1) + 1 if o else 0, s) for t, d, s, o in zip(tap, dilation, stride, out))


def convolution_reference(x, w, stride, padding, dilation, groups):
    x, w = wide(x), wide(w)
    out = tuple(out_size(*a) for a in zip(x.shape[2:], w.shape[2:], stride, padding, dilation))
    xp = np.pad(x, ((0, 0), (0, 0), *padding)).reshape(x.shape[0], groups, w.shape[1], *(n + sum(p) for n, p in zip(x.shape[2:], padding)))
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
    gg = g.reshape(g.shape[0], groups, -1, *g.shape[2:])
    for tap, where in taps(w.shape[2:], g.shape[2:], stride, dilation):
        dx[(..., *where)] += np.einsum("ngo...,goc->ngc...", gg, wg[(..., *tap)])
    return dx[(..., *(slice(p[0], p[0] + n) for p, n in zip(padding, shape[2:])))].reshape(shape)


def weight_gradient_reference(x, g, shape, stride, padding, dilation, groups):
    x, g = wide(x), wide(g)
    xp = np.pad(x, ((0, 0), (0, 0), *padding)).reshape(x.shape[0], groups, shape[1], *(n + sum(p) for n, p in zip(x.shape[2:], padding)))
    gg = g.reshape(g.shape[0], groups, -1, *g.shape[2:])
    dw = np.zeros((groups, shape[0] // groups, *shape[1:]), x.dtype)
    for tap, where in taps(shape[2:], g.shape[2:], stride, dilation):
        part = xp[(..., *where)]
        dw[(..., *tap)] = np.einsum("ngcp,ngop->goc", part.reshape(*part.shape[:3], -1), gg.reshape(*gg.shape[:3], -1))
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


def run(op, attrs, x, y, shape, target=SMALL, fused=False, symbolic=None, **schedule):
    """The result of the lowered op; `symbolic` replaces (operand, axis) pairs and result axes by dimensions."""
    sx, sy, so = Storage(x.dtype.name, x.size, "x"), Storage(y.dtype.name, y.size, "y"), Storage(x.dtype.name, product(shape), "out")
    xs, ys, os, sizes = x.shape, y.shape, shape, {}
    if symbolic:
        xs, ys, os, attrs, sizes = symbolic
    launches = lower_contraction(op, attrs, [source_of(sx, xs, fused), source_of(sy, ys, fused)], sink_of(so, os, fused, []), target, **schedule)
    memory = {sx: x.reshape(-1).copy(), sy: y.reshape(-1).copy()}
    for launch in launches:
        verify(launch.kernel)
    run_launches(launches, memory, sizes)
    return memory[so].reshape(shape) if so in memory else np.empty(shape, x.dtype)


def check(op, reference, attrs, x, y, fused=False, **options):
    names = {"convolution": ("stride", "padding", "dilation", "groups")}
    px, py = (x * 2 + 1, y * 2 + 1) if fused else (x, y)
    want = reference(px, py, **attrs)
    if fused:
        want = np.maximum(want * 3 - 1, 0)
    got = run(op, attrs, x, y, want.shape, fused=fused, **options)
    assert got.shape == want.shape
    k = max(1, x.size)
    tolerance = {"f": 1e-5, "i": 0, "u": 0, "b": 0}[x.dtype.kind] * (1e-8 if x.dtype == np.float64 else 1)
    scale = max(1.0, float(np.abs(want).max(initial=0)))
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * scale, err_msg=f"{op} {attrs} {x.shape} {y.shape} {k} {names}")


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
    check("dot_general", dot_reference, {"contract": contract, "batch": batch}, values(rng, xs, dtype), values(rng, ys, dtype),
          fused=bool(rng.integers(2)), target=TARGETS[target])


@pytest.mark.parametrize("pack_a", ["no", "global"])
@pytest.mark.parametrize("pack_b", ["no", "task", "global"])
@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("transposed", [0, 1, 2, 3])
def test_schedules(pack_a, pack_b, blocked, transposed):
    rng = np.random.default_rng(0)
    x, y = values(rng, (11, 23) if transposed & 1 else (23, 11), "float32"), values(rng, (19, 11) if transposed & 2 else (11, 19), "float32")
    attrs = {"contract": ((0 if transposed & 1 else 1,), (1 if transposed & 2 else 0,)), "batch": ((), ())}
    kd = {"kd": 4, "kc": 4} if blocked else {}
    check("dot_general", dot_reference, attrs, x, y, fused=True, pack_a=pack_a, pack_b=pack_b, blocked=blocked, mr=3, nv=2, mt=6, nt=8, **kd)


@pytest.mark.parametrize("case", [
    ((3, 4, 5), (5, 4, 6), ((1, 2), (1, 0)), ((), ())),
    ((2, 3, 4, 5), (2, 4, 7, 5), ((3,), (3,)), ((0, 2), (0, 1))),
    ((6, 5), (5,), ((1,), (0,)), ((), ())), ((5,), (5, 6), ((0,), (0,)), ((), ())), ((7,), (7,), ((0,), (0,)), ((), ())),
    ((3,), (4,), ((), ()), ((), ())), ((2, 3, 5), (5, 3, 4), ((2,), (0,)), ((), ())), ((4, 33), (4, 33), ((1,), (1,)), ((0,), (0,))),
    ((1, 70), (9, 70), ((1,), (1,)), ((), ())), ((3, 2, 40), (5, 40), ((2,), (1,)), ((), ())), ((), (3,), ((), ()), ((), ())), ((), (), ((), ()), ((), ())),
    ((2, 37, 3), (2, 37, 9), ((1,), (1,)), ((0,), (0,))), ((3, 2), (2, 1), ((1,), (0,)), ((), ())),
])
def test_dot_general_axes(case):
    xs, ys, contract, batch = case
    rng = np.random.default_rng(1)
    for fused in (False, True):
        check("dot_general", dot_reference, {"contract": contract, "batch": batch}, values(rng, xs, "float32"), values(rng, ys, "float32"), fused=fused)


CONVOLUTIONS = {"convolution": 0, "convolution_data_gradient": 1, "convolution_weight_gradient": 2}


def convolution_case(rng, rank=None):
    rank = rank or int(rng.choice([1, 2, 2, 2, 3]))
    groups = int(rng.choice([1, 1, 2, 3]))
    pick = lambda *of: tuple(int(rng.choice(of)) for _ in range(rank))
    kernel, stride, dilation = pick(1, 2, 3), pick(1, 1, 2, 3), pick(1, 1, 2)
    padding = tuple((int(rng.integers(0, 3)), int(rng.integers(0, 3))) for _ in range(rank))
    spatial = tuple(max(d * (k - 1) + 1 - sum(p), int(rng.choice([1, 3, 4, 7]))) for d, k, p in zip(dilation, kernel, padding))
    x = (int(rng.choice([1, 2, 3])), groups * int(rng.choice([1, 2, 3])), *spatial)
    w = (groups * int(rng.choice([1, 2, 5])), x[1] // groups, *kernel)
    out = tuple(out_size(*a) for a in zip(spatial, kernel, stride, padding, dilation))
    return x, w, (x[0], w[0], *out), {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


def check_convolution(op, x, w, g, attrs, rng, dtype="float32", **options):
    if op == "convolution":
        check(op, convolution_reference, attrs, values(rng, x, dtype), values(rng, w, dtype), **options)
    elif op == "convolution_data_gradient":
        check(op, data_gradient_reference, {"shape": x, **attrs}, values(rng, g, dtype), values(rng, w, dtype), **options)
    else:
        check(op, weight_gradient_reference, {"shape": w, **attrs}, values(rng, x, dtype), values(rng, g, dtype), **options)


@pytest.mark.parametrize("op", CONVOLUTIONS)
@pytest.mark.parametrize("seed", range(25))
def test_convolution(op, seed):
    rng = np.random.default_rng(seed)
    x, w, g, attrs = convolution_case(rng)
    dtype = rng.choice(["float32", "float32", "float64", "int32"])
    options = {"mr": 3, "nv": 2, "mt": 3, "nt": 8} if seed % 3 == 0 else {}
    if seed % 5 == 0 and op == "convolution_weight_gradient" and x[0] > 1:
        options["parts"] = x[0]
    # a fused prologue has no zero for padding to hide behind: the padding must still be 0
    check_convolution(op, x, w, g, attrs, rng, dtype, fused=bool(seed % 2), target=list(TARGETS.values())[seed % 4], **options)
