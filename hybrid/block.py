"""Block and HybridBlock: what layers and models are made of.

A Block owns parameters and child Blocks (attributes register themselves), and computes in `forward`. A HybridBlock
computes with array functions only, so that `hybridize()` may trace it and run it as one compiled program.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

import ndarray as nd
from ndarray import NDArray
from ndarray.files import save_arrays
from ndarray.saving import load_named

from .backend import prepare_backend
from .epoch import raise_epoch
from .parameter import OwnParameters, Parameter, ParameterDict

__all__ = ["Block", "HookHandle", "HybridBlock", "static_attributes"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None), np.dtype, np.generic, slice, type(Ellipsis))
_INTERNAL = {"_children", "_own", "_hooks", "_pre_hooks", "_compiled", "_active", "_options", "_name"}


class HookHandle:
    """What registering a hook returns: ``detach()`` removes it; as a context manager, it leaves with the block."""

    def __init__(self, hooks: dict[int, Callable], key: int):
        self._hooks, self._key = hooks, key

    def detach(self) -> None:
        """Remove the hook."""
        self._hooks.pop(self._key, None)
        raise_epoch()

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()


class Block:
    """A layer or a model.

    A subclass makes its parameters and children in ``__init__`` (after ``super().__init__()``) by assigning them to
    attributes, and computes in ``forward(self, *args)``. Parameters get structured names from the attributes:
    ``features.0.weight``. `prefix` is accepted for Gluon 1 and has no meaning; `params` are parameters to share.
    """

    _children: dict[str, Block]
    _own: OwnParameters
    _hooks: dict[int, Callable]
    _pre_hooks: dict[int, Callable]

    def __init__(self, prefix: str | None = None, params: Mapping[str, Parameter] | None = None):
        put = object.__setattr__
        put(self, "_children", {})
        put(self, "_own", OwnParameters(self._register_parameter, params))
        put(self, "_hooks", {})
        put(self, "_pre_hooks", {})

    # -- registration

    def __setattr__(self, name: str, value: Any) -> None:
        try:
            children, own = self._children, self._own
        except AttributeError:
            if isinstance(value, (Block, Parameter)):
                raise RuntimeError(
                    f"{type(self).__name__}: call super().__init__() before assigning self.{name}"
                ) from None
            object.__setattr__(self, name, value)
            return
        if isinstance(value, Block):
            own.pop(name, None)
            children[name] = value
        elif isinstance(value, Parameter):
            children.pop(name, None)
            if name in own._shared:
                value = own._shared[name]
            own[name] = value
        else:
            if name in children or name in own:
                kind = "Block" if name in children else "Parameter"
                if value is not None:
                    raise TypeError(
                        f"{type(self).__name__}.{name} is a {kind}; replacing it with {type(value).__name__} would "
                        "lose it "
                        "(del the attribute first if that is meant)"
                    )
                children.pop(name, None)
                own.pop(name, None)
        object.__setattr__(self, name, value)
        raise_epoch()

    def __delattr__(self, name: str) -> None:
        self._children.pop(name, None)
        self._own.pop(name, None)
        object.__delattr__(self, name)
        raise_epoch()

    def _register_parameter(self, name: str, parameter: Parameter) -> None:
        self._own[name] = parameter
        if not hasattr(self, name):
            object.__setattr__(self, name, parameter)
        raise_epoch()

    def register_child(self, block: Block, name: str | None = None) -> None:
        """Make `block` a child, by default called by its number."""
        if not isinstance(block, Block):
            raise TypeError(f"{type(self).__name__}: a child must be a Block, got {type(block).__name__}")
        self._children[str(len(self._children)) if name is None else name] = block
        raise_epoch()

    @property
    def params(self) -> OwnParameters:
        """The parameters of this Block itself, without its children's."""
        return self._own

    @property
    def name(self) -> str:
        """The class's name in lower case."""
        return type(self).__name__.lower()

    @contextlib.contextmanager
    def name_scope(self) -> Iterator[Block]:
        """Nothing: names come from the structure. Accepted for Gluon 1."""
        yield self

    # -- parameters

    def collect_params(self, select: str | None = None) -> ParameterDict:
        """The parameters of this Block and its children, by structured name; `select` is a regular expression that
        names must match from their beginning (``".*weight|.*bias"``)."""
        pattern = re.compile(select) if select else None
        found = ParameterDict()
        for path, block in self._walk():
            for name, parameter in block._own.items():
                full = f"{path}.{name}" if path else name
                if full not in found and (pattern is None or pattern.match(full)):
                    found[full] = parameter
        named: set[int] = set()
        for full, parameter in found.items():
            if id(parameter) not in named:
                named.add(id(parameter))
                if len(full) >= len(parameter.path):
                    parameter.path = full
        return found

    def _walk(self, path: str = "") -> Iterator[tuple[str, Block]]:
        yield path, self
        for name, child in self._children.items():
            yield from child._walk(f"{path}.{name}" if path else name)

    def initialize(
        self,
        init: Any = None,
        device: Any = None,
        verbose: bool = False,
        force_reinit: bool = False,
        *,
        ctx: Any = None,
    ) -> None:
        """Initialize all parameters: with their own initializer, else with `init` (default ``Uniform(0.07)``), on
        `device` (or `ctx`; a list makes a copy on each). Unknown shapes wait for the first batch."""
        params = self.collect_params()
        params.initialize(init, device, force_reinit, ctx=ctx)
        if verbose:
            for name, parameter in params.items():
                print(f"{name}: {parameter.init or init or 'default initializer'}")

    def save_parameters(self, filename: Any, deduplicate: bool = False) -> None:
        """Write the parameters, by structured name, as a safetensors file, atomically. With `deduplicate`, a shared
        parameter is written once (and must be loaded with ``allow_missing=True``)."""
        arrays: dict[str, np.ndarray] = {}
        seen: set[int] = set()
        for name, parameter in self.collect_params().items():
            if not (deduplicate and id(parameter) in seen):
                arrays[name] = parameter._reduce()
            seen.add(id(parameter))
        save_arrays(filename, arrays, {"format": "hybrid-parameters", "version": "1"})

    def load_parameters(
        self,
        filename: Any,
        device: Any = None,
        allow_missing: bool = False,
        ignore_extra: bool = False,
        cast_dtype: bool = False,
        dtype_source: str = "current",
        *,
        ctx: Any = None,
    ) -> None:
        """Read parameters that `save_parameters` or ``nd.save`` wrote, MXNet's ``.params`` files included (names may begin
        with ``arg:`` or ``aux:``); initializes them (on `device`) if that has not happened.

        Raises ValueError for names that are missing in the file (unless `allow_missing`) or unknown to this Block
        (unless `ignore_extra`), and for shapes or dtypes that differ. With `cast_dtype`, values are converted to the
        parameters' dtypes, or, where `dtype_source` is "saved", the parameters to the file's.
        """
        found, names = load_named(filename)
        if names is None:
            raise ValueError(f"load_parameters: {filename} holds a list of {len(found)} arrays without names")
        arrays = dict(zip(map(_without_prefix, names), found))
        if len(arrays) < len(names):
            raise ValueError(f"load_parameters: {filename}: the same name with arg: and aux:")
        self.load_dict(
            arrays, device, allow_missing, ignore_extra, cast_dtype, dtype_source, ctx=ctx, _where=str(filename),
            _copy=False,
        )

    def load_dict(
        self,
        param_dict: Mapping[str, Any],
        device: Any = None,
        allow_missing: bool = False,
        ignore_extra: bool = False,
        cast_dtype: bool = False,
        dtype_source: str = "current",
        *,
        ctx: Any = None,
        _where: str = "load_dict",
        _copy: bool = True,
    ) -> None:
        """Take parameters from arrays by structured name; otherwise as `load_parameters`. Nothing is changed unless
        all of them fit."""
        if dtype_source not in ("current", "saved"):
            raise ValueError(f"load_parameters: dtype_source must be 'current' or 'saved', got {dtype_source!r}")
        params = self.collect_params()
        arrays = {k: v.asnumpy() if isinstance(v, NDArray) else np.asarray(v) for k, v in param_dict.items()}
        missing = [name for name in params if name not in arrays]
        extra = [name for name in arrays if name not in params]
        if missing and not allow_missing:
            raise ValueError(
                f"{_where}: no value for {_names(missing)}; it holds {_names(list(arrays))}. Pass "
                "allow_missing=True to leave them as they are"
            )
        if extra and not ignore_extra:
            raise ValueError(
                f"{_where}: {_names(extra)} is unknown to this {type(self).__name__}, which has "
                f"{_names(list(params))}. "
                "Pass ignore_extra=True to skip what is unknown"
            )
        plan = [(params[name], array) for name, array in arrays.items() if name in params]
        for parameter, array in plan:
            parameter._check_fits(array, cast_dtype, _where)
        for parameter, array in plan:
            if cast_dtype and dtype_source == "saved":
                parameter.cast(array.dtype)
            parameter._load(array, device if device is not None else ctx, copy=_copy)

    def share_parameters(self, shared: Mapping[str, Parameter]) -> Block:
        """Use the given parameters (by structured name) in place of this Block's own; returns self."""
        for path, block in self._walk():
            for name in list(block._own):
                replacement = shared.get(f"{path}.{name}" if path else name)
                if replacement is not None:
                    block._own[name] = replacement
                    object.__setattr__(block, name, replacement)
        raise_epoch()
        return self

    def zero_grad(self) -> None:
        """Set the gradients of all parameters to 0."""
        self.collect_params().zero_grad()

    def reset_device(self, device: Any = None, *, ctx: Any = None) -> None:
        """Move all parameters to other devices."""
        self.collect_params().reset_device(device, ctx=ctx)

    reset_ctx = reset_device

    def setattr(self, name: str, value: Any) -> None:
        """Set an attribute of all parameters: ``net.setattr("grad_req", "null")``."""
        self.collect_params().setattr(name, value)

    def cast(self, dtype: Any) -> None:
        """Change the dtype of all parameters."""
        for child in self._children.values():
            child.cast(dtype)
        for parameter in self._own.values():
            parameter.cast(dtype)

    def apply(self, fn: Callable[[Block], Any]) -> Block:
        """Call `fn` on every child, depth first, then on this Block; returns self."""
        for child in self._children.values():
            child.apply(fn)
        fn(self)
        return self

    # -- hooks

    def register_forward_hook(self, hook: Callable[[Block, tuple, Any], None]) -> HookHandle:
        """Call ``hook(block, inputs, output)`` after each forward. In a compiled program, hooks of children run while
        it is traced only."""
        return _add_hook(self._hooks, hook)

    def register_forward_pre_hook(self, hook: Callable[[Block, tuple], None]) -> HookHandle:
        """Call ``hook(block, inputs)`` before each forward."""
        return _add_hook(self._pre_hooks, hook)

    # -- running

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The result of `forward`, with hooks."""
        if not self._hooks and not self._pre_hooks:
            return self._forward(*args, **kwargs)
        for hook in tuple(self._pre_hooks.values()):
            hook(self, args)
        out = self._forward(*args, **kwargs)
        for hook in tuple(self._hooks.values()):
            hook(self, args, out)
        return out

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the Block computes; a subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(self, ...)")

    def hybridize(self, active: bool = True, **options: Any) -> None:
        """Hybridize the children (a plain Block itself always runs line by line)."""
        for child in self._children.values():
            child.hybridize(active, **options)

    def summary(self, *inputs: Any) -> None:
        """Print a table of the layers, their output shapes and numbers of parameters for given inputs.

        Raises RuntimeError where a Block is hybridized, since its children then don't run one by one.
        """
        from .summary import print_summary

        print_summary(self, inputs)

    def _extra_repr(self) -> str:
        return ""

    def __repr__(self) -> str:
        head = f"{type(self).__name__}({self._extra_repr()}"
        if not self._children:
            return head + ")"
        lines = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self._children.items()]
        return "\n".join([head, *lines, ")"])


class HybridBlock(Block):
    """A Block that can be compiled.

    `forward` uses arrays and array functions only (Gluon 2); or ``hybrid_forward(self, F, x, *args, **params)`` is
    defined instead (Gluon 1), where F is the `ndarray` namespace and `params` are the Block's own parameters by name.
    A Block with parameters of unknown shape defines ``infer_shape(self, *args)``, which sets them from the inputs.
    """

    _active: bool
    _compiled: Any
    _options: dict[str, Any]

    def __init__(self, prefix: str | None = None, params: Mapping[str, Parameter] | None = None):
        super().__init__(prefix, params)
        object.__setattr__(self, "_active", False)
        object.__setattr__(self, "_compiled", None)
        object.__setattr__(self, "_options", {})

    def hybridize(
        self,
        active: bool = True,
        backend: str | None = None,
        *,
        static_alloc: bool = False,
        static_shape: bool = False,
        inline_limit: int = 2,
        partial_shape: bool = False,
        forward_bulk_size: int | None = None,
        backward_bulk_size: int | None = None,
        clear: bool = True,
        **options: Any,
    ) -> None:
        """From now on run as compiled programs (or, with ``active=False``, line by line again).

        `backend` names a compiler: "jit" (the default) or "interpreter". `options` go to it. `static_alloc` and
        `static_shape`, both, say that calls on a GPU will be alike: they become CUDA graphs at once, not only after some of
        them (memory is always planned once). Accepted for Gluon, without effect: `inline_limit`,
        `forward_bulk_size`, `backward_bulk_size` (a program is always one call), `partial_shape`. With ``clear=False``,
        programs compiled before are kept.
        """
        if backend is not None:
            options = {**options, "backend": backend}
        if static_alloc and static_shape:
            options = {**options, "static_alloc": True, "static_shape": True}
        put = object.__setattr__
        if clear or options != self._options:
            put(self, "_compiled", None)
        put(self, "_options", options)
        put(self, "_active", bool(active))
        if active:
            prepare_backend(options.get("backend", "jit"))
        for child in self._children.values():
            if isinstance(child, HybridBlock):
                child.hybridize(active, backend, clear=clear, **{k: v for k, v in options.items() if k != "backend"})
            else:
                child.hybridize(active, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The result of `forward`: compiled if hybridized, unless an outer trace is under way."""
        if not self._active:
            return Block.__call__(self, *args, **kwargs)
        compiled = self._compiled or self._compile()
        if self._hooks or self._pre_hooks:
            return Block.__call__(self, *args, **kwargs)
        return compiled(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles, which compile anew."""
        return {**self.__dict__, "_compiled": None}

    def _compile(self) -> Any:
        from .hybridize import CompiledFunction

        compiled = CompiledFunction(self._run, block=self, name=type(self).__name__.lower(), **self._options)
        object.__setattr__(self, "_compiled", compiled)
        return compiled

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        if self._active and self._compiled is not None:
            return self._compiled(*args, **kwargs)
        return self._run(*args, **kwargs)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        """Complete deferred parameters, then forward."""
        for parameter in self._own.values():
            if parameter._deferred is not None:
                self._complete(args)
                break
        return self.forward(*args, **kwargs)

    def _complete(self, args: tuple) -> None:
        if any(p.shape is None or -1 in p.shape for p in self._own.values()):
            self.infer_shape(*args)
        for parameter in self._own.values():
            parameter._finish_deferred_init()

    def infer_shape(self, *args: Any) -> None:
        """Set the unknown shapes of this Block's own parameters from the inputs of its first call."""
        unknown = [p.name for p in self._own.values() if p.shape is None or -1 in p.shape]
        raise RuntimeError(
            f"{type(self).__name__}: the shapes of {_names(unknown)} are unknown; give them when the Block is made, "
            "or define "
            "infer_shape(self, *args), which sets parameter.shape from the shapes of the inputs"
        )

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """What the Block computes; calls `hybrid_forward` where a subclass defines that instead."""
        hybrid_forward = getattr(self, "hybrid_forward", None)
        if hybrid_forward is None:
            raise NotImplementedError(
                f"{type(self).__name__} must define forward(self, x, ...) or hybrid_forward(self, F, x, ...)"
            )
        device = _device_of((x, *args))
        return hybrid_forward(nd, x, *args, **kwargs, **{name: p.data(device) for name, p in self._own.items()})

    def explain(self, *args: Any, measure: bool = True, **kwargs: Any) -> Any:
        """What compiling this Block for these inputs does, as an `Explanation`: print it, or look at its fields. Fused
        kernels with their times, shares of the machine's limits and the user's lines; why neighbours were not fused; the
        memory plan. Under ``autograd.record()``, of forward and backward; without times if `measure` is False.

        The Block need not be hybridized.
        """
        return (self._compiled or self._compile()).explain(*args, measure=measure, **kwargs)

    def kernels(self, *args: Any, **kwargs: Any) -> list[Any]:
        """The kernels that run for these inputs, in order, each with `name` and `operations` (see `explain`)."""
        return self.explain(*args, measure=False, **kwargs).kernels

    def export(self, path: Any, *example: Any, **options: Any) -> tuple[str, str]:
        """Write this Block, as it predicts, with its parameters, to files that `hybrid.load` runs without its code.

        `example` are inputs of the right shapes; without them, the shapes of the last compiled call serve. Options:
        see `hybrid.export.export`. Returns the paths of the graph and the parameters.
        """
        from .export import export

        return export(self, path, *example, **options)


def static_attributes(block: Block) -> dict[str, Any]:
    """What a trace of `block` bakes in, by path: attributes of it and its children that are plain data (numbers,
    strings, dtypes, tuples and lists of them), classes of the children, and generations of the parameters' arrays."""
    found: dict[str, Any] = {}
    for path, b in block._walk():
        found[f"{path}:"] = type(b)
        for name, value in b.__dict__.items():
            if name not in _INTERNAL and _is_plain(value):
                found[f"{path}.{name}"] = _frozen(value)
        for name, parameter in b._own.items():
            found[f"{path}.{name}:"] = (id(parameter), parameter.generation, parameter.grad_req)
    return found


def identities(block: Block) -> dict[str, Any]:
    """Attributes of `block` that are neither plain data nor registered: arrays, containers of arrays, objects. A trace
    knows them by identity, so assigning another one is noticed."""
    return {
        name: value for name, value in block.__dict__.items()
        if name not in _INTERNAL and not isinstance(value, (Block, Parameter)) and not _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, _PLAIN):
        return True
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    return isinstance(value, type) or (callable(value) and hasattr(value, "__code__"))


def _frozen(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return (type(value).__name__, *map(_frozen, value))
    if isinstance(value, dict):
        return ("dict", *((k, _frozen(v)) for k, v in value.items()))
    return (type(value).__name__, value.start, value.stop, value.step) if isinstance(value, slice) else value


def _device_of(values: Any) -> Any:
    for value in values:
        if isinstance(value, NDArray):
            return value.device
        if isinstance(value, (tuple, list)):
            device = _device_of(value)
            if device is not None:
                return device
    return None


def _add_hook(hooks: dict[int, Callable], hook: Callable) -> HookHandle:
    key = max(hooks, default=-1) + 1
    hooks[key] = hook
    raise_epoch()
    return HookHandle(hooks, key)


def _without_prefix(name: str) -> str:
    """MXNet's exported models say arg: before parameters and aux: before statistics."""
    return name[4:] if name.startswith(("arg:", "aux:")) else name


def _names(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:8]))
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"
