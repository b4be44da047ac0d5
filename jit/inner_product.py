"""Products whose operands are both contiguous along k, as a layer's x @ W^T: vectors run along k, nothing is packed.

A tile of mr x nr results holds one vector of partial sums each; a step loads mr + nr vectors for mr * nr fused
multiply-adds, so weights are read once and in order. The lanes of a result are added at the end, in a fixed tree.
"""

from __future__ import annotations

from typing import Any

from ndarray.dims import product

from .contraction import (
    Contraction,
    Deliver,
    bind,
    ceil_div,
    digits,
    hint,
    lane_mask,
    mask_registers,
    minimum,
    multiply_add,
    zero,
)
from .launch import _ITEMSIZE, KernelBuilder, Launch
from .loopir import INT, Apply, Expr, For, Get, If, Load, Register, Set, Stmt, Store, Type, Var, const
from .target import Target

__all__ = ["lower_inner_product", "suits_inner_product"]


KEPT = 16 << 20
"""Bytes of a weight up to which a copy of it may be kept for its sake."""


def suits_inner_product(c: Contraction, target: Target) -> bool:
    """Both contiguous along k, k long enough to fill vectors, and too few results a packed value to pay for packing.

    Weights of moderate size are packed once and kept, unless there is next to nothing to gain: a vector times a matrix
    takes the time of reading it."""
    lanes = target.lanes(c.dtype)
    m, n, k = hint(c.rows), hint(c.columns), hint(c.inner[-1]) if c.inner else 0
    if not (c.a.k_contiguous and c.b.k_contiguous) or c.dtype == "bool" or k < 2 * lanes:
        return False
    if min(m, n) <= 4:
        return True
    if c.b.constant and m > 8 and n * hint(product(c.inner)) * _ITEMSIZE[c.dtype] <= KEPT:
        return False
    return k >= max(8 * lanes, 9 * m * c.b.uses)  # what adding the lanes up costs, and what packing does: measured


def _tile(m: int, n: int, lanes: int, target: Target, vector_store: bool, rank: int) -> tuple[int, int]:
    """Rows and columns of a tile: the fewest cycles a step, padding included, or those of another `rank`. Where the sink takes
    vectors, columns divide them."""
    found = []
    for nr in range(1, 9):
        if vector_store and lanes % nr:
            continue
        for mr in range(1, 9):
            if mr * nr + nr + 2 <= target.registers:
                cost = -(-m // mr) * -(-n // nr) * (max(mr * nr, mr + nr, 6) + 1 + 0.2 * (mr + nr))
                found.append((cost, nr, mr))
    _, columns, rows = sorted(found)[min(rank, len(found) - 1)]
    return rows, columns


def lower_inner_product(c: Contraction, load_a: Any, load_b: Any, target: Target, rank: int = 0) -> list[Launch]:
    """The launch. `load_a`, `load_b` are as `Operand.load`, with lanes along the last digit of k; `rank` is the place of the
    tile among those that the cost model likes best."""
    builder = KernelBuilder()
    lanes = target.lanes(c.dtype)
    vector = Type(c.dtype, lanes)
    m, n = hint(c.rows), hint(c.columns)
    mr, nr = _tile(max(1, m), max(1, n), lanes, target, c.vector_store, rank)
    itemsize, k = _ITEMSIZE[c.dtype], product(c.inner)
    # a task has all rows and some columns: a multiple of the vector length, so that the sink writes whole vectors
    nt = max(lanes, nr)
    mt = -(-max(1, min(m, 64)) // mr) * mr
    if target.threads:
        mt = mr
    while not target.threads and nt < n and nt < 512 and nt * hint(k) * (mt * 20 // lanes + itemsize) < 40 * 2_500:
        nt *= 2

    body: list[Stmt] = []
    rows, columns = builder.parameter(c.rows, "rows"), builder.parameter(c.columns, "columns")
    row_blocks, column_blocks = ceil_div(c.rows, mt), ceil_div(c.columns, nt)
    task: Expr = Var("task", INT)
    task_rows = builder.parameter(mt) if m > 1 else const(mt)
    task_columns = builder.parameter(nt)
    m0 = bind(builder, body, task % builder.parameter(row_blocks, "row blocks") * task_rows, "m")
    rest = bind(builder, body, task // builder.parameter(row_blocks, "row blocks"))
    block_count = builder.parameter(column_blocks)
    n0 = bind(builder, body, rest % block_count * task_columns, "col")
    block = rest // block_count
    with builder.within("batch"):
        batch = tuple(bind(builder, body, d, "g") for d in digits(builder, block, c.batch))
    m1 = bind(builder, body, minimum(m0 + task_rows, rows), "m")
    n1 = bind(builder, body, minimum(n0 + task_columns, columns), "col")
    chunk = max(lanes, nr) if c.vector_store else nr
    sums, vectors = builder.scratch(c.dtype, mt * chunk), builder.scratch(c.dtype, mr * nr * lanes)
    j0, j1, i0 = builder.fresh("col"), builder.fresh("col"), builder.fresh("m")
    names = [[builder.fresh("c") for _ in range(nr)] for _ in range(mr)]
    tile: list[Stmt] = [Register(name, zero(vector)) for row in names for name in row]
    left = [bind(builder, tile, minimum(Var(i0, INT) + i, rows - 1), "r") for i in range(mr)]
    right = [bind(builder, tile, minimum(Var(j1, INT) + j, columns - 1), "r") for j in range(nr)]
    ks = [builder.fresh("k") for _ in c.inner]
    length = builder.parameter(c.inner[-1], "length")

    def step(k: Expr, mask: Expr | None) -> list[Stmt]:
        out: list[Stmt] = []
        at = (*(Var(name, INT) for name in ks[:-1]), k)
        bs = [bind(builder, out, load_b(builder, batch, right[j], at, lanes, mask), "v") for j in range(nr)]
        for i in range(mr):
            a = bind(builder, out, load_a(builder, batch, left[i], at, lanes, mask), "a")
            out += [Set(names[i][j], multiply_add(a, bs[j], Get(names[i][j], vector))) for j in range(nr)]
        return out

    whole = bind(builder, tile, length // lanes * lanes)
    inside: list[Stmt] = [
        For(ks[-1], const(0), whole, lanes, tuple(step(Var(ks[-1], INT), None)), 2 if mr * nr <= 4 else 1)
    ]
    if not (isinstance(c.inner[-1], int) and c.inner[-1] % lanes == 0):
        inside.append(If(whole < length, tuple(step(whole, lane_mask(whole, lanes, length)))))
    for number in reversed(range(len(ks) - 1)):
        inside = [For(ks[number], const(0), builder.parameter(c.inner[number], ("k", number)), 1, tuple(inside))]
    tile += inside
    tile += [Store(vectors, const((i * nr + j) * lanes), Get(names[i][j], vector)) for i in range(mr) for j in range(nr)]
    i: Expr = Var(builder.fresh("i"), INT) if mr > 1 else const(0)
    j = Var(builder.fresh("j"), INT)
    total = Apply("reduce_add", (Load(vectors, (i * nr + j) * lanes, vector),), Type(c.dtype))
    add: Stmt = Store(sums, (Var(i0, INT) - m0 + i) * chunk + (Var(j1, INT) - Var(j0, INT) + j), total)
    add = For(j.name, const(0), const(nr), 1, (add,))
    tile.append(For(i.name, const(0), const(mr), 1, (add,)) if isinstance(i, Var) else add)
    tiles = For(i0, m0, m1, mr, tuple(tile))
    compute = For(j1, Var(j0, INT), minimum(Var(j0, INT) + chunk, n1), nr, (tiles,), apart=True)
    wide = c.vector_store and chunk == lanes
    column = Var(j0, INT) if wide else Var(j0, INT) + Var("j", INT)
    count = lanes if wide else 1

    def over_rows(deliver: Deliver) -> list[Stmt]:
        i = builder.fresh("i")
        index = Var(i, INT) * chunk + (column - Var(j0, INT))
        return [For(i, const(0), m1 - m0, 1, tuple(deliver(m0 + Var(i, INT), Load(sums, index, Type(c.dtype, count)))))]

    masked = c.store(builder, batch, column, lanes, lane_mask(column, lanes, columns), over_rows) if wide else []
    if wide and mask_registers(vector):
        sink = masked
    else:
        store = c.store(builder, batch, column, count, None, over_rows)
        if wide:
            sink = [If(column + lanes <= columns, tuple(store), tuple(masked))]
        else:
            sink = [For("j", const(0), minimum(const(chunk), n1 - Var(j0, INT)), 1, tuple(store))]
    body.append(For(j0, n0, n1, chunk, (compute, *sink)))
    tasks = product(c.batch) * row_blocks * column_blocks
    # nanoseconds: of the arithmetic, and of reading the larger side, for which there may be little of it
    work = product(c.batch) * c.columns * k * c.rows // (lanes * 2) + product(c.batch) * c.columns * k * itemsize // 40 + 20
    return [
        builder.launch(
            f"{c.name}_inner_{mr}x{nr}", body, "task", tasks, work, equations=c.equations, note="inner product"
        )
    ]
