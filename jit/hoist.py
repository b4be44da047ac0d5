"""Launches that depend on unchanging inputs only: what they compute is kept between calls.

Packed weights are the usual case; any kernel will do, such as the scale of a normalization that uses stored moments.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .launch import _ITEMSIZE, Launch, Step, Storage, buffers_of, written_by

__all__ = ["MAX_GROWTH", "Allowance", "hoist"]

MAX_GROWTH = 8
"""A kept value takes at most so many times the bytes of the constants in it, or `SMALL` bytes: a weight laid out anew is
worth keeping, one that was broadcast is not."""

SMALL = 1 << 20

FREE = 128 << 20
"""Bytes that a program may keep in any case; beyond, a quarter of the bytes of its constant inputs."""

LARGER = 192 << 20
"""Bytes that the larger forms of weights may take in any case; beyond, half of the bytes of the constant inputs."""


class Allowance:
    """Says whether weights may be kept in a form that is larger than they are, which saves work at each call. `left`: bytes;
    `questions`: what `fits` was asked, and said; `admitted`: what has been allowed, beyond what a program may keep otherwise."""

    def __init__(self, constants: Collection[Storage]):
        self.left = max(LARGER, sum(map(_bytes, constants)) // 2) if constants else 0
        self.questions: list[tuple[int, bool]] = []
        self.admitted: list[Storage] = []

    def fits(self, nbytes: int) -> bool:
        """Whether there is room for so many bytes."""
        self.questions.append((nbytes, nbytes <= self.left))
        return nbytes <= self.left

    def admit(self, storage: Storage) -> None:
        """Count a storage, if there is room for it."""
        if _bytes(storage) <= self.left:
            self.left -= _bytes(storage)
            self.admitted.append(storage)


def hoist(
    steps: Sequence[Step], constants: Collection[Storage], fixed: Collection[Storage], admitted: Collection[Storage] = ()
) -> tuple[tuple[Storage, tuple[Launch, ...]], ...]:
    """(a temporary that depends on constants only and that others read, the launches behind it, in order).

    `constants` are storages that nothing writes, `fixed` those whose place is not for the program to choose, `admitted`
    those that an `Allowance` has admitted.
    """
    if not constants:
        return ()
    banned: set[Storage] = set()
    budget = max(FREE, sum(map(_bytes, constants)) // 4) + sum(map(_bytes, admitted))
    while True:
        movable = _movable(steps, constants, fixed, banned)
        kept = _read_by_others(steps, movable)
        if sum(map(_bytes, kept)) <= budget:
            break
        banned.add(max(kept, key=_bytes))
    front = _Makers([x for x in steps if isinstance(x, Launch) and x in movable])
    needed = {x for s in kept for x in front.behind(s)}  # not those that only serve a banned one
    return tuple([(s, front.behind(s)) for s in _read_by_others(steps, needed)])


def _read_by_others(steps: Sequence[Step], once: Collection[Launch]) -> list[Storage]:
    """What some launches write and others use."""
    made = {s.whole for x in once for s in _written(x)}
    return list(dict.fromkeys(r for s in buffers_of([x for x in steps if x not in once]) if (r := s.whole) in made))


class _Makers:
    """Launches in order, by what they write."""

    def __init__(self, launches: Sequence[Launch]):
        self.launches = launches
        self.of: dict[Storage, list[int]] = {}  # storage -> numbers of the launches that write it
        for k, x in enumerate(launches):
            for s in _written(x):
                self.of.setdefault(s.whole, []).append(k)

    def behind(self, storage: Storage) -> tuple[Launch, ...]:
        """Those of the launches that the values in a storage need."""
        found = set(self.of[storage])
        stack = list(found)
        while stack:
            reader = stack.pop()
            earlier = {k for s in self.launches[reader].buffers for k in self.of.get(s.whole, ()) if k < reader} - found
            found |= earlier
            stack += earlier
        return tuple([self.launches[k] for k in sorted(found)])


def _movable(
    launches: Sequence[Step], constants: Collection[Storage], fixed: Collection[Storage], banned: Collection[Storage]
) -> set[Launch]:
    """The launches that need constants only, and write temporaries that no other launch writes."""
    writers: dict[Storage, list[Step]] = {}
    for x in launches:
        for s in written_by([x]):
            writers.setdefault(s.whole, []).append(x)
    sources: dict[Launch, int] = {}  # bytes of the constants behind each movable launch
    movable = {x for x in launches if isinstance(x, Launch) and _static(x)}
    changed = True
    while changed:
        changed = False
        for x in launches:
            if not isinstance(x, Launch) or x not in movable:
                continue
            if not _stays_movable(x, movable, writers, constants, fixed, banned, sources):
                movable.discard(x)
                changed = True
    return movable


def _stays_movable(
    x: Launch, movable: set[Launch], writers: dict[Storage, list[Step]], constants: Collection[Storage],
    fixed: Collection[Storage], banned: Collection[Storage], sources: dict[Launch, int],
) -> bool:
    total = 0
    for s in dict.fromkeys(s.whole for s in x.buffers):
        if s in constants:
            total += _bytes(s)
        elif s in fixed or s in banned or s not in writers or not movable.issuperset(writers[s]):
            return False
        else:
            total += sum(sources.get(w, 0) for w in writers[s] if isinstance(w, Launch) and w is not x)
    sources[x] = total
    return total > 0 and all(_bytes(s) <= max(SMALL, MAX_GROWTH * total) for s in _written(x))


def _written(x: Launch) -> list[Storage]:
    accesses = [b.access for b in x.kernel.buffers if b.access != "scratch"]
    return [s for s, access in zip(x.buffers, accesses, strict=True) if access != "read"]


def _static(x: Launch) -> bool:
    """Whether all sizes of a launch are known."""
    sizes = (*x.arguments, x.tasks, x.work, x.scratch)
    return all(isinstance(n, int) for n in (*sizes, *(s.whole.size for s in x.buffers), *(s.offset for s in x.buffers)))


def _bytes(storage: Storage) -> int:
    return storage.size * _ITEMSIZE[storage.dtype] if isinstance(storage.size, int) else 0
