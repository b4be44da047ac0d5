"""Row groups: for each position, reductions over a domain in stages, and whatever is computed from them.

The reductions of a group are ordered in stages: those of stage 1 fold what is stored, those of stage 2 may read results
of stage 1 (softmax: max, then the sum of exponentials), and so on. Each stage is one pass over the domain. A result of
full shape is stored in the first pass that knows all it needs. Lanes run along the domain or along the positions,
whichever is contiguous; several accumulators a lane hide latency and keep sums accurate. The order of every fold is
fixed by the sizes alone, so results don't depend on the number of threads.

Few positions with a long domain are folded in two stages: partial results of fixed pieces, then a fold over the pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product as cartesian

from hybrid.graph import Value
from ndarray.dims import Size, product
from ndarray.op import Reduction
from ndarray.scalar import Scalar

from .columns import lower_columns, suits_columns
from .folds import Fold, scalar_expr, typed_const, widen
from .fuse import Group
from .launch import KernelBuilder, Launch, Storage
from .loopir import INT, Apply, Const, Expr, For, Get, If, Load, Prefetch, Register, Set, Store, Type, Var, apply, ramp
from .nest import Axis, bytes_and_work, choose_lane, choose_lanes, collapse, nest
from .nodes import Arena, Node, hint, same, same_sizes, volume, walk
from .pull import Accesses, Pull, Scope, axes_of
from .scalars import Block, Emitter
from .target import Target

__all__ = ["RowKernel", "lower_rows", "row_accesses"]

ROW = "@row"  # the pseudo-variable on which results of reductions depend
PIECES = 1024  # at most, of a fold in two stages
BLOCK = 1024  # additions in sequence before partial sums are added up
SCRATCH_BYTES = 128 << 10
WINDOW = 9  # a domain of so many positions is written out, if that makes no more than
UNROLLED_NODES = 200  # nodes
WIDEST, WIDE = 1024, 256  # lanes: the threads of a block, at most; of one with more than so many nodes, for its registers
FEW_NODES = 32
FETCHED = 512  # elements of a row from which on the next one is asked for


class RowKernel:
    """Builds the kernel of a row group."""

    def __init__(self, group: Group, pull: Pull, target: Target, storage: Callable[[Value], Storage],
                 results: dict[Value, list[Storage]]):
        self.group, self.pull, self.arena, self.target = group, pull, pull.arena, target
        self.storage, self.results, self.rows = storage, results, group.rows
        self.builder = KernelBuilder()
        self.em = Emitter(self.builder, self.arena, storage)
        self.em.masked = target.shuffles
        self.bounds: dict[str, tuple[Expr, Expr]] = {}  # axes that are walked in part
        self._pull_nodes()

    # -- what is computed
    def _pull_nodes(self) -> None:
        rows, arena = self.rows, self.arena
        scope = Scope(self.pull, self.group.equations)
        p = [arena.var(f"i{k}", n) for k, n in enumerate(rows.positions)]
        r = [arena.var(f"r{k}", n) for k, n in enumerate(rows.domain)]
        full = [(p if kind == "p" else r)[k] for kind, k in rows.layout]
        canonical: dict[Node, Node] = {}  # the result of a reduction at the row at hand -> its opaque node
        stages: dict[Node, int] = {}
        self.folds: list[Fold] = []
        memo: dict[Node, Node] = {}

        def opaque(node: Node) -> Node:
            return arena.rebuild(node, lambda n: canonical.get(n) if n.op == "reduced" else n if n.op == "load" and not
                                 any(c.op == "reduced" for c in walk([n])) else None, memo)

        def stage_of(node: Node) -> int:
            return max((stages.get(n, 0) for n in walk([node]) if n.op == "reduced"), default=0)

        for eq in self.group.equations:
            if not isinstance(eq.op.lower, Reduction):
                continue
            index = place(eq.outputs[0].shape, p, arena)
            domain = place(self.pull.domain(eq), r, arena)
            elements = [opaque(e) for e in scope.fold_elements(eq, index, domain)]
            stage = 1 + max(map(stage_of, elements))
            results = []
            for k, out in enumerate(eq.outputs):
                node = arena._node("reduced", (eq, k, ()), out.dtype, (), deps=frozenset((ROW,)))
                canonical[arena.reduced(eq, k, index, out.dtype)] = node
                stages[node] = stage
                results.append(node)
            self.folds.append(Fold(eq, elements, stage, results))
            memo.clear()
        self.full_outputs: list[tuple[Value, Node, Node, int]] = []
        self.row_outputs: list[tuple[Value, Node, Node]] = []
        for value in self.group.outputs:
            core = tuple(value.shape[k] for k in axes_of(value.shape))
            folded = isinstance(self.pull.producer[value].op.lower, Reduction)
            is_full = rows.full is not None and not folded and same(volume(core), volume(rows.full))
            if is_full and rows.full is not None and not same_sizes(core, rows.full):  # a reshape of the full shape
                index = arena.unflatten(arena.flatten(tuple(full), rows.full), value.shape)
            else:
                index = place(value.shape, full if is_full else p, arena)
            node, flat = opaque(scope.element(value, index)), arena.flatten(index, value.shape)
            if is_full:
                self.full_outputs.append((value, node, flat, stage_of(node)))
            else:
                self.row_outputs.append((value, node, flat))
        self._collapse(p, r)

    def _collapse(self, p: list[Node], r: list[Node]) -> None:
        roots = [e for f in self.folds for e in f.elements]
        roots += [n for _, node, flat, _ in self.full_outputs for n in (node, flat)]
        roots += [n for _, node, flat in self.row_outputs for n in (node, flat)]
        classes = [[Axis(v.args[0], v.args[1]) for v in vs] for vs in (p, r)]
        (self.positions, self.domain), roots = collapse(self.arena, classes, roots)
        self.roots = list(roots)
        it = iter(roots)
        for f in self.folds:
            f.elements = [next(it) for _ in f.elements]
        self.full_outputs = [(v, next(it), next(it), s) for v, _, _, s in self.full_outputs]
        self.row_outputs = [(v, next(it), next(it)) for v, _, _ in self.row_outputs]
        self.stages = max([f.stage for f in self.folds] + [s + 1 for *_, s in self.full_outputs])

    # -- schedule
    def schedule(self) -> None:
        """Choose the lanes."""
        nodes = list(walk(self.roots))
        self.nodes = nodes
        self.lanes = choose_lanes(self.target, nodes, [n for n in self.roots if n.op not in ("affine", "var")])
        loads = [n.args[1] for n in nodes if n.op == "load"]
        stores = [flat for _, _, flat, _ in self.full_outputs]
        if hint(product(a.extent for a in self.domain)) < 64:  # else one store a row is nothing
            stores += [flat for _, _, flat in self.row_outputs]
        names = frozenset(a.name for a in self.domain)
        self.lane = choose_lane(self.arena, self.positions + self.domain, loads, stores, self.lanes, names)
        self.lane_reduces = self.lane is not None and self.lane.name in names
        if self.lane is None:
            self.lanes = 1
        self.vector = self.lanes
        if self.lane is not None and self.lane_reduces:
            self.domain = [a for a in self.domain if a is not self.lane] + [self.lane]
        inner = hint(self.domain[-1].extent) if self.domain else 1
        if self.target.threads:
            self._widen()
        elif self.lane is not None and not self.lane_reduces and inner >= 16 and hint(self.lane.extent) >= 2 * self.lanes:
            self.lanes *= 4 if hint(self.lane.extent) >= 4 * self.lanes else 2  # whole cache lines of each row at once
            self.copies = 1
            return
        step = self.lanes if self.lane_reduces else 1
        self.copies = 4 if inner >= 4 * step and (self.lane_reduces or inner >= 16) else 1

    @property
    def split(self) -> bool:
        """Whether there are few positions with a long domain, which is folded in pieces."""
        if self.stages > 1 or self.full_outputs:
            return False
        rows, domain = (hint(product(a.extent for a in axes)) for axes in (self.positions, self.domain))
        few = self.target.threads and rows * 8 < self.target.tasks and domain >= 16 * self.target.piece
        return few or not self.rows.parallel

    def _widen(self) -> None:
        """Have several warps fold a long row together, where there are few rows."""
        if self.lane is None or not self.lane_reduces or self.split:
            return
        rows, extent = hint(product(a.extent for a in self.positions)), hint(self.lane.extent)
        most = WIDEST if len(self.nodes) <= FEW_NODES else WIDE
        while self.lanes < most and extent >= 8 * self.lanes and rows * self.lanes < self.target.tasks * self.vector // 4:
            self.lanes *= 2

    def build(self) -> list[Launch]:
        """The launches of the group: one, or two for few positions with a long domain."""
        self.schedule()
        if suits_columns(self):
            return lower_columns(self)
        if self.split:
            return self._build_split()
        weight = max(1, hint(product(a.extent for a in self.domain)) * self.stages * max(1, len(self.nodes) // 8))
        outer = [a for a in self.positions if a is not self.lane]
        lane = None if self.lane_reduces else self.lane
        tasks = nest(self.em, outer, lane, self.lanes if lane else 1, weight, self.target, self._row)
        return [self.builder.launch("rows", self.em.blocks[0].statements, "task", tasks, self.work(), in_place=(),
                                    equations=tuple(self.group.equations), note=str(self.group))]

    def work(self) -> Size:
        """Estimated nanoseconds."""
        cost = bytes_and_work(self.nodes, len(self.full_outputs))
        return product(a.extent for a in self.positions + self.domain) * cost // 20

    def _row(self) -> None:
        """Everything for one position (or one vector of positions); the innermost block is the row's."""
        em = self.em
        block = em.blocks[-1]
        block.variables[ROW] = Const(0, INT)
        scratch: dict[Node, tuple[str, int]] = {}
        for stage in range(1, self.stages + 1):
            folds = [f for f in self.folds if f.stage == stage]
            stores = [(v, n, flat) for v, n, flat, s in self.full_outputs if s == stage - 1]
            keep = self._worth_keeping(stage, folds, stores, scratch)
            self._stage(folds, stores, keep, scratch, self._next_row() if stage == 2 else [])
        self.store_rows()

    def _next_row(self) -> list[tuple[Value, Node]]:
        """What the first pass over the next row will read, and the last one over this row will write, where rows are contiguous:
        the second pass asks for it, for what the processor fetches ahead by itself ends with a page."""
        if self.target.threads or not self.lane_reduces or len(self.domain) > 1 or not self.positions:
            return []
        if hint(self.domain[0].extent) < FETCHED:
            return []
        lane, row = (self.arena.var(a.name, a.extent) for a in (self.domain[0], self.positions[-1]))
        found: dict[tuple[Value, Node], None] = {}
        first = [e for f in self.folds if f.stage == 1 for e in f.elements]
        reads = [(n.args[0], n.args[1], True) for n in walk(first) if n.op == "load"]
        for value, flat, ahead in [*reads, *[(v, flat, False) for v, _, flat, stage in self.full_outputs if stage > 1]]:
            terms, _ = self.arena.parts(flat)
            if all(a.op == "var" for a in terms) and same(terms.get(lane, 0), 1) and row in terms:
                found[value, self.arena.add(flat, self.arena.size(terms[row])) if ahead else flat] = None
        return list(found)[:3]

    def store_rows(self) -> None:
        """Store what has one element a row."""
        em = self.em
        values = [(v, em.emit(node), flat) for v, node, flat in self.row_outputs]
        for value, expr, flat in values:
            for s in self.results[value]:
                em.body.append(em.store(s, flat, expr))

    def _worth_keeping(self, stage: int, folds: list[Fold], stores: list, scratch: dict) -> list[Node]:
        """Expensive values of this pass that later passes read again: they go to a scratch row."""
        later = [e for f in self.folds if f.stage > stage for e in f.elements]
        later += [n for _, n, _, s in self.full_outputs if s >= stage]
        width = 1 if self.lane_reduces else self.lanes
        if not later or hint(product(a.extent for a in self.domain)) * 8 * width > SCRATCH_BYTES:
            return []
        here = [e for f in folds for e in f.elements] + [n for _, n, _ in stores]
        names = {a.name for a in self.domain}
        again = set(walk(later))
        found: list[Node] = []
        seen: set[Node] = set()
        stack = list(here)
        while stack:
            node = stack.pop()
            if node in seen or node in scratch:
                continue
            seen.add(node)
            candidate = node in again and not node.unsafe and node.deps & names and node.dtype.kind == "f"
            if candidate and node.op != "load" and self._cost_again(node, scratch) >= 8:
                found.append(node)
            else:
                stack.extend(node.children())
        return found[:4]

    def _cost_again(self, node: Node, scratch: dict) -> int:
        """What computing a value once more costs for each element, with what is already kept."""
        names = {a.name for a in self.domain}
        seen: set[Node] = set()
        stack, total = [node], 0
        while stack:
            n = stack.pop()
            if n not in seen and n not in scratch and n.deps & names:
                seen.add(n)
                total += n.cost
                stack.extend(n.children())
        return total

    # -- one pass over the domain
    def _stage(self, folds: list[Fold], stores: list, keep: list[Node], scratch: dict,
               ahead: Sequence[tuple[Value, Node]] = ()) -> None:
        em, builder = self.em, self.builder
        row = em.blocks[-1]
        across = em.lane_block()
        row_lanes = 1 if across is None else across.lanes  # lanes along positions
        copies = self.copies if folds else 1
        fold_lanes = self.lanes if self.lane_reduces else row_lanes
        registers: dict[tuple[int, int, int], str] = {}
        kept = {n: self._scratch_row(n, row_lanes) for n in keep}

        def step(copy: int, variables: dict[str, Expr], lane: str, lanes: int, tail: Expr | None) -> None:
            block = em.push(variables, lane, lanes, tail)
            for node, place in scratch.items():
                buffer, at = place[0], self._scratch_index(row_lanes)
                block.memo[node, None] = em.let(block, Load(buffer, at, Type(node.dtype.name, max(lanes, row_lanes)),
                                                            self._tail(lanes, tail)), "s")
            for v, where in ahead if tail is None else ():
                for s in self.results.get(v) or [self.storage(v)]:
                    em.body.append(Prefetch(builder.buffer(s, "write" if v in self.results else "read"), em.address(where)[0]))
            new: list[tuple[str, Expr]] = []
            for k, fold in enumerate(folds):
                values = [em.emit(e) for e in fold.elements]
                new += self._combine(fold, [registers[k, c, copy] for c in range(len(values))], values,
                                     fold_lanes, tail)
            for node, buffer in kept.items():
                value = em.emit(node)
                em.body.append(Store(buffer, self._scratch_index(row_lanes), widen(value, max(lanes, row_lanes)),
                                     self._tail(lanes, tail)))
            out = [(v, em.emit(n), flat) for v, n, flat in stores]
            for value, expr, flat in out:
                for s in self.results[value]:
                    em.body.append(em.store(s, flat, expr))
            em.body.extend(Set(name, value) for name, value in new)
            statements = em.pop()
            em.body.extend(statements)

        def declare(target: list) -> None:
            for k, fold in enumerate(folds):
                for c, (value, dtype) in enumerate(zip(fold.identity, fold.dtypes)):
                    for u in range(copies):
                        name = registers[k, c, u] = builder.fresh("acc")
                        target.append(Register(name, typed_const(value, dtype, fold_lanes)))

        def gather_copies() -> list[list[Expr]]:
            names = lambda k, u: [registers[k, c, u] for c in range(len(folds[k].elements))]
            return [self._fold_copies(fold, [names(k, u) for u in range(copies)], fold_lanes)
                    for k, fold in enumerate(folds)]

        axis = self.domain[-1] if self.domain else None
        length = BLOCK * copies * (self.lanes if self.lane_reduces else 1)
        if not folds or axis is None or hint(axis.extent) <= 2 * length or axis.name in self.bounds:
            declare(row.statements)
            self._domain_loops(step, copies)
            totals = gather_copies()
        else:  # long sums stay accurate where partial sums are added up
            totals = self._blocks(folds, fold_lanes, axis, length, declare, lambda: self._domain_loops(step, copies),
                                  gather_copies)
        for n, buffer in kept.items():
            scratch[n] = (buffer, 0)
        for fold, total in zip(folds, totals):
            self._finish(fold, total)

    def _blocks(self, folds: list[Fold], lanes: int, axis: Axis, length: int, declare: Callable, loops: Callable,
                gather_copies: Callable) -> list[list[Expr]]:
        """The same pass, block by block of `length` positions along the innermost axis."""
        em, builder = self.em, self.builder
        row = em.blocks[-1]
        names = [[builder.fresh("sum") for _ in f.dtypes] for f in folds]
        for fold, group in zip(folds, names):
            start = [typed_const(v, d, lanes) for v, d in zip(fold.identity, fold.dtypes)]
            row.statements += map(Register, group, start)
        at = builder.fresh("j")
        block = em.push({})
        stop = em.let(block, apply("min", Var(at, INT) + length, builder.size(axis.extent)), "stop")
        self.bounds = {axis.name: (Var(at, INT), stop)}
        declare(block.statements)
        loops()
        self.bounds = {}
        for fold, group, part in zip(folds, names, gather_copies()):
            old: list[Expr] = [Get(n, Type(d.name, lanes)) for n, d in zip(group, fold.dtypes)]
            block.statements += [Set(n, v) for n, v in zip(group, self._fold2(fold, old, part, block))]
        statements = em.pop()
        row.statements.append(For(at, Const(0, INT), builder.size(axis.extent), length, tuple(statements)))
        return [[em.let(row, Get(n, Type(d.name, lanes)), "c") for n, d in zip(group, f.dtypes)]
                for f, group in zip(folds, names)]

    def _tail(self, lanes: int, tail: Expr | None) -> Expr | None:
        block = self.em.lane_block()
        return tail if tail is not None else None if block is None else block.tail

    def _scratch_row(self, node: Node, row_lanes: int) -> str:
        size = product(a.extent for a in self.domain) * row_lanes
        return self.builder.scratch(node.dtype.name, size + 64)

    def _scratch_index(self, row_lanes: int) -> Expr:
        flat = self.arena.size(0)
        for a in self.domain:
            flat = self.arena.add(self.arena.scale(flat, a.extent), self.arena.var(a.name, a.extent))
        return self.em.address(flat)[0] * row_lanes

    def _domain_loops(self, step: Callable, copies: int) -> None:
        """Loops over the domain; the innermost one is cut into full steps and a rest."""
        em, builder = self.em, self.builder
        if not self.domain:
            step(0, {}, "", 1, None)
            return
        bounds = self.bounds
        sizes = [a.extent for a in self.domain]
        if not self.lane_reduces and not bounds and all(isinstance(n, int) for n in sizes):
            if product(sizes) <= WINDOW and product(sizes) * len(self.nodes) <= UNROLLED_NODES:  # a window: written out
                for at in cartesian(*map(range, sizes)):
                    step(0, {a.name: Const(k, INT) for a, k in zip(self.domain, at)}, "", 1, None)
                return

        def loop(axes: list[Axis]) -> None:
            axis = axes[0]
            start, stop = bounds.get(axis.name, (Const(0, INT), builder.size(axis.extent)))
            if len(axes) > 1:
                name = builder.fresh("j")
                em.push({axis.name: Var(name, INT)})
                loop(axes[1:])
                statements = em.pop()
                em.body.append(For(name, start, stop, 1, tuple(statements)))
                return
            width = self.lanes if self.lane_reduces else 1
            lane = axis.name if width > 1 else ""
            position = start
            extent = axis.extent if isinstance(axis.extent, int) and axis.name not in bounds else None
            for group in sorted({copies, 1}, reverse=True):
                size = width * group
                done = position.value if isinstance(position, Const) else 0
                if extent is not None and extent - done < size:
                    continue
                last = group == 1 and width == 1
                if last:
                    end = stop
                elif extent is not None:
                    end = Const(extent // size * size, INT)
                else:
                    end = em.let(em.blocks[-1], start + ((stop - start) // size) * size, "main")
                name = builder.fresh("i")
                em.push({})
                for u in range(group):
                    step(u, {axis.name: Var(name, INT) + u * width}, lane, width, None)
                statements = em.pop()
                em.body.append(For(name, position, end, size, tuple(statements)))
                position = end
            if width > 1 and (extent is None or extent % width):
                self._rest(axis, position, stop, step, extent)

        loop(self.domain)

    def _rest(self, axis: Axis, position: Expr, stop: Expr, step: Callable, extent: int | None) -> None:
        """The last lanes of a row: one masked vector."""
        em = self.em
        block = em.push({})
        tail = em.let(block, apply("lt", ramp(position, 1, self.lanes), stop), "m")
        step(0, {axis.name: position}, axis.name, self.lanes, tail)
        statements = em.pop()
        if extent is not None:
            em.body.extend(statements)
        else:
            em.body.append(If(apply("lt", position, stop), tuple(statements)))

    def _combine(self, fold: Fold, names: list[str], values: list[Expr], lanes: int,
                 tail: Expr | None) -> list[tuple[str, Expr]]:
        em = self.em
        types = [Type(d.name, lanes) for d in fold.dtypes]
        leaves: dict[str, Expr] = {f"a{c}": Get(n, t) for c, (n, t) in enumerate(zip(names, types))}
        leaves |= {f"e{c}": widen(v, lanes) for c, v in enumerate(values)}
        result = []
        in_order = not self.lane_reduces or len(self.domain) == 1
        for c, scalar in enumerate(fold.combiner(in_order)):
            value = scalar_expr(self.builder, scalar, leaves, lanes)
            if tail is not None:
                value = apply("select", tail, value, leaves[f"a{c}"])
            result.append((names[c], em.let(em.blocks[-1], value, "c")))
        return result

    def _fold_copies(self, fold: Fold, registers: list[list[str]], lanes: int) -> list[Expr]:
        """Fold the accumulators of one reduction into one, in a fixed tree."""
        em = self.em
        block = em.blocks[-1]
        get = lambda names: [Get(n, Type(d.name, lanes)) for n, d in zip(names, fold.dtypes)]
        parts = [[em.let(block, g, "c") for g in get(names)] for names in registers]
        while len(parts) > 1:
            parts = [self._fold2(fold, parts[k], parts[k + 1], block) if k + 1 < len(parts) else parts[k]
                     for k in range(0, len(parts), 2)]
        return parts[0]

    def _finish(self, fold: Fold, total: list[Expr]) -> None:
        """Fold the lanes; bind the results."""
        block = self.em.blocks[-1]
        self.deliver(fold, self._fold_lanes(fold, total, block) if self.lane_reduces else total, block)

    def _fold_lanes(self, fold: Fold, total: list[Expr], block: Block) -> list[Expr]:
        """The accumulators of all lanes in one."""
        em, lanes = self.em, total[0].type.lanes
        if lanes > 1:
            operation = fold.horizontal()
            if operation is not None:
                total = [em.let(block, Apply(operation, (total[0],), Type(fold.dtypes[0].name)), "c")]
            else:
                lane = lambda k: [Apply("lane", (t, Const(k, INT)), Type(d.name)) for t, d in zip(total, fold.dtypes)]
                single = [[em.let(block, x, "c") for x in lane(k)] for k in range(lanes)]
                while len(single) > 1:
                    single = [self._fold2(fold, single[k], single[k + 1], block) for k in range(0, len(single), 2)]
                total = single[0]
        return total

    def deliver(self, fold: Fold, total: list[Expr], block: Block) -> None:
        """Bind a reduction's results, made of the accumulators' last values."""
        em = self.em
        eq = fold.equation
        leaves = {f"a{c}": t for c, t in enumerate(total)}
        accumulator = tuple(Scalar("index", (f"a{c}",), d) for c, d in enumerate(fold.dtypes))
        assert isinstance(eq.op.lower, Reduction)
        post = eq.op.lower.post(accumulator, *(a.type for a in eq.inputs), **eq.attrs)
        for node, scalar in zip(fold.results, post if isinstance(post, tuple) else (post,)):
            em.bind(node, em.let(block, scalar_expr(self.builder, scalar, leaves, total[0].type.lanes), "r"))

    def _fold2(self, fold: Fold, a: list[Expr], b: list[Expr], block) -> list[Expr]:
        leaves = {f"a{c}": x for c, x in enumerate(a)} | {f"e{c}": x for c, x in enumerate(b)}
        lanes = a[0].type.lanes
        return [self.em.let(block, scalar_expr(self.builder, s, leaves, lanes), "c") for s in fold.combiner()]

    # -- few positions, long domain
    def _build_split(self) -> list[Launch]:
        """Partial folds over fixed pieces of the domain, stored as [piece, position]; then a fold over the pieces."""
        builder, em = self.builder, self.em
        cut = max(self.domain, key=lambda a: hint(a.extent))
        others = hint(product(a.extent for a in self.domain if a is not cut))
        quantum = self.lanes * 4
        length = max(1, self.target.piece // max(1, others))
        if self.target.threads:
            length = max(length, -(-hint(cut.extent) // PIECES))
        if cut is self.lane:
            length = -(-length // quantum) * quantum
        pieces = (cut.extent + (length - 1)) // length
        count = product(a.extent for a in self.positions)
        partial = {(k, c): Storage(d.name, pieces * count, "partial") for k, f in enumerate(self.folds)
                   for c, d in enumerate(f.dtypes)}
        piece = Axis("piece", pieces)
        arena = self.arena
        place_in = arena.var("piece", pieces)
        for a in self.positions:
            place_in = arena.add(arena.scale(place_in, a.extent), arena.var(a.name, a.extent))

        def deliver(fold: Fold, total: list[Expr], block) -> None:
            k = self.folds.index(fold)
            for c, value in enumerate(total):
                block.statements.append(em.store(partial[k, c], place_in, value))

        def body() -> None:
            block = em.blocks[-1]
            block.variables[ROW] = Const(0, INT)
            at = next(b.variables["piece"] for b in em.blocks if "piece" in b.variables)
            start = em.let(block, at * builder.size(length), "first")
            stop = em.let(block, apply("min", start + builder.size(length), builder.size(cut.extent)), "stop")
            self.bounds = {cut.name: (start, stop)}
            self._stage(self.folds, [], [], {})
            self.bounds = {}

        self.deliver = deliver  # type: ignore[method-assign]
        outer = [piece] + [a for a in self.positions if a is not self.lane]
        lane = None if self.lane_reduces else self.lane
        weight = self.target.piece * max(1, len(self.nodes) // 8)
        tasks = nest(em, outer, lane, self.lanes if lane else 1, weight, self.target, body)
        first = builder.launch("rows_pieces", em.blocks[0].statements, "task", tasks, self.work(),
                               equations=tuple(self.group.equations), note=str(self.group))
        del self.deliver
        return [first, self._fold_pieces(partial, pieces, place_in)]

    def _fold_pieces(self, partial: dict, pieces: Size, place_in: Node) -> Launch:
        self.builder = builder = KernelBuilder()
        self.em = em = Emitter(builder, self.arena, self.storage)
        lanes = self.target.lanes("int64") if self.target.threads else 1  # along the pieces

        def body() -> None:
            row = em.blocks[-1]
            row.variables[ROW] = Const(0, INT)
            for k, fold in enumerate(self.folds):
                names = [builder.fresh("acc") for _ in fold.dtypes]
                start = [typed_const(v, d, lanes) for v, d in zip(fold.identity, fold.dtypes)]
                row.statements += map(Register, names, start)
                name = builder.fresh("j")
                block = em.push({"piece": Var(name, INT)}, "piece" if lanes > 1 else "", lanes)
                if lanes > 1:
                    block.tail = em.let(block, apply("lt", ramp(Var(name, INT), 1, lanes), builder.size(pieces)), "m")
                values = []
                at, step, _ = em.address(place_in)
                at = at if step is None or (isinstance(step, Const) and step.value == 1) else ramp(at, step, lanes)
                for c, d in enumerate(fold.dtypes):
                    buffer = builder.buffer(partial[k, c], "read")
                    values.append(em.let(block, Load(buffer, at, Type(d.name, lanes), block.tail), "x"))
                em.body.extend(Set(n, v) for n, v in self._combine(fold, names, values, lanes, block.tail))
                statements = em.pop()
                row.statements.append(For(name, Const(0, INT), builder.size(pieces), lanes, tuple(statements)))
                total = [em.let(row, Get(n, Type(d.name, lanes)), "c") for n, d in zip(names, fold.dtypes)]
                self.deliver(fold, self._fold_lanes(fold, total, row), row)
            self.store_rows()

        tasks = nest(em, self.positions, None, 1, self.target.task, self.target, body)
        if not self.positions:
            tasks = 1
        work = volume(self.rows.positions) * pieces * len(self.folds)
        return builder.launch("fold_pieces", em.blocks[0].statements, "task", tasks, work,
                              equations=tuple(self.group.equations), note="fold of pieces")


def place(shape: tuple[Size, ...], variables: list[Node], arena: Arena) -> tuple[Node, ...]:
    """An index over `shape` from the variables of its axes that are not of size 1."""
    it = iter(variables)
    loops = set(axes_of(shape))
    return tuple(next(it) if k in loops else arena.size(0) for k in range(len(shape)))


def lower_rows(group: Group, pull: Pull, target: Target, storage: Callable[[Value], Storage],
               results: dict[Value, list[Storage]]) -> list[Launch]:
    """The kernels of a row group."""
    return RowKernel(group, pull, target, storage, results).build()


def row_accesses(group: Group, pull: Pull, target: Target) -> Accesses:
    """Where a row group stores its values of one element a row, and all that it loads and where."""
    kernel = RowKernel(group, pull, target, lambda value: Storage(value.dtype.name, volume(value.shape)), {})
    stores = {v: flat for v, _, flat in kernel.row_outputs}
    return stores, [(n.args[0], n.args[1]) for n in walk(kernel.roots) if n.op == "load"]
