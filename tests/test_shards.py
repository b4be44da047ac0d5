"""The parts of `make test-full SHARD=I/N`."""

import pytest
from conftest import in_shard, parse_shard


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
