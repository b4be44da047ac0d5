"""Golden text files: `golden(name, text)` compares with tests/golden/<name>; `pytest --update-golden` rewrites them.

``pytest --shard 3/16`` runs the third of 16 parts of the tests, which together are all of them. ``pytest --shuffle 1`` takes the
files, and the tests of each, in a random order: no test may need another, or leave behind what another sees (`isolated`).
"""

from collections import defaultdict
from pathlib import Path
from random import Random
from zlib import crc32

import pytest

from hybrid.passes import always_verify
from tests import isolation

GOLDEN = Path(__file__).parent / "golden"


def parse_shard(text):
    """(part, count) of a text such as 3/16."""
    part, _, count = text.partition("/")
    if not (part.isdecimal() and count.isdecimal() and 1 <= int(part) <= int(count)):
        raise ValueError(f"a shard is I/N with I from 1 to N, not {text!r}")
    return int(part), int(count)


def in_shard(name, part, count):
    """Whether a test belongs to a part: by its name, so that new tests don't move others."""
    return crc32(name.encode()) % count == part - 1


def pytest_collection_modifyitems(config, items):
    """Leave out the tests of other parts, and shuffle the rest where that is asked for."""
    part, count = config.getoption("--shard")
    others = [item for item in items if not in_shard(item.nodeid, part, count)]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if in_shard(item.nodeid, part, count)]
    seed = config.getoption("--shuffle")
    if seed is not None:
        items[:] = shuffled(items, [item.path for item in items], seed)


def shuffled(items, groups, seed):
    """The items in a random order in which those of a group stay together: what a file's fixtures made is made once."""
    random, members = Random(seed), defaultdict(list)
    for item, group in zip(items, groups, strict=True):
        members[group].append(item)
    lists = list(members.values())
    random.shuffle(lists)
    for part in lists:
        random.shuffle(part)
    return [item for part in lists for item in part]


@pytest.fixture(autouse=True)
def isolated(request):
    """Begin with random numbers of its own; fail a test that leaves the process otherwise than it found it."""
    isolation.seed(request.node.nodeid, request.module)
    before = isolation.state()
    yield
    isolation.wait_for_threads(before["threads"])
    left = isolation.changed(before, isolation.state())
    assert not left, "this test leaves behind\n" + "\n".join(left)


@pytest.fixture
def verified():
    """The verifier runs after every pass over a graph."""
    with always_verify():
        yield


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite the files in tests/golden that differ")
    parser.addoption("--fuzz-seconds", type=int, default=12, help="how long random graphs are tested (12)")
    parser.addoption("--shard", type=parse_shard, default=(1, 1), metavar="I/N", help="run part I of N only")
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run files, and the tests of each, in a random order")
    parser.addoption("--fuzz-seed", type=int, default=20261121, help="the first seed of the random graphs")


@pytest.fixture
def golden(request):
    """A function that asserts that a text equals a golden file."""

    def check(name, text):
        path, text = GOLDEN / name, text.rstrip("\n") + "\n"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        expected = (
            path.read_text(encoding="utf-8") if path.exists() else f"<no file {path}: run pytest --update-golden>"
        )
        assert text == expected

    return check
