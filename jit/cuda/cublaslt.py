"""Matrix products by cublasLt through ctypes: no build step, and unlike CuPy's cuBLAS they can be captured in a CUDA graph.

    out[b] = activation(alpha * x[b] @ y[b] + residual[b] + bias)

Row-major results: cublasLt's matrices are column-major, in which a row-major (rows, columns) is (columns, rows), so the
product that is asked for is ``y.T @ x.T`` and its epilogue's bias, one number a row, is one a column here.

Constants and sizes are those of cublasLt.h and library_types.h of CUDA 13 (tests/test_cuda_libraries.py lists them again). A
`Matmul` is made once for a problem: descriptors, layouts and the algorithm that the library recommends; running it allocates
nothing.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ACTIVATIONS", "COMPUTE", "DATA_TYPES", "CublasError", "CublasLt", "Matmul", "Operand", "Problem", "load"]

DATA_TYPES = {"float32": 0, "float64": 1, "float16": 2, "int8": 3, "int32": 10, "bfloat16": 14}
COMPUTE = {"float16": 64, "float32": 68, "float64": 70, "int32": 72, "tf32": 77}
"""cublasComputeType_t: how products are summed. float32 is IEEE; TF32 must be asked for."""
ACTIVATIONS = {("", False): 1, ("relu", False): 2, ("", True): 4, ("relu", True): 6, ("gelu", False): 32, ("gelu", True): 36}
"""cublasLtEpilogue_t by (activation, whether there is a bias)."""
GELU_AUX = 128
"""Added to an activation's epilogue: the sums before it are stored as well."""

OP_NORMAL, OP_TRANSPOSED = 0, 1
DESC_TRANSA, DESC_TRANSB, DESC_EPILOGUE, DESC_BIAS_POINTER, DESC_BIAS_DATA_TYPE = 3, 4, 7, 8, 26
DESC_AUX_POINTER, DESC_AUX_LD, DESC_AUX_BATCH_STRIDE = 11, 12, 13
LAYOUT_BATCH_COUNT, LAYOUT_STRIDE = 5, 6
PREFERENCE_WORKSPACE, PREFERENCE_ALIGNMENT = 1, (5, 6, 7, 8)
ALGORITHM_BYTES, RESULT_BYTES, RESULT_WORKSPACE, RESULT_STATE = 64, 96, 64, 72

WORKSPACE = 32 << 20
"""Bytes of scratch memory that algorithms may use, as NVIDIA advises for Hopper."""

ALIGNMENTS = (16, 8, 4, 2, 1)
"""Bytes by which operands are taken to be aligned; a problem is planned once for each that occurs."""


class CublasError(RuntimeError):
    """A call of cublasLt failed."""


_pointer, _int, _int32, _int64, _size, _uint64 = (
    ctypes.c_void_p, ctypes.c_int, ctypes.c_int32, ctypes.c_int64, ctypes.c_size_t, ctypes.c_uint64)
SIGNATURES: Mapping[str, tuple[Any, ...]] = {
    "cublasLtCreate": (_pointer,),
    "cublasLtDestroy": (_pointer,),
    "cublasLtMatmulDescCreate": (_pointer, _int, _int),
    "cublasLtMatmulDescDestroy": (_pointer,),
    "cublasLtMatmulDescSetAttribute": (_pointer, _int, _pointer, _size),
    "cublasLtMatmulDescGetAttribute": (_pointer, _int, _pointer, _size, _pointer),
    "cublasLtMatrixLayoutCreate": (_pointer, _int, _uint64, _uint64, _int64),
    "cublasLtMatrixLayoutDestroy": (_pointer,),
    "cublasLtMatrixLayoutSetAttribute": (_pointer, _int, _pointer, _size),
    "cublasLtMatrixLayoutGetAttribute": (_pointer, _int, _pointer, _size, _pointer),
    "cublasLtMatmulPreferenceCreate": (_pointer,),
    "cublasLtMatmulPreferenceDestroy": (_pointer,),
    "cublasLtMatmulPreferenceSetAttribute": (_pointer, _int, _pointer, _size),
    # handle, desc, A, B, C, D, preference, how many results, results, how many came
    "cublasLtMatmulAlgoGetHeuristic": (*(_pointer,) * 7, _int, _pointer, _pointer),
    # handle, desc, alpha, A, its layout, B, its layout, beta, C, its layout, D, its layout, algorithm, workspace, bytes, stream
    "cublasLtMatmul": (*(_pointer,) * 14, _size, _pointer),
}
"""Argument types; all return a cublasStatus_t."""


@dataclass(frozen=True)
class Operand:
    """A matrix in memory: strides, in elements, of batch, rows (or columns) and depth; one of the last two is 1."""

    batch: int
    outer: int
    depth: int


@dataclass(frozen=True)
class Problem:
    """A product without addresses. The result and the residual are row-major (batch, rows, columns).

    dtype      of x and y; `out` of result, residual and bias
    precision  "tf32" for float32 rounded to TF32, else ""
    aux        whether the sums before the activation are stored too, row-major
    """

    batch: int
    rows: int
    columns: int
    depth: int
    x: Operand
    y: Operand
    dtype: str
    out: str
    precision: str = ""
    alpha: float = 1.0
    activation: str = ""
    bias: bool = False
    residual: bool = False
    aux: bool = False


class CublasLt:
    """The library: `call(name, ...)` checks the status."""

    def __init__(self, library: Any):
        self.functions: dict[str, Any] = {}
        for name, types in SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = _int, types
            self.functions[name] = function
        library.cublasLtGetVersion.restype = _size
        self.version = int(library.cublasLtGetVersion())
        self._handles: dict[int, int] = {}
        self._lock = threading.Lock()

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function. Raises CublasError naming it and its status."""
        status = self.functions[name](*arguments)
        if status:
            raise CublasError(f"{name} returned status {status} ({STATUS.get(status, 'unknown')})")

    def made(self, name: str, *arguments: Any) -> int:
        """The object that a creating function makes."""
        place = ctypes.c_void_p()
        self.call(name, ctypes.byref(place), *arguments)
        assert place.value is not None
        return place.value

    def put(self, kind: str, target: int, attribute: int, value: Any) -> None:
        """Set an attribute of a descriptor ("MatmulDesc"), layout ("MatrixLayout") or preference ("MatmulPreference")."""
        self.call(f"cublasLt{kind}SetAttribute", target, attribute, ctypes.byref(value), ctypes.sizeof(value))

    def handle(self, device: int) -> int:
        """The library's handle for a GPU, which must be the current one; made at first use."""
        with self._lock:
            if device not in self._handles:
                self._handles[device] = self.made("cublasLtCreate")
            return self._handles[device]


STATUS = {
    1: "not initialized", 3: "out of memory", 7: "invalid value", 8: "architecture mismatch", 11: "mapping error",
    13: "execution failed", 14: "internal error", 15: "not supported", 16: "license error",
}

_library: CublasLt | str | None = None


def load() -> CublasLt:
    """cublasLt, found by cuda-pathfinder. Raises ImportError where it can't be loaded, always with the same reason."""
    global _library
    if _library is None:
        try:
            from cuda.pathfinder import load_nvidia_dynamic_lib

            found = load_nvidia_dynamic_lib("cublasLt")
            _library = CublasLt(ctypes.CDLL(found.abs_path))
            if _library.version < 120000:
                _library = f"cublasLt {_library.version} is older than 12.0"
        except Exception as error:  # not installed, no such file, a symbol is missing: each its own class
            _library = f"cublasLt can't be loaded ({error})"
    if isinstance(_library, str):
        raise ImportError(_library)
    return _library


class Matmul:
    """A product that can be run at any addresses, with scratch memory of `workspace` bytes."""

    workspace = WORKSPACE

    def __init__(self, library: CublasLt, problem: Problem):
        self.library, self.problem = library, problem
        p, put = problem, library.put
        scale = "float64" if p.dtype == "float64" else "int32" if p.dtype == "int8" else "float32"
        compute = COMPUTE["tf32" if p.precision == "tf32" else scale]
        number: Any = {"float64": ctypes.c_double, "int32": ctypes.c_int32, "float32": ctypes.c_float}[scale]
        self.alpha = number(p.alpha if scale != "int32" else int(p.alpha))
        self.beta = number(1 if p.residual else 0)
        self.descriptor = library.made("cublasLtMatmulDescCreate", compute, DATA_TYPES[scale])
        out_stride = p.rows * p.columns
        # y.T: (columns, depth), x.T: (depth, rows), out.T: (columns, rows), all column-major
        y_normal, x_normal = p.y.outer == 1 and p.y.depth != 1, p.x.depth == 1
        y = (p.columns, p.depth, p.y.depth) if y_normal else (p.depth, p.columns, p.y.outer)
        x = (p.depth, p.rows, p.x.outer) if x_normal else (p.rows, p.depth, p.x.depth)
        self.y, self.x = self._layout(p.dtype, *y, p.y.batch), self._layout(p.dtype, *x, p.x.batch)
        self.out = self._layout(p.out, p.columns, p.rows, p.columns, out_stride)
        put("MatmulDesc", self.descriptor, DESC_TRANSA, _int32(OP_NORMAL if y_normal else OP_TRANSPOSED))
        put("MatmulDesc", self.descriptor, DESC_TRANSB, _int32(OP_NORMAL if x_normal else OP_TRANSPOSED))
        epilogue = ACTIVATIONS[p.activation, p.bias] + (GELU_AUX if p.aux else 0)
        put("MatmulDesc", self.descriptor, DESC_EPILOGUE, _int32(epilogue))
        if p.bias:
            put("MatmulDesc", self.descriptor, DESC_BIAS_DATA_TYPE, _int32(DATA_TYPES[p.out]))
        if p.aux:
            put("MatmulDesc", self.descriptor, DESC_AUX_LD, _int64(p.columns))
            put("MatmulDesc", self.descriptor, DESC_AUX_BATCH_STRIDE, _int64(out_stride))
        self._algorithms: dict[tuple[int, int], ctypes.Array] = {}
        self._lock = threading.Lock()  # the descriptor holds addresses while it runs

    def _layout(self, dtype: str, rows: int, columns: int, leading: int, batch_stride: int) -> int:
        """A column-major matrix, or a batch of them."""
        library = self.library
        layout = library.made("cublasLtMatrixLayoutCreate", DATA_TYPES[dtype], rows, columns, max(leading, rows))
        if self.problem.batch != 1:
            library.put("MatrixLayout", layout, LAYOUT_BATCH_COUNT, _int32(self.problem.batch))
            library.put("MatrixLayout", layout, LAYOUT_STRIDE, _int64(batch_stride))
        return layout

    def algorithm(self, device: int, alignment: int) -> ctypes.Array:
        """What the library recommends for operands aligned to so many bytes, in scratch memory of `workspace` bytes.

        Raises CublasError where it has nothing."""
        key = device, alignment
        if key not in self._algorithms:
            library = self.library
            preference = library.made("cublasLtMatmulPreferenceCreate")
            library.put("MatmulPreference", preference, PREFERENCE_WORKSPACE, _uint64(self.workspace))
            for attribute in PREFERENCE_ALIGNMENT:
                library.put("MatmulPreference", preference, attribute, ctypes.c_uint32(alignment))
            result, count = (ctypes.c_uint8 * RESULT_BYTES)(), _int(0)
            library.call(
                "cublasLtMatmulAlgoGetHeuristic", library.handle(device), self.descriptor, self.y, self.x, self.out, self.out,
                preference, 1, ctypes.byref(result), ctypes.byref(count))
            library.call("cublasLtMatmulPreferenceDestroy", preference)
            status = int.from_bytes(bytes(result[RESULT_STATE : RESULT_STATE + 4]), "little")
            if count.value < 1 or status:
                raise CublasError(f"cublasLt has no algorithm for {self.problem} (status {status})")
            self._algorithms[key] = result
        return self._algorithms[key]

    def run(self, device: int, x: int, y: int, out: int, workspace: int, stream: int, bias: int = 0, residual: int = 0,
            aux: int = 0) -> None:
        """Enqueue the product for addresses on a stream. The workspace is aligned to 256 bytes."""
        library, p = self.library, self.problem
        together = x | y | out | bias | residual | aux
        alignment = next(a for a in ALIGNMENTS if together % a == 0)
        with self._lock:
            algorithm = self.algorithm(device, alignment)
            if p.bias:
                library.put("MatmulDesc", self.descriptor, DESC_BIAS_POINTER, _uint64(bias))
            if p.aux:
                library.put("MatmulDesc", self.descriptor, DESC_AUX_POINTER, _uint64(aux))
            library.call(
                "cublasLtMatmul", library.handle(device), self.descriptor, ctypes.byref(self.alpha), y, self.y, x, self.x,
                ctypes.byref(self.beta), residual if p.residual else out, self.out, out, self.out, ctypes.byref(algorithm),
                workspace, self.workspace, stream)

    def __del__(self) -> None:
        for name, places in (("MatrixLayout", ("x", "y", "out")), ("MatmulDesc", ("descriptor",))):
            for place in places:
                target = self.__dict__.pop(place, None)
                if target:
                    self.library.functions[f"cublasLt{name}Destroy"](target)
