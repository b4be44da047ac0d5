"""What a contraction is, and the schedule that a small cost model gives it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ndarray.dims import Size, hint, product

from .launch import _ITEMSIZE, KernelBuilder
from .loopir import Const, Expr, Let, Stmt, Type, Var, apply, cast, const, ramp, splat
from .target import Target

__all__ = [
    "Contraction",
    "Deliver",
    "Digits",
    "Operand",
    "Schedule",
    "bind",
    "ceil_div",
    "choose",
    "digits",
    "flatten",
    "hint",
    "lane_mask",
    "mask_registers",
    "minimum",
    "multiply_add",
    "zero",
]

GATES = 130
"""Cycles that the gates of a recurrent layer take for a vector of states."""

OFTEN = 16
"""Reads of an operand from which on it is packed although vectors can be loaded where it lies."""

BRIEF = 64
"""Steps of k up to which a product counts as brief, see `Schedule`."""

Digits = tuple[Expr, ...]
Deliver = Callable[[Expr, Any], list[Stmt]]
"""(row, vector of results, or a tuple of them) -> statements."""


@dataclass(frozen=True)
class Operand:
    """One side of a contraction.

    load(builder, batch, position, k, lanes, mask) gives `lanes` values at consecutive positions (rows of A, columns
    of B).
    batch         which digits of the batch it depends on
    contiguous    consecutive positions are consecutive in memory (a vector load, not a gather)
    k_contiguous  consecutive values of the last digit of k are
    cheap         a load is one machine load
    constant      a weight: its packed form could be kept
    uses          how many products of the graph read it, and may share its packed form
    along_k       as `load`, but the values are consecutive along the last digit of k; if they are in memory
    """

    load: Callable[[KernelBuilder, Digits, Expr, Digits, int, Expr | None], Expr]
    batch: tuple[bool, ...]
    contiguous: bool
    k_contiguous: bool = False
    cheap: bool = True
    constant: bool = False
    uses: int = 1
    along_k: Callable[[KernelBuilder, Digits, Expr, Digits, int, Expr | None], Expr] | None = None


@dataclass(frozen=True)
class Contraction:
    """The problem.

    store         (builder, batch, column, lanes, mask, over_rows) gives the statements that deliver `lanes` results at
                  consecutive columns, for each row: ``over_rows(deliver)`` makes the loop over rows around
                  the statements ``deliver(row, value)``
    vector_store  False: it is called with one lane only
    beside        if not 1, columns are delivered in so many vectors at once, see `Sink`; the tile is that wide
    width         columns of a part then; `columns` are those of parts filled up to whole vectors

    multiply      (a, b, total) -> the total with a product added, if that is anything else than ``a * b + total``

    The last digit of k is unrolled where it is a small constant (the taps of a filter row).
    """

    dtype: str
    batch: tuple[Size, ...]
    rows: Size
    columns: Size
    inner: tuple[Size, ...]
    a: Operand
    b: Operand
    store: Callable[[KernelBuilder, Digits, Expr, int, Expr | None, Callable[[Deliver], list[Stmt]]], list[Stmt]]
    vector_store: bool = True
    beside: int = 1
    width: int = 0
    name: str = "product"
    equations: tuple[Any, ...] = ()
    multiply: Callable[[Expr, Expr, Expr], Expr] | None = None

    def add_product(self, a: Expr, b: Expr, total: Expr) -> Expr:
        """The total with the product of two vectors added."""
        return (self.multiply or multiply_add)(a, b, total)


@dataclass(frozen=True)
class Schedule:
    """Tile mr x (nv * lanes) in registers, mt x nt results a task, k digit number `digit` in steps of kd.

    pack_a: "no" or "global"; pack_b: "no", "task" or "global". `blocked`: there may be more than one block of k.
    `brief`: k is so short that writing the results counts: rows one after the other, and from registers where the sink is short.
    own_rows: tasks for the same rows follow one another, so that a thread has rows for itself; otherwise those for the same
    columns do.
    shares: the rows are dealt to so many shares, whose tasks follow one another, those for the same columns within a share: a
    thread then finds the rows that it made in the launch before.
    """

    mr: int
    nv: int
    lanes: int
    mt: int
    nt: int
    digit: int
    kd: Size
    kc: int
    blocked: bool
    pack_a: str = "no"
    pack_b: str = "no"
    brief: bool = False
    own_rows: bool = False
    shares: int = 1

    @property
    def nr(self) -> int:
        return self.nv * self.lanes


# -- small helpers


def ceil_div(a: Size, b: int) -> Size:
    return (a + (b - 1)) // b


def bind(builder: KernelBuilder, body: list[Stmt], value: Expr, prefix: str = "t") -> Expr:
    """Gives a value a name, unless it is one already."""
    if isinstance(value, (Const, Var)):
        return value
    name = builder.fresh(prefix)
    body.append(Let(name, value))
    return Var(name, value.type)


def digits(builder: KernelBuilder, flat: Expr, sizes: tuple[Size, ...]) -> Digits:
    """The digits of a row-major flat number, most significant first; sizes of 1 give 0."""
    found: list[Expr] = []
    for size in reversed(sizes[1:]):
        extent = builder.size(size)
        found.append(flat % extent)
        flat = flat // extent
    if sizes:
        found.append(const(0) if isinstance(sizes[0], int) and sizes[0] == 1 else flat)
    return tuple(reversed(found))


def flatten(builder: KernelBuilder, index: Digits, sizes: tuple[Size, ...]) -> Expr:
    """The row-major flat number of digits."""
    flat: Expr = const(0)
    for i, size in zip(index, sizes, strict=True):
        flat = flat * builder.size(size) + i
    return flat


def mask_registers(vector: Type) -> bool:
    """Whether an access under a mask is as fast as another: where vectors have 64 bytes."""
    return vector.lanes * _ITEMSIZE[vector.dtype] == 64


def lane_mask(position: Expr, lanes: int, stop: Expr) -> Expr:
    """Which of `lanes` consecutive positions lie before `stop`."""
    if lanes == 1:
        return position < stop
    left = cast(minimum(stop - position, const(lanes)), "int32")  # lane numbers are short: one vector compares them all
    return ramp(Const(0, left.type), 1, lanes) < splat(left, lanes)


def minimum(a: Expr, b: Expr) -> Expr:
    return apply("min", a, b)


def multiply_add(a: Expr, b: Expr, c: Expr) -> Expr:
    """a * b + c: fused for floats, exact for integers; and/or for booleans."""
    if a.type.dtype == "bool":
        return (a & b) | c
    return apply("fma", a, b, c) if a.type.dtype.startswith("float") else a * b + c


def zero(type: Type) -> Const:
    return Const(0.0 if type.dtype.startswith("float") else False if type.dtype == "bool" else 0, type)


# -- choosing the schedule


def choose(c: Contraction, target: Target, **override: Any) -> Schedule:
    """The schedule that a small cost model finds cheapest; `override` replaces fields (tests use small blocks), or says
    what `tune` may try: ``rank``, the place of the tile among those that the model likes best, and ``wanted``, how many
    tasks there should be."""
    if target.threads:
        return replace(_of_threads(c, target), **override)
    lanes = override.get("lanes") or target.lanes(c.dtype)
    itemsize = _ITEMSIZE[c.dtype]
    m, n, k = hint(c.rows), hint(c.columns), hint(product(c.inner))
    mr, nv = _tile(m, n, k, lanes, target, c, override.get("rank", 0))
    mr, nv = override.get("mr", mr), override.get("nv", nv)
    nr = nv * lanes
    row_panels, column_panels = -(-max(m, 1) // mr), -(-max(n, 1) // nr)

    limit = override.get("kc") or max(256, target.l1 // itemsize // nr)
    digit, step, kc, blocked = _k_block(c.inner, limit)

    # columns of a task: a block of B in half of the second-level cache; then rows, fewer where tasks are wanted
    wide = max(1, (target.l2 // 4) // (kc * itemsize) // nr)
    macs = m * n * k * hint(product(c.batch))
    written = 8 * m * n * hint(product(c.batch))  # a result takes as long as so many steps
    steps = (macs + written) // lanes
    wanted = override.get("wanted") or min(16, max(1 + (steps >= 28_000), steps // 20_000))
    outer = max(1, hint(product(c.batch)))
    column_blocks = -(-column_panels // wide)
    room = (
        max(1, (target.l2 // 2) // (min(wide, column_panels) * nr * itemsize) // mr) if blocked else max(1, 1024 // mr)
    )
    row_blocks = -(-row_panels // room)
    brief = override.get("brief", k <= BRIEF and not blocked and c.beside == 1)
    # what one thread packs comes slowly to another: each task turns B for itself, if that is little beside its rows' products
    turns = not c.b.contiguous and not c.b.constant and c.b.uses <= 3
    short = k <= 2 * BRIEF and not blocked and c.beside == 1
    least_rows = min(192 if short else 256, max(24 if brief else 48, m // 2)) if turns else 1
    # threads that write to the same rows hinder each other
    by_rows = (short if turns else brief) and n * k * itemsize <= target.l2 // 2
    while outer * column_blocks * row_blocks < wanted:
        more_rows = row_panels // row_blocks > 1 and m // row_blocks >= 2 * least_rows
        if by_rows and more_rows:
            row_blocks *= 2
        elif -(-column_panels // column_blocks) > 1 or not more_rows:
            if column_blocks >= column_panels:
                break
            column_blocks = min(column_panels, column_blocks * 2)
        else:
            row_blocks *= 2
    # long products: more of them, which even out between threads that run at different speeds; as square as may be
    while outer * column_blocks * row_blocks < min(32, macs // (lanes * 320_000)):
        tall = row_panels // row_blocks * mr > column_panels // column_blocks * nr
        if tall and (row_blocks > 1 or c.b.contiguous or c.b.constant):
            row_blocks *= 2
        elif column_panels // column_blocks > 1:
            column_blocks *= 2
        else:
            break
    own_rows = by_rows
    if c.b.uses >= OFTEN and "wanted" not in override:
        weights = n * k * itemsize
        near = c.beside > 1 and m >= 2 * mr and 4 * weights <= 3 * target.l2  # rows may be left to a thread for all steps
        own_rows = near or (m >= 64 and weights <= 4 * target.l2)
        least = max(row_blocks if blocked else 1, m // 32 if own_rows else 1, min(4, row_panels) if near else 1)
        gates = m * n // c.beside * GATES if c.beside > 1 else 0
        row_blocks, column_blocks = _blocks_of_step(
            row_panels, column_panels, least, 1 if own_rows else -(-column_panels // wide), (macs + gates) // (lanes * 12_000)
        )
    per_block = -(-row_panels // row_blocks)
    while per_block > 1 and 1 < (tasks := outer * column_blocks * -(-row_panels // per_block)) < 8 and tasks % 2:
        per_block -= 1  # an odd number of large tasks would leave a thread idle
    shares, small = 1, n * k * itemsize <= target.l2  # so that B may be read several times
    # writing takes long where another core has read before: that would be the rows, or B where it is no kept weight
    rows_count = c.b.constant or (small and m * (n + k) > n * k)
    if rows_count and outer == 1 and column_blocks > 1 and not own_rows and c.b.uses < OFTEN:
        more = c.b.constant or (c.b.contiguous and c.b.cheap and target.masked)  # B isn't packed by each task
        shares, row_blocks = _shares(row_panels, -(-row_panels // per_block), more, 4 if small else 2)
        per_block = -(-row_panels // row_blocks)
    mt = override.get("mt") or per_block * mr
    nt = override.get("nt") or -(-column_panels // column_blocks) * nr

    # packing pays where a load does more than load; plain operands are read in place as fast (measured to k = 8192)
    pack_a = "no" if c.a.cheap or n <= 2 * nr else "global"
    pack_b = "no"
    if not c.b.contiguous:
        apart = turns and (row_blocks < 2 or m // row_blocks >= least_rows)
        pack_b = "no" if m * n * k <= 4096 else "task" if apart else "global"
    elif c.b.uses >= OFTEN and m > mr:
        pack_b = "global"  # in a loop: rows far apart compete for the same places of a cache
    elif m > 2 * mr and (not c.b.cheap or not target.masked):
        pack_b = "task"
    if pack_b == "task" and not all(isinstance(z, int) for z in c.inner[digit + (blocked or not c.inner) :]):
        pack_b = "global"  # private panels have a fixed size
    return Schedule(
        mr,
        nv,
        lanes,
        mt,
        nt,
        override.get("digit", digit),
        override.get("kd", step),
        kc,
        override.get("blocked", blocked),
        override.get("pack_a", pack_a),
        override.get("pack_b", pack_b),
        brief,
        override.get("own_rows", own_rows),
        override.get("shares", shares),
    )


def _shares(panels: int, blocks: int, more: bool, most: int) -> tuple[int, int]:
    """Into how many equal shares, `most` at most, the blocks of all panels of rows can be dealt, and how many blocks there are
    then: a few more, if there may be."""
    for shares in (4, 2):
        if shares > most or (shares == 4 and blocks < 4):
            continue
        dealt = -(-blocks // shares) * shares if more else blocks
        if dealt % shares == 0 and dealt <= panels:
            per_block = -(-panels // dealt)
            if dealt * per_block <= panels + panels // 8:
                return shares, dealt
    return 1, blocks


def _blocks_of_step(rows: int, columns: int, least_rows: int, least_columns: int, wanted: int) -> tuple[int, int]:
    """Into how many blocks the panels of rows and columns are cut where a product is a step of a loop: workers are awake, so
    that a task may be short, and wait for each other in each step, so that all are to have the same."""
    least_rows, least_columns = min(least_rows, rows), min(least_columns, columns)
    wanted = min(16, rows * columns, max(wanted + 1 if wanted else 0, least_rows * least_columns))
    if wanted < 2:
        return 1, 1

    def time(blocks: tuple[int, int]) -> int:
        tasks, size = blocks[0] * blocks[1], -(-rows // blocks[0]) * -(-columns // blocks[1])
        return sum(-(-tasks // threads) * threads for threads in (2, 4)) * size

    every = ((r, c) for r in range(least_rows, rows + 1) for c in range(least_columns, columns + 1))
    fits = (x for x in every if wanted <= x[0] * x[1] <= 4 * wanted)  # none where the caches ask for more blocks
    return min(fits, key=lambda blocks: (time(blocks), blocks), default=(least_rows, least_columns))


THREAD_TILES = ((8, 4), (8, 2), (4, 2), (4, 1), (2, 1), (1, 1))
"""Rows and vectors of columns of a warp's tile, the one with most arithmetic for what it loads first."""


def _of_threads(c: Contraction, target: Target) -> Schedule:
    """For a GPU: a task is one tile, the largest with which there are enough of them; operands that are not contiguous along
    the lanes, or are computed, are packed where that pays."""
    lanes = target.lanes(c.dtype)
    m, n, batch = max(1, hint(c.rows)), max(1, hint(c.columns)), max(1, hint(product(c.batch)))
    mr, nv = THREAD_TILES[-1]
    for mr, nv in THREAD_TILES:
        fits = mr < 2 * m and (nv - 1) * lanes < n
        if fits and batch * -(-m // mr) * -(-n // (nv * lanes)) * 4 >= target.tasks:
            break
    nr = nv * lanes
    pack_a = "no" if c.a.cheap or n <= 2 * nr else "global"
    pack_b = "no" if (c.b.contiguous and c.b.cheap) or m <= 2 * mr else "global"
    return Schedule(mr, nv, lanes, mr, nr, 0, c.inner[0] if c.inner else 1, max(1, hint(product(c.inner))), False, pack_a, pack_b)


def _tile(m: int, n: int, k: int, lanes: int, target: Target, c: Contraction, rank: int = 0) -> tuple[int, int]:
    """The register tile that needs the fewest cycles, padding included, or another one by its rank."""
    found: list[tuple[float, int, int]] = []  # of equal ones that with fewer rows, each of which is a broadcast
    spare = 0 if target.fma else 1
    # rows that lie a whole number of pages apart share one set, of 8 lines or so, of the first-level cache
    conflict = c.a.k_contiguous and c.a.cheap and k and hint(c.inner[-1]) * _ITEMSIZE[c.dtype] % 4096 == 0
    # and where results are what takes the time, few rows at once are written fastest
    most = 6 if k <= BRIEF and n >= 4 * lanes else 8 if conflict else 24
    # where tiles go along a row, each finds its columns of B in the second-level cache: a cycle more for each vector
    far = k <= BRIEF and n * k * _ITEMSIZE[c.dtype] > target.l1
    for nv in (c.beside,) if c.beside > 1 else range(1, 9):
        for mr in range(1, most + 1):
            if mr * nv + nv + 1 + spare > target.registers:
                break
            if mr > 15 and nv > 1:
                break
            loads = nv + mr * 0.5
            step = max(mr * nv, loads, 8 if target.fma else 4) + 0.5 + loads * 0.15 + nv * far
            cost = -(-max(m, 1) // mr) * -(-max(n, 1) // (nv * lanes)) * (step * max(k, 1) + 4 * mr * nv + 30)
            found.append((cost, -nv, -mr))
    _, columns, rows = sorted(found)[min(rank, len(found) - 1)] if rank else min(found, default=(0.0, -1, -1))
    return -rows, -columns


def _k_block(inner: tuple[Size, ...], limit: int) -> tuple[int, Size, int, bool]:
    """(digit that is cut, its step, values of k in a block, whether there may be several blocks)."""
    sizes = [max(1, hint(s)) for s in inner]
    total = 1
    for s in sizes:
        total *= s
    if not inner or total <= limit * 3 // 2:
        return 0, inner[0] if inner else 1, total, False
    below, digit = 1, len(inner) - 1
    while digit > 0 and below * sizes[digit] <= limit:
        below *= sizes[digit]
        digit -= 1
    step = max(1, limit // below)
    blocks = -(-sizes[digit] // step)
    step = -(-sizes[digit] // blocks)
    return digit, step, step * below, True
