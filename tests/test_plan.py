"""The memory plan never lets two live temporaries overlap, and reuses what is free."""

import numpy as np
import pytest

from jit.plan import ALIGNMENT, Interval, place
from jit.recipe import size_from_json, size_to_json
from ndarray.dims import symbol


def overlap(a, b):
    return a.first <= b.last and b.first <= a.last


@pytest.mark.parametrize("seed", range(20))
def test_live_temporaries_do_not_overlap(seed):
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 40, 60)
    sizes, lengths = rng.integers(0, 5000, 60), rng.integers(0, 9, 60)
    intervals = [Interval(int(s), int(f), int(f + n)) for s, f, n in zip(sizes, first, lengths)]
    placement = place(intervals)
    for i, a in enumerate(intervals):
        assert placement.offsets[i] % ALIGNMENT == 0
        assert placement.offsets[i] + a.size <= placement.total
        for j, b in enumerate(intervals[:i]):
            if overlap(a, b):
                p, q = placement.offsets[i], placement.offsets[j]
                assert p + a.size <= q or q + b.size <= p, (a, b)


def test_a_chain_needs_two_temporaries_at_a_time():
    placement = place([Interval(1000, i, i + 1) for i in range(50)])
    assert placement.total == 2 * 1024
    assert placement.sum == 50 * 1024


def test_planning_many_temporaries_is_quick_enough_to_finish():
    intervals = [Interval(64 * (i % 37 + 1), i, i + i % 11) for i in range(20_000)]
    assert place(intervals).total < 37 * 64 * 12


SIZES = [lambda n: n, lambda n: 4 * n + 3, lambda n: (n + 3) // 2 * 5, lambda n: (n + 1) % 4, lambda n: 7]


@pytest.mark.parametrize("make", SIZES)
def test_sizes_survive_json(make):
    n = symbol("n", 12)
    assert str(size_from_json(size_to_json(make(n)))) == str(make(n))


def test_what_comes_late_and_is_large_does_not_make_holes():
    """It doesn't fit the holes that smaller ones leave; placed first, it needs no more than is alive at a time."""
    intervals = [Interval(32000, 0, 1), Interval(3200, 1, 3), Interval(64000, 2, 3)]
    placement = place(intervals)
    assert placement.total == 64000 + 3200
    for i, a in enumerate(intervals):
        for j, b in enumerate(intervals[:i]):
            p, q = placement.offsets[i], placement.offsets[j]
            assert not overlap(a, b) or p + a.size <= q or q + b.size <= p
