"""What a function reads besides its arguments: variables outside it, and what its Blocks and objects hold.

A trace bakes in whatever Python values the function meets. `Surroundings` finds where such values stand: closure cells,
globals and default arguments of the function and of the user's functions and methods that it calls by name or that Python
calls for it (properties, ``__getitem__`` ...), or finds in containers and attributes; of Blocks, objects, classes and modules
found there, those attributes whose names the code mentions. ``read()`` gives the present values and ``key(values)`` what of
them selects a program.
"""

from __future__ import annotations

import array
import collections
import functools
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ndarray.array import NDArray

from .signature import SCALARS
from .source import is_library_file

__all__ = ["Surroundings", "is_open"]

_IS_SCALAR = frozenset(SCALARS)
_MAPPINGS = (dict, types.MappingProxyType)
_SEQUENCES = (list, tuple, collections.deque)
_CONTAINERS = (*_SEQUENCES, *_MAPPINGS, set, frozenset)
_BUFFERS = (bytearray, array.array)
_METHODS = (types.FunctionType, staticmethod, classmethod, property, functools.cached_property)
_UNREAD = frozenset({
    "__init__", "__new__", "__post_init__", "__init_subclass__", "__set_name__", "__setattr__", "__del__", "__repr__", "__str__"})
"""Special methods that make or show an object: what they mention is not what the function reads."""

COMPARED = 10_000
"""A list, dict or set of up to this many items is compared by content at each call, a longer one by identity and length."""

COMPARED_BYTES = 1 << 16
"""A NumPy array of up to this many bytes is compared by content at each call, a larger one by identity."""

KNOWN = 256
"""Containers whose content is remembered, so that it is looked at again only where an item is another object."""

_DEPTH = 4  # of functions calling functions, and of objects within objects


class Surroundings:
    """The variables outside some functions that they read, and what `blocks` (path: Block) hold besides plain values.

    readers, names  each variable: how it is read, and what it is called
    blocks          all Blocks found, with a prefix for their attributes

    `objects` are arguments whose methods and attributes the functions may read, `conditions` further values by name. The
    functions `aside` are not looked into.
    """

    def __init__(
        self, functions: Iterable[Callable], block: Any = None, objects: Iterable[Any] = (),
        conditions: Iterable[tuple[str, Callable[[], Any]]] = (), aside: Iterable[Callable] = (),
    ):
        self.readers: list[Callable[[], Any]] = []
        self.names: list[str] = []
        self.blocks: list[tuple[str, Any]] = []
        self._mentioned: set[str] = set()  # attribute names in the code
        self._seen: set[Any] = set(aside)
        self._objects: list[Any] = []  # whose methods may be called
        # contents of containers of numbers, texts and tuples of such: (ids of the items, container, items, content) by its id
        # and the depth at which it stands (what lies too deep is compared by identity)
        self._known: dict[tuple[int, int], tuple[tuple[int, ...], Any, tuple, tuple]] = {}
        for function in functions:
            self._add(function, 0)
        if block is not None:
            self._found("", block)
        for value in objects:
            self._found(f"{type(value).__name__}.", value)
        for name, reader in conditions:
            self.condition(name, reader)
        known = -1
        while known != (known := len(self._mentioned) + len(self._seen)):  # methods mention names of further methods
            for value in list(self._objects):
                self._add_methods(value)
            for prefix, root in list(self.blocks):
                self._add_held(prefix, root)

    # -- gathering
    def condition(self, name: str, reader: Callable[[], Any]) -> None:
        """Watch one more value."""
        self.names.append(name)
        self.readers.append(reader)

    def _add(self, function: Any, depth: int) -> None:
        function = getattr(function, "__func__", function)
        function = getattr(function, "__wrapped__", function) if not isinstance(function, types.FunctionType) else function
        if not isinstance(function, types.FunctionType) or function in self._seen or depth > _DEPTH:
            return
        self._seen.add(function)
        code = function.__code__
        names = _code_names(code)
        self._mentioned.update(names)
        for name, cell in zip(code.co_freevars, function.__closure__ or ()):
            self._watch(("cell", id(cell)), name, functools.partial(_contents, cell), depth)
        for name, value in _defaults(function):
            self._watch(("default", function, name), name, functools.partial(_itself, value), depth)
        space = function.__globals__
        for name in names:
            if name in space:
                self._watch(("global", id(space), name), name, functools.partial(space.get, name), depth)

    def _watch(self, place: tuple, name: str, reader: Callable[[], Any], depth: int) -> None:
        if place in self._seen:
            return
        self._seen.add(place)
        value = reader()
        if isinstance(value, types.BuiltinFunctionType):
            return
        if isinstance(value, types.FunctionType):
            if is_library_file(value.__code__.co_filename) or _is_installed(value.__code__.co_filename):
                return
            self._add(value, depth + 1)
        if isinstance(value, types.ModuleType) and not _is_users_module(value):
            return
        if isinstance(value, type) and not is_open(value):
            return
        self.condition(name, reader)
        self._found(f"{name}.", value)

    def _found(self, prefix: str, value: Any, depth: int = 0) -> None:
        """Blocks and objects in a value: their methods, and what they hold, may be read."""
        kind = type(value)
        if kind in _IS_SCALAR or depth > _DEPTH:
            return
        if isinstance(value, (*_SEQUENCES, *_MAPPINGS)):
            if len(value) <= COMPARED:
                for item in value.values() if isinstance(value, _MAPPINGS) else value:
                    if type(item) not in _IS_SCALAR:
                        self._found(prefix, item, depth + 1)
        elif kind is types.FunctionType:
            self._add_if_users(value)
        elif kind in _BOUND:
            for item in _BOUND[kind](value):
                self._found(prefix, item, depth + 1)
        elif id(value) not in self._seen:
            self._seen.add(id(value))
            if _is_block(value):
                self.blocks.append((prefix, value))
            elif isinstance(value, (type, types.ModuleType)) or is_open(kind):
                self._objects.append(value)
                for item in _attributes(value).values():
                    self._found(prefix, item, depth + 1)

    def _add_methods(self, value: Any) -> None:
        """The user's functions that are called as attributes of a class, an object or a module, or by Python's syntax."""
        if isinstance(value, types.ModuleType):
            space, called = vars(value), set[str]()
        else:
            space = _class_attributes(_class_of(value))
            called = _special(space)
        for name in sorted((self._mentioned | called) & space.keys()):
            if isinstance(space[name], _METHODS) or isinstance(value, types.ModuleType):
                self._add_if_users(space[name])

    def _add_if_users(self, function: Any) -> None:
        function = _function_of(function)
        code = getattr(function, "__code__", None)
        if code is not None and not is_library_file(code.co_filename) and not _is_installed(code.co_filename):
            self._add(function, 1)

    def _add_held(self, prefix: str, root: Any) -> None:
        """What the Blocks under `root` run, and what they hold that may change in place."""
        for path, block in root._walk():
            special = _special(_class_attributes(type(block)))
            for name in ("forward", "hybrid_forward", *sorted(self._mentioned | special)):
                method = getattr(type(block), name, None)
                if isinstance(method, _METHODS):
                    self._add_if_users(method)
            space, children = vars(block), {id(c) for c in block._children.values()}  # which `root._walk()` reaches
            for name in sorted(self._mentioned & space.keys()):
                value = space[name]
                if id(value) in children:
                    continue
                place = ("attribute", id(space), name)
                if type(value) is types.FunctionType:
                    self._add_if_users(value)
                if not name.startswith("__") and place not in self._seen and _may_change(value):
                    self._seen.add(place)
                    self.condition(f"{prefix}{path}{'.' if path else ''}{name}", functools.partial(space.get, name))
                    self._found(f"{prefix}{path}.{name}.", value)

    # -- reading
    def read(self) -> list[Any]:
        """The present values."""
        return [r() for r in self.readers]

    def key(self, values: Iterable[Any]) -> tuple:
        """A hashable key: numbers and texts by value, arrays by shape and dtype (they are inputs, read anew at each
        call), lists, dicts and sets by content, objects by identity and the attributes that the code mentions."""
        return tuple([self._key(v) for v in values])

    def _key(self, value: Any) -> Any:
        kind = type(value)
        if kind is NDArray:
            data = value._data
            return (data.shape, data.dtype, value._device)
        return self._content(value, 0)

    def _content(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in _IS_SCALAR:
            return (kind, value)
        if isinstance(value, _CONTAINERS):
            known = self._known.get((id(value), depth))
            if kind is tuple and known is not None and known[1] is value:
                return known[3]  # neither it nor anything in it can change
            if len(value) > COMPARED or depth > _DEPTH:
                return (_Same(value), len(value))
            if isinstance(value, (set, frozenset)):
                return (kind, frozenset(value))
            items = (*value, *value.values()) if isinstance(value, _MAPPINGS) else tuple(value)
            same = tuple(map(id, items))
            if known is not None and known[0] == same and known[1] is value:
                return known[3]
            if isinstance(value, _MAPPINGS):
                found: tuple = (kind, *[(k, self._content(v, depth + 1)) for k, v in value.items()])
            else:
                found = (kind, *[self._content(v, depth + 1) for v in value])
            if all(type(v) in _IS_SCALAR or self._is_constant(v, depth + 1) for v in items):
                if len(self._known) >= KNOWN:
                    self._known.clear()
                self._known[id(value), depth] = same, value, items, found
            return found
        if kind is np.ndarray and value.nbytes <= COMPARED_BYTES and not value.dtype.hasobject:
            return (value.shape, value.dtype.str, value.tobytes())
        if kind in _BUFFERS and len(value) <= COMPARED:
            return (kind, getattr(value, "typecode", ""), bytes(value))
        if kind in _BOUND and depth <= _DEPTH:
            return (kind, *[self._content(item, depth + 1) for item in _BOUND[kind](value)])
        if depth <= _DEPTH and (isinstance(value, (type, types.ModuleType)) or is_open(kind)):
            held = _attributes(value)
            return (_Same(value), *[(n, self._content(held[n], depth + 1)) for n in sorted(self._mentioned & held.keys())])
        return _Same(value)

    def _is_constant(self, value: Any, depth: int) -> bool:
        """Whether the content of this very object, as it is seen at that depth, is always the same."""
        if type(value) is not tuple:
            return False
        known = self._known.get((id(value), depth))
        return depth > _DEPTH or (known is not None and known[1] is value)


class _Same:
    """A key that is equal for the very same object only. It keeps the object alive, so that no other one gets its place."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(other) is _Same and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)

    def __repr__(self) -> str:
        return f"<{type(self.value).__name__} at {id(self.value):#x}>"


def _may_change(value: Any) -> bool:
    """Whether a value can be changed in place in a way that a trace would have to know of."""
    if isinstance(value, (list, *_MAPPINGS, set, collections.deque, np.ndarray, *_BUFFERS)):
        return True
    if isinstance(value, (tuple, frozenset)):
        return any(map(_may_change, value))
    if type(value) in _BOUND:
        return any(map(_may_change, _BOUND[type(value)](value)))
    return (isinstance(value, (type, types.ModuleType)) and _is_users(value)) or is_open(type(value))


_BOUND: dict[type, Callable[[Any], tuple]] = {
    types.MethodType: lambda m: (m.__func__, m.__self__),
    functools.partial: lambda p: (p.func, *p.args, *p.keywords.items()),
}
"""Functions with arguments given beforehand: what they consist of."""


def _function_of(member: Any) -> Any:
    """The function behind a method or property of a class."""
    if isinstance(member, property):
        return member.fget
    if isinstance(member, functools.cached_property):
        return member.func
    return getattr(member, "__func__", member)


def _attributes(value: Any) -> dict[str, Any]:
    """What an object, class or module holds itself; functions, which don't change, aside."""
    held = getattr(value, "__dict__", None)
    found = dict(held) if held else {}
    for name in _slots(type(value)):
        if hasattr(value, name):
            found[name] = getattr(value, name)
    if isinstance(value, type):
        found = {n: v for n, v in _class_attributes(value).items() if not isinstance(v, _METHODS)}
    return found


_known_slots: dict[type, tuple[str, ...]] = {}


def _slots(cls: type) -> tuple[str, ...]:
    """Names of what objects of a class hold beside their `__dict__`."""
    known = _known_slots.get(cls)
    if known is None:
        known = _known_slots[cls] = _find_slots(cls)
    return known


def _find_slots(cls: type) -> tuple[str, ...]:
    names: list[str] = []
    for base in cls.__mro__:
        slots = base.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else list(slots)
    return tuple([n for n in names if not n.startswith("__")])


def _class_attributes(cls: type) -> dict[str, Any]:
    """Attributes of a class and its bases, without what Python puts there."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__[:-1]):
        found.update(base.__dict__)
    return {n: v for n, v in found.items()
            if not (n.startswith("__") and n.endswith("__")) or isinstance(v, types.FunctionType)}


def _special(names: Iterable[str]) -> set[str]:
    """Those methods among some that Python calls for an expression."""
    return {n for n in names if n.startswith("__") and n.endswith("__")} - _UNREAD


def _class_of(value: Any) -> type:
    return value if isinstance(value, type) else type(value)


def _is_block(value: Any) -> bool:
    from .block import Block

    return isinstance(value, Block)


_open: dict[type, bool] = {}


def is_open(cls: type) -> bool:
    """Whether objects of a class are looked into: not NumPy's, Python's own types or this library's."""
    known = _open.get(cls)
    if known is None:
        known = _open[cls] = _look(cls)
    return known


def _look(cls: type) -> bool:
    if not (hasattr(cls, "__dict__") or _slots(cls)) or cls.__module__ == "builtins":
        return False
    if issubclass(cls, (type, types.ModuleType, types.FunctionType, types.MethodType, functools.partial)):
        return False
    return _is_users_name(cls.__module__)


@functools.cache
def _is_users_name(module: str) -> bool:
    return module.split(".")[0] not in ("numpy", "ndarray", "hybrid", "jit", "kvstore", "blocks", "ml_dtypes", "threading")


def _is_users(value: Any) -> bool:
    return _is_users_module(value) if isinstance(value, types.ModuleType) else is_open(value)


@functools.cache
def _is_users_file(filename: str) -> bool:
    import os

    standard = os.path.dirname(os.__file__) + os.sep
    return not (is_library_file(filename) or _is_installed(filename) or filename.startswith(standard))


def _is_users_module(module: types.ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and _is_users_file(file)


def _defaults(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """The default arguments through which a function reaches objects (plain data and arrays can't be other ones later)."""
    code, values = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(values) : code.co_argcount]
    for name, value in [*zip(names, values), *(function.__kwdefaults__ or {}).items()]:
        if type(value) not in _IS_SCALAR and not isinstance(value, NDArray):
            yield name, value


def _itself(value: Any) -> Any:
    return value


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet assigned
        return None


@functools.cache
def _code_names(code: types.CodeType) -> tuple[str, ...]:
    """Names of globals and attributes that code mentions, in order."""
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names += _code_names(constant)
    return tuple(dict.fromkeys(names))


def _is_installed(filename: str) -> bool:
    return "site-packages" in filename or filename.startswith("<frozen")
