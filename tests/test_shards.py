"""The parts of `make test-full SHARD=I/N`, and `pytest --shuffle SEED`."""

import pytest
from conftest import in_shard, parse_shard, shuffled


def test_parts_are_all_of_the_tests_and_none_twice():
    names = [f"tests/test_{a}.py::test_{b}[{c}]" for a in "abcdef" for b in "ghijkl" for c in range(40)]
    for count in (1, 2, 7, 16):
        sizes = [sum(in_shard(n, part, count) for n in names) for part in range(1, count + 1)]
        assert sum(sizes) == len(names)
        assert all(sum(in_shard(n, part, count) for part in range(1, count + 1)) == 1 for n in names)
        assert min(sizes) > 0.5 * len(names) / count


@pytest.mark.parametrize("text", ["", "0/4", "5/4", "1", "a/b", "1/0", "-1/3"])
def test_what_is_no_part(text):
    with pytest.raises(ValueError, match="a shard is I/N"):
        parse_shard(text)
    assert parse_shard("3/16") == (3, 16)


def test_a_shuffled_order_keeps_files_together():
    items = [f"{file}{k}" for file in "abc" for k in range(9)]
    order = shuffled(items, [i[0] for i in items], 5)
    assert sorted(order) == items != order
    assert [i[0] for i in order[::9]] == [i[0] for i in order[8::9]]
    assert order == shuffled(items, [i[0] for i in items], 5) != shuffled(items, [i[0] for i in items], 6)
