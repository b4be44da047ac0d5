"""The disk cache returns what was stored, and nothing that goes wrong with its folder reaches the caller."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jit.cache import DiskCache, key_of

PAYLOAD = bytes(range(256)) * 40


@pytest.fixture
def cache(tmp_path):
    return DiskCache(tmp_path / "cache")


def test_what_was_stored_is_loaded(cache):
    assert cache.load("k") is None
    assert cache.store("k", {"a": [1, 2]}, PAYLOAD)
    assert cache.load("k") == ({"a": [1, 2]}, PAYLOAD)


def test_keys_differ_by_entry_and_not_by_order():
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert key_of({"a": 1, "b": 2}) != key_of({"a": 2, "b": 1})


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "foreign", "length"])
def test_a_damaged_file_is_a_miss_and_is_removed(cache, damage):
    cache.store("k", {"a": 1}, PAYLOAD)
    (path,) = cache.folder.glob("*.hybrid")
    data = bytearray(path.read_bytes())
    if damage == "truncate":
        data = data[: len(data) // 2]
    elif damage == "flip":
        data[-7] ^= 1
    elif damage == "empty":
        data = b""
    elif damage == "foreign":
        data = b"something else entirely" * 9
    else:
        data[8:16] = (1 << 60).to_bytes(8, "little")
    path.write_bytes(data)
    assert cache.load("k") is None
    assert not path.exists()
    assert cache.store("k", {"a": 1}, PAYLOAD)
    assert cache.load("k") == ({"a": 1}, PAYLOAD)


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    cache = DiskCache(blocker / "cache")
    assert not cache.store("k", {}, b"x")
    assert cache.load("k") is None


def test_a_full_disk_is_no_error_and_leaves_nothing_behind(cache, monkeypatch):
    cache.folder.mkdir()

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert not cache.store("k", {}, PAYLOAD)
    assert list(cache.folder.iterdir()) == []


def test_the_oldest_entries_go_when_the_bound_is_reached(tmp_path):
    cache = DiskCache(tmp_path, maximum_bytes=3 * len(PAYLOAD))
    for i in range(6):
        cache.store(f"k{i}", {}, PAYLOAD)
        os.utime(tmp_path / f"k{i}.hybrid", (1000 + i, 1000 + i))
    left = {p.stem for p in tmp_path.glob("*.hybrid")}
    assert "k5" in left
    assert "k0" not in left
    assert sum(p.stat().st_size for p in tmp_path.glob("*.hybrid")) <= 3 * len(PAYLOAD)


def test_the_folder_is_looked_at_seldom_and_stays_near_its_bound(tmp_path, monkeypatch):
    looks, trim = [], DiskCache._trim
    monkeypatch.setattr(DiskCache, "_trim", lambda cache: looks.append(cache) or trim(cache))
    cache, size = DiskCache(tmp_path, maximum_bytes=40 * len(PAYLOAD)), []
    for i in range(160):
        cache.store(f"k{i}", {}, PAYLOAD)
        size.append(sum(p.stat().st_size for p in tmp_path.glob("*.hybrid")))
    assert 45 <= len(looks) <= 85  # 160 / (40 / 16) are expected
    assert max(size) <= 1.3 * cache.maximum_bytes
    looks.clear()
    cache = DiskCache(tmp_path)
    for i in range(40):
        cache.store(f"k{i}", {}, PAYLOAD)
    assert len(looks) <= 1


def test_what_a_killed_writer_left_long_ago_goes(tmp_path):
    new, old = tmp_path / ".writing-now", tmp_path / ".writing-of-yesterday"
    new.write_bytes(b"half an entry")
    old.write_bytes(b"half an entry")
    os.utime(old, (1000, 1000))
    DiskCache(tmp_path, maximum_bytes=16).store("k", {}, PAYLOAD)
    assert new.exists() and not old.exists()


def test_a_writer_killed_half_way_leaves_no_entry(tmp_path):
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2])\n"
        "from jit.cache import DiskCache\n"
        "os.replace = lambda *a: os._exit(9)\n"
        "DiskCache(sys.argv[1]).store('k', {}, b'x' * 1000)"
    )
    root = Path(__file__).resolve().parent.parent
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path), str(root)]).returncode == 9
    cache = DiskCache(tmp_path)
    assert cache.load("k") is None
    assert cache.store("k", {}, b"y")
    assert cache.load("k") == ({}, b"y")


def test_two_writers_of_one_key_leave_one_whole_entry(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from jit.cache import DiskCache\n"
        "c = DiskCache(sys.argv[1])\n"
        "for i in range(60):\n"
        "    assert c.store('k', {'who': sys.argv[3]}, sys.argv[3].encode() * 5000)\n"
        "    d, p = c.load('k'); assert p == d['who'].encode() * 5000\n"
    )
    root = Path(__file__).resolve().parent.parent
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(root), who]) for who in "ab"]
    assert [w.wait() for w in writers] == [0, 0]
    assert len(list(tmp_path.iterdir())) == 1
