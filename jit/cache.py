"""Compiled objects on disk: one file an entry, safe under crashes, concurrent writers and foreign content.

The key is a list of named entries (what is compiled, by what, for which machine); its SHA-256 is the file's name. Each
entry is logged, so that a miss explains itself. A file is written under a temporary name and renamed, carries a
checksum, and the folder is kept near a size bound by removing what was used longest ago: not at each writing, which
would look at every file each time, but once for each sixteenth of the bound that is written. Whatever goes wrong with
the folder (missing, full, read-only, damaged files) is logged and treated as a miss: a cache never breaks a run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import struct
import tempfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ndarray.settings import settings

__all__ = ["MAXIMUM_BYTES", "DiskCache", "key_of"]

log = logging.getLogger("hybrid.cache")

MAXIMUM_BYTES = 1 << 29
"""The folder's size bound. Between two looks at the folder it may be passed by a sixteenth or two."""

_MAGIC = b"HYBRIDC2"
_HEADER = struct.Struct("<8sQQ32s")  # magic, length of the JSON part, length of the object, SHA-256 of both
_SUFFIX = ".hybrid"


def _level() -> int:
    return logging.WARNING if settings.debug >= 1 else logging.DEBUG


def key_of(entries: Mapping[str, Any]) -> str:
    """The SHA-256 of named entries; logs each, visibly from HYBRID_DEBUG=1 on."""
    text = json.dumps({k: str(v) for k, v in entries.items()}, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()
    for name, value in entries.items():
        log.log(_level(), "key %s: %s = %s", key[:12], name, value)
    return key


class DiskCache:
    """Objects under `folder`, each a JSON-able description and a bytes payload."""

    def __init__(self, folder: str | os.PathLike[str], maximum_bytes: int = MAXIMUM_BYTES):
        self.folder, self.maximum_bytes = Path(folder), maximum_bytes

    def _path(self, key: str) -> Path:
        return self.folder / (key + _SUFFIX)

    def load(self, key: str) -> tuple[Any, bytes] | None:
        """The entry, or None where there is none that is whole."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            log.log(_level(), "miss %s: not there", key[:12])
            return None
        except OSError as error:
            log.warning("cache entry %s can't be read (%s); compiling instead", path, error)
            return None
        try:
            magic, described, size, digest = _HEADER.unpack_from(data)
            body = data[_HEADER.size:]
            if magic != _MAGIC or len(body) != described + size or hashlib.sha256(body).digest() != digest:
                raise ValueError("wrong magic, length or checksum")
            name, description = json.loads(body[:described])
            if name != key:
                raise ValueError(f"it holds {str(name)[:12]}")  # copied or renamed
        except (struct.error, ValueError, TypeError) as error:
            log.warning("cache entry %s is damaged (%s); compiling instead", path, error)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        log.log(_level(), "hit %s", key[:12])
        return description, body[described:]

    def store(self, key: str, description: Any, payload: bytes) -> bool:
        """Write an entry; says whether it is on disk now."""
        described = json.dumps([key, description], separators=(",", ":")).encode()
        body = described + payload
        header = _HEADER.pack(_MAGIC, len(described), len(payload), hashlib.sha256(body).digest())
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor, name = tempfile.mkstemp(prefix=".writing-", dir=self.folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(header)
                    file.write(body)
                os.replace(name, self._path(key))
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(name)
                raise
            if self._is_turn(key, len(body)):
                self._trim()
        except OSError as error:
            log.warning("cache folder %s can't be written (%s); going on without", self.folder, error)
            return False
        return True

    def _is_turn(self, key: str, size: int) -> bool:
        """Whether the writer of an entry looks at the whole folder: as likely as the entry is large, by its key, so that all
        processes together do so once for each sixteenth of the bound and need not know of each other."""
        return zlib.crc32(key.encode()) * (self.maximum_bytes // 16) < size << 32

    def _trim(self) -> None:
        """Remove the entries used longest ago until the folder is under its bound, and what killed writers left."""
        entries, total, now = [], 0, time.time()
        with os.scandir(self.folder) as found:
            for item in found:
                with contextlib.suppress(OSError):
                    info = item.stat()
                    if item.name.startswith(".writing-"):
                        if now - info.st_mtime > 3600:
                            os.unlink(item.path)
                    elif item.name.endswith(_SUFFIX):
                        entries.append((info.st_mtime, info.st_size, item.path))
                        total += info.st_size
        for _, size, path in sorted(entries):
            if total <= self.maximum_bytes:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
            total -= size
