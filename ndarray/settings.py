"""Settings: one table, read from the environment, changed for a while by a context manager.

    name                 values            meaning
    HYBRID_DEBUG         0-6 (0)           how much is checked and printed, each level with all below it (see there)
    HYBRID_CACHE_DIR     folder, or empty  where compiled objects are kept ($XDG_CACHE_HOME/hybrid, else
                                           ~/.cache/hybrid); empty: nothing is kept on disk
    HYBRID_NUM_THREADS   1-1024            workers of the native thread pool (the cores this process may use)
    HYBRID_EAGER_KERNELS 0 or 1 (1)        whether eager work on large arrays goes through compiled kernels
    HYBRID_WINOGRAD      0, 2 or 4 (4)     the largest tile of outputs by which 3x3 convolutions are computed in fewer
                                           products (docs/numerics.md); 0: none. Read when a program is compiled
    HYBRID_TUNE          0 or 1 (0)        whether schedules of products and convolutions are chosen by timing the cost
                                           model's best ones, once for each problem; the choice is kept in the cache
                                           folder. Results are the same, bit for bit
    HYBRID_CUDA_LIBRARIES    auto, none, or names (auto): which libraries programs of a GPU may use, of cublaslt and cudnn;
                             auto: those at hand; none: all kernels are generated
    HYBRID_MATMUL_PRECISION  float32 or tf32 (float32): how a GPU multiplies float32 matrices (see `set_matmul_precision`)

The ladder of HYBRID_DEBUG. Everything goes to standard error; the compiler's rungs show what is compiled, so from 3 on
recipes kept on disk are not used.

    1   why something is traced again, the entries of each cache key with hit or miss, and a verifier after every graph
        pass and over every kernel
    2   the graph as traced and after each pass that changed it
    3   the fused groups, the user's lines, and why neighbours were not fused
    4   the launches, and the loop IR of their kernels
    5   the LLVM IR
    6   the assembly

The time of each kernel is told by ``net.explain(x)``.

``settings.debug``, ``settings.cache_dir`` and ``settings.num_threads`` give the values in force, and
``with settings(HYBRID_DEBUG=2): ...`` changes them for the code inside (in this thread or task only).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

__all__ = ["SETTINGS", "Setting", "Settings", "set_matmul_precision", "settings"]


@dataclass(frozen=True)
class Setting:
    """One row of the table: `parse` turns text (or a value of the right type) into the value, or raises ValueError."""

    name: str
    default: Callable[[], Any]
    parse: Callable[[Any], Any]
    expected: str


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise ValueError
        number = int(value)
        if not low <= number <= high:
            raise ValueError
        return number

    return parse


def _tile(value: Any) -> int:
    number = _integer(0, 4)(value)
    if number not in (0, 2, 4):
        raise ValueError
    return number


def _folder(value: Any) -> str:
    text = os.fspath(value) if value is not None else ""
    if not isinstance(text, str) or "\0" in text:
        raise ValueError
    return os.path.abspath(os.path.expanduser(text)) if text.strip() else ""


def _libraries(value: Any) -> frozenset[str]:
    if isinstance(value, frozenset):
        return value
    known = {"cublaslt", "cudnn"}
    names = {n.strip().lower() for n in value.split(",")} - {""}
    if names == {"auto"}:
        return frozenset(known)
    if names in ({"none"}, set()):
        return frozenset()
    if not names <= known:
        raise ValueError
    return frozenset(names)


def _precision(value: Any) -> str:
    if value not in ("float32", "tf32"):
        raise ValueError
    return value


def _cache_dir() -> str:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "hybrid")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


SETTINGS = {
    s.name: s
    for s in (
        Setting("HYBRID_DEBUG", lambda: 0, _integer(0, 6), "an integer from 0 to 6"),
        Setting("HYBRID_CACHE_DIR", _cache_dir, _folder, "the path of a folder, or an empty text for no cache"),
        Setting("HYBRID_NUM_THREADS", _cores, _integer(1, 1024), "an integer from 1 to 1024"),
        Setting("HYBRID_EAGER_KERNELS", lambda: 1, _integer(0, 1), "0 or 1"),
        Setting("HYBRID_WINOGRAD", lambda: 4, _tile, "0, 2 or 4"),
        Setting("HYBRID_TUNE", lambda: 0, _integer(0, 1), "0 or 1"),
        Setting("HYBRID_CUDA_LIBRARIES", lambda: _libraries("auto"), _libraries, "auto, none, or names among cublaslt and cudnn"),
        Setting("HYBRID_MATMUL_PRECISION", lambda: "float32", _precision, "float32 or tf32"),
    )
}
"""Every setting by name."""


_NO_OVERRIDES: Mapping[str, Any] = MappingProxyType({})


class Settings:
    """The values in force: an override of a ``with`` block, else the environment, else the default."""

    __slots__ = ("_overrides", "_parsed")

    def __init__(self) -> None:
        self._overrides: ContextVar[Mapping[str, Any]] = ContextVar("settings", default=_NO_OVERRIDES)
        self._parsed: dict[str, tuple[str | None, Any]] = {}

    def get(self, name: str) -> Any:
        """The value of one setting. Raises ValueError naming the variable, what it holds and what it may hold."""
        overrides = self._overrides.get()
        if name in overrides:
            return overrides[name]
        text = os.environ.get(name)
        known = self._parsed.get(name)
        if known is None or known[0] != text:
            setting = _setting(name)
            known = text, setting.default() if text is None else _parse(setting, text, "the environment variable ")
            self._parsed[name] = known
        return known[1]

    @property
    def debug(self) -> int:
        """HYBRID_DEBUG."""
        return self.get("HYBRID_DEBUG")

    @property
    def cache_dir(self) -> str:
        """HYBRID_CACHE_DIR; empty where nothing is to be kept."""
        return self.get("HYBRID_CACHE_DIR")

    @property
    def num_threads(self) -> int:
        """HYBRID_NUM_THREADS."""
        return self.get("HYBRID_NUM_THREADS")

    @property
    def eager_kernels(self) -> int:
        """HYBRID_EAGER_KERNELS."""
        return self.get("HYBRID_EAGER_KERNELS")

    @property
    def winograd(self) -> int:
        """HYBRID_WINOGRAD."""
        return self.get("HYBRID_WINOGRAD")

    @property
    def tune(self) -> int:
        """HYBRID_TUNE."""
        return self.get("HYBRID_TUNE")

    @property
    def cuda_libraries(self) -> frozenset[str]:
        """HYBRID_CUDA_LIBRARIES: names of libraries that may be used."""
        return self.get("HYBRID_CUDA_LIBRARIES")

    @property
    def matmul_precision(self) -> str:
        """HYBRID_MATMUL_PRECISION."""
        return self.get("HYBRID_MATMUL_PRECISION")

    @contextmanager
    def __call__(self, **values: Any) -> Iterator[Settings]:
        """Change settings for the code inside the ``with`` block."""
        parsed = {name: _parse(_setting(name), value) for name, value in values.items()}
        token = self._overrides.set({**self._overrides.get(), **parsed})
        try:
            yield self
        finally:
            self._overrides.reset(token)

    def __repr__(self) -> str:
        return "settings(" + ", ".join(f"{name}={self.get(name)!r}" for name in SETTINGS) + ")"


def _setting(name: str) -> Setting:
    try:
        return SETTINGS[name]
    except KeyError:
        raise ValueError(f"no setting {name!r}; the settings are {', '.join(SETTINGS)}") from None


def _parse(setting: Setting, value: Any, where: str = "") -> Any:
    try:
        return setting.parse(value)
    except (ValueError, TypeError):
        raise ValueError(f"{where}{setting.name} is {value!r}; expected {setting.expected}") from None


settings = Settings()


def set_matmul_precision(precision: str) -> str:
    """How GPUs multiply float32 matrices, convolve and attend from now on: "float32", or "tf32", which rounds what is
    multiplied to 10 bits and is several times as fast; sums are float32 either way. Returns what held before.

    Half precision is chosen by dtypes: see `blocks.amp`. Programs are compiled anew where the precision changed.

    >>> nd.set_matmul_precision("float32")
    'float32'
    """
    before = settings.matmul_precision
    os.environ["HYBRID_MATMUL_PRECISION"] = _parse(SETTINGS["HYBRID_MATMUL_PRECISION"], precision, "set_matmul_precision: ")
    for tell in changed:
        tell()
    return before


changed: list[Callable[[], None]] = []
"""Called when a setting has been changed for the whole process."""
