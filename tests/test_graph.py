"""Graphs as data: text, hash, verifier, reference interpreter."""

import numpy as np
import pytest

import ndarray as nd  # noqa: F401  (registers the ops)
from hybrid.backend import Options, get_backend
from hybrid.graph import Builder, Equation, Graph, Literal, Source, Value
from hybrid.interpret import evaluate_graph
from hybrid.verify import GraphError, verify
from ndarray.dims import Guard, symbol
from ndarray.op import OPS, ArrayType

F32 = np.dtype(np.float32)


def small(name="f", scale=2.0, line=12):
    b = Builder(name)
    x = b.input(ArrayType((2, 3), F32), "x")
    w = b.input(ArrayType((3,), F32), "w")
    (y,) = b.emit("multiply", x, Literal(scale, F32), source=Source("model.py", line))
    (z,) = b.emit("add", y, w, source=Source("model.py", line + 1))
    return b.build([z], {1: w})


def test_one_line_an_equation():
    lines = str(small()).split("\n")
    assert lines[0] == "graph f(x: float32[2,3], w: float32[3])"
    assert lines[1].split("#")[0].strip() == "v2: float32[2,3] = multiply x 2.0:float32"
    assert lines[1].endswith("# model.py:12")
    assert lines[-1] == "  return v3  write w<-w"


def test_hash_is_of_the_structure_only():
    assert small().hash == small("g", line=99).hash
    assert small().hash != small(scale=3.0).hash


def test_verify_accepts_a_good_graph():
    graph = small()
    assert verify(graph) is graph


def bad_graphs():
    g = small()
    first, second = g.equations
    yield "before it is defined", g.replace(equations=(second, first))
    yield "defined twice", g.replace(equations=(first, first, second))
    wrong = Equation(second.op, second.inputs, (Value(ArrayType((3, 2), F32)),), {}, second.source)
    yield "the op gives", g.replace(equations=(first, wrong), outputs=wrong.outputs)
    other = Equation(second.op, second.inputs, second.outputs, {"fn": len}, second.source)
    yield "not plain data", g.replace(equations=(first, other))
    yield "its new value", g.replace(state={1: second.output})
    yield "used before it is defined", g.replace(outputs=(Value(ArrayType((), F32)),))


@pytest.mark.parametrize(("text", "graph"), list(bad_graphs()))
def test_verify_says_what_and_where(text, graph):
    with pytest.raises(GraphError, match=text) as error:
        verify(graph, after="some pass")
    assert "some pass" in str(error.value)


def test_verify_shows_the_line_and_the_neighbours():
    g = small()
    with pytest.raises(GraphError) as error:
        verify(g.replace(equations=(g.equations[1], g.equations[0])))
    text = str(error.value)
    assert "model.py:13" in text
    assert "multiply" in text


def test_interpreter_computes_and_writes_state_in_place():
    b = Builder("step")
    x = b.input(ArrayType((3,), F32), "x")
    w = b.input(ArrayType((3,), F32), "w")
    (y,) = b.emit("add", x, w)
    (view,) = b.emit("reshape", w, shape=(3, 1))
    graph = verify(b.build([y, view, w], {1: y}))
    a, c = np.ones(3, "f"), np.arange(3, dtype="f")
    out = evaluate_graph(graph, [a, c])
    np.testing.assert_array_equal(out[0], [1, 2, 3])
    np.testing.assert_array_equal(out[1][:, 0], [0, 1, 2])  # as before the write
    np.testing.assert_array_equal(c, [1, 2, 3])
    assert not any(np.shares_memory(o, s) for o in out for s in (a, c))


def test_state_swap_reads_everything_before_it_writes():
    b = Builder("swap")
    x, y = (b.input(ArrayType((2,), F32), n) for n in "xy")
    graph = b.build([], {0: y, 1: x})
    a, c = np.array([1, 2], "f"), np.array([3, 4], "f")
    get_backend("interpreter").compile(graph, Options())([a, c])
    assert a.tolist() == [3, 4]
    assert c.tolist() == [1, 2]


def test_symbolic_sizes_are_read_off_the_inputs():
    n = symbol("n", 4)
    b = Builder("rows")
    x = b.input(ArrayType((n, 3), F32), "x")
    (flat,) = b.emit("reshape", x, shape=(n * 3,))
    (ones,) = b.emit("broadcast_to", Literal(1.0, F32), shape=(n,))
    graph = verify(b.build([flat, ones], guards=[Guard(n, ">", 1, True)]))
    for size in (2, 5):
        flat, ones = evaluate_graph(graph, [np.zeros((size, 3), "f")])
        assert flat.shape == (3 * size,)
        assert ones.shape == (size,)
    with pytest.raises(ValueError, match="guard"):
        evaluate_graph(graph, [np.zeros((1, 3), "f")])
    with pytest.raises(ValueError, match="input 0"):
        evaluate_graph(graph, [np.zeros((4,), "f")])


def test_unknown_backend_names_the_known_ones():
    with pytest.raises(ValueError, match="interpreter"):
        get_backend("nonsense")


def test_an_empty_graph():
    graph = verify(Graph((), (Literal(3.0, F32),), ()))
    (out,) = evaluate_graph(graph, [])
    assert out == 3
    assert OPS["graph_call"].results == 0
