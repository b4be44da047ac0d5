"""The interpreter stack: the one place that decides between running, recording and tracing an operation.

`apply(op, *arrays, **attrs)` hands an operation to the interpreter on top of a context-local stack. At the bottom
stands `Eager`, which runs it at once; `autograd` pushes a tape, and the tracer of `hybrid` pushes itself. An
interpreter that does not consume an operation passes it to the frame below.

Who is on the stack is context-local: one thread may trace while another runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .array import NDArray
    from .op import Op

__all__ = ["Frame", "Interpreter", "apply", "capturing", "current", "eagerly", "pop", "push", "write"]


class Interpreter(Protocol):
    """What can stand on the stack.

    `below` is the frame under this interpreter: a tape computes the forward value with ``below.process``. A class
    attribute ``transparent = True`` says that values stay concrete under it if they are concrete below (the tape).
    """

    def process(self, frame: Frame, op: Op, arrays: tuple[NDArray, ...], attrs: dict[str, Any]) -> Any:
        """The result of `op` (an NDArray, or a tuple of them for an op with several results)."""

    def write(self, frame: Frame, array: NDArray, value: NDArray, index: Any) -> None:
        """``array[index] = value``; `index` is Ellipsis for the whole array, `value` is already of array's dtype."""


class Frame:
    """One entry of the stack: an interpreter, and the frame below it (None under the bottom)."""

    __slots__ = ("below", "interpreter")

    def __init__(self, interpreter: Any, below: Frame | None):
        self.interpreter: Interpreter = interpreter
        self.below: Any = below

    def process(self, op: Op, arrays: tuple[NDArray, ...], attrs: dict[str, Any]) -> Any:
        return self.interpreter.process(self, op, arrays, attrs)

    def write(self, array: NDArray, value: NDArray, index: Any) -> None:
        self.interpreter.write(self, array, value, index)


_bottom = Frame(None, None)  # its interpreter is set by ndarray.eager when it is imported
_top: ContextVar[Frame | None] = ContextVar("ndarray_interpreter", default=None)  # None: the bottom


def install_bottom(interpreter: Interpreter) -> None:
    """Make `interpreter` the bottom of every stack."""
    _bottom.interpreter = interpreter


def current() -> Frame:
    """The frame on top."""
    return _top.get() or _bottom


def push(interpreter: Interpreter, *, isolated: bool = False) -> Token:
    """Put an interpreter on top and return the token for `pop`; `isolated` puts it straight over the bottom,
    hiding what was on the stack (a trace must not record on the tape of its caller)."""
    return _top.set(Frame(interpreter, _bottom if isolated else current()))


def pop(token: Token) -> None:
    """Restore the stack as it was before the `push` that returned `token`."""
    _top.reset(token)


@contextmanager
def eagerly() -> Iterator[None]:
    """Context in which operations run at once, whatever records or traces outside of it.

    For work on concrete arrays that is no part of the computation under way: a parameter gets its first values in the
    middle of a trace.
    """
    token = _top.set(None)
    try:
        yield
    finally:
        _top.reset(token)


def switch(frame: Frame | None) -> Token:
    """Make `frame` the top (None: the bottom) and return the token for `pop`."""
    return _top.set(None if frame is _bottom else frame)


def is_tracing() -> bool:
    """Whether operations applied now are captured in a graph rather than run."""
    frame = _top.get()
    while frame is not None and getattr(frame.interpreter, "transparent", False):
        frame = frame.below
    return frame is not None and frame is not _bottom


def capturing() -> Any:
    """The interpreter that captures functions that it is given (bodies of loops) instead of running them, or None."""
    frame = current()
    while getattr(frame.interpreter, "transparent", False):
        frame = frame.below
    return frame.interpreter if hasattr(frame.interpreter, "foreach") else None


def apply(op: Op, *arrays: NDArray, **attrs: Any) -> Any:
    """The result of a primitive operation under the interpreter on top.

    The arrays are NDArrays on one device whose shapes and dtypes the calling function has validated.
    """
    if casting is not None:
        arrays = casting(op, arrays, attrs)
    frame = _top.get() or _bottom
    return frame.interpreter.process(frame, op, arrays, attrs)


casting: Any = None
"""What `ndarray.precision` does to the arguments of each operation once a policy has been named: (op, arrays, attrs) ->
arrays."""


def set_casting(function: Any) -> None:
    """Install `casting`."""
    global casting
    casting = function


def write(array: NDArray, value: NDArray, index: Any = ...) -> None:
    """``array[index] = value`` under the interpreter on top (eager: in place; traced: a state output).

    Raises the version of the array's storage first, so that the tape notices a value that changed after it was kept.
    """
    array._touch()
    try:
        (_top.get() or _bottom).write(array, value, index)
    finally:
        array._storage.finish_write()  # type: ignore[union-attr]
