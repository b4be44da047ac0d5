"""Export and load: the same answers without the model's code, and clear errors for damaged files."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ndarray as nd
from blocks import HybridBlock, Parameter, Trainer, nn
from hybrid.export import SymbolBlock, load, replay
from hybrid.graph import Builder, Graph
from hybrid.interpret import evaluate_graph
from hybrid.serialize import decode_graph, encode_graph
from ndarray import autograd
from ndarray.dims import Guard, record_guards, symbol
from ndarray.files import FileFormatError
from ndarray.op import ArrayType

BACKEND = "interpreter"
float32 = np.dtype("float32")


def lenet():
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(3, 3, padding=1, activation="relu"),
        nn.BatchNorm(),
        nn.MaxPool2D(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Dense(5, activation="relu"),
        nn.Dense(2),
    )
    net.initialize()
    return net


@pytest.fixture
def exported(tmp_path):
    net = lenet()
    x = nd.array(np.random.default_rng(0).normal(size=(4, 2, 8, 8)).astype("float32"))
    expected = net(x).asnumpy()
    net.export(tmp_path / "model", x)
    return tmp_path / "model", x, expected


def test_round_trip(exported):
    path, x, expected = exported
    assert sorted(p.name for p in path.parent.iterdir()) == ["model-golden.safetensors", "model.json", "model.safetensors"]
    net = load(path, backend=BACKEND)
    np.testing.assert_allclose(net(x).asnumpy(), expected, rtol=1e-6, atol=1e-6)
    assert net.self_test() < 1e-6
    assert "0.weight" in net.collect_params()
    with pytest.raises(ValueError, match=r"data must be float32\[n,2,8,8\]"):
        net(nd.ones((4, 3, 8, 8)))
    with pytest.raises(TypeError, match="nested"):
        net(x, x)


def test_any_batch_size(exported):
    path, x, expected = exported
    net = load(path, backend=BACKEND)
    np.testing.assert_allclose(net(x[:1]).asnumpy(), expected[:1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(net(x[1:]).asnumpy(), expected[1:], rtol=1e-5, atol=1e-6)


def test_a_loaded_model_trains_and_exports_again(exported, tmp_path):
    path, x, _ = exported
    net = load(path, backend=BACKEND)
    assert net.collect_params()["1.running_mean"].grad_req == "null"
    trainer = Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    with autograd.record():
        y = (net(x) ** 2.0).sum()
    y.backward()
    before = net(x).asnumpy()
    trainer.step(4)
    after = net(x).asnumpy()
    assert not np.array_equal(before, after)
    net.export(tmp_path / "again", x)
    np.testing.assert_allclose(load(tmp_path / "again", backend=BACKEND)(x).asnumpy(), after, rtol=1e-6, atol=1e-7)


def test_a_fresh_process_without_the_models_code(exported):
    path, x, expected = exported
    np.save(path.parent / "x.npy", x.asnumpy())
    program = (
        "import sys, numpy as np, ndarray as nd, hybrid.export\n"
        f"net = hybrid.export.load({str(path)!r}, backend={BACKEND!r})\n"
        f"np.save({str(path.parent / 'y.npy')!r}, net(nd.array(np.load({str(path.parent / 'x.npy')!r}))).asnumpy())\n"
        "assert 'blocks' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parent.parent)
    np.testing.assert_allclose(np.load(path.parent / "y.npy"), expected, rtol=1e-6, atol=1e-6)


def test_nested_arguments_and_results(tmp_path):
    class Two(HybridBlock):
        def __init__(self):
            super().__init__()
            self.w = Parameter("w", shape=(3,), init="ones")

        def forward(self, pair, z):
            a, b = pair
            return {"sum": a + b * self.w.data(a.device), "parts": [a * 2.0, z]}

    net = Two()
    net.initialize()
    a, b, z = nd.ones((2, 3)), nd.full((2, 3), 2.0), nd.zeros((2,))
    net.export(tmp_path / "two", (a, b), z)
    out = load(tmp_path / "two", backend=BACKEND)((a, b), z)
    np.testing.assert_array_equal(out["sum"].asnumpy(), np.full((2, 3), 3))
    np.testing.assert_array_equal(out["parts"][0].asnumpy(), np.full((2, 3), 2))


def test_export_needs_to_know_the_inputs(tmp_path):
    with pytest.raises(RuntimeError, match="example"):
        lenet().export(tmp_path / "model")


def test_last_compiled_call_serves_as_example(tmp_path):
    net = lenet()
    net.hybridize(backend=BACKEND)
    x = nd.ones((3, 2, 8, 8))
    expected = net(x).asnumpy()
    net.export(tmp_path / "model")
    np.testing.assert_allclose(load(tmp_path / "model", backend=BACKEND)(x).asnumpy(), expected, rtol=1e-5, atol=1e-6)


# -- graphs as data


def graph_with_sizes() -> Graph:
    n = symbol("n", 6)
    b = Builder("sizes")
    x = b.input(ArrayType((n, 4), float32), "x")
    guards: list[Guard] = []
    with record_guards(guards.append):
        (y,) = b.emit("reshape", x, shape=(n * 2, 2))
        (z,) = b.emit("slice", y, start=(0, 0), stop=(n, 2), step=(1, 1))
        (c,) = b.emit("cast", z, dtype=np.dtype("float64"))
    return b.build([c], {}, {str(g): g for g in guards}.values())


def test_graph_codec():
    graph = graph_with_sizes()
    again = decode_graph(json.loads(json.dumps(encode_graph(graph))))
    assert again.hash == graph.hash
    assert str(again) == str(graph)


def change(path, edit):
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def equation(data, op):
    return next(e for e in data["graph"]["equations"] if e["op"] == op)


EDITS = {
    "version": (lambda d: d.update(version=2), "version 2"),
    "format": (lambda d: d.update(format="other"), "no exported model"),
    "unknown op": (lambda d: d["graph"]["equations"][0].update(op="launch_missiles"), "unknown op"),
    "missing attribute": (lambda d: equation(d, "reshape")["attrs"].clear(), "attributes missing|don't fit"),
    "extra attribute": (lambda d: equation(d, "reshape")["attrs"].update(evil=1), "unknown|don't fit"),
    "absurd shape": (lambda d: d["graph"]["inputs"][0].update(shape=[1 << 39, 1 << 39]), "absurd"),
    "absurd size": (lambda d: d["graph"]["inputs"][0].update(shape=[1 << 80]), "absurd"),
    "negative size": (lambda d: d["graph"]["inputs"][0].update(shape=[-3]), "absurd"),
    "size of another kind": (lambda d: d["graph"]["inputs"][0].update(shape=[1.5]), "size"),
    "unknown symbol": (lambda d: d["graph"]["inputs"][0].update(shape=["k"]), "unknown size"),
    "rank": (lambda d: d["graph"]["inputs"][0].update(shape=[1] * 100), "axes"),
    "dtype": (lambda d: d["graph"]["inputs"][0].update(dtype="object"), "dtype"),
    "use before definition": (lambda d: d["graph"]["equations"][0].update(inputs=[10**6, 0]), "before it is defined|takes"),
    "wrong types": (lambda d: d["graph"]["equations"][0]["types"][0].update(dtype="float64"), "declares"),
    "output numbers": (lambda d: d["graph"]["equations"][0].update(outputs=[0]), "output numbers"),
    "outputs": (lambda d: d["graph"].update(outputs=["x"]), "graph|object"),
    "roles": (lambda d: d.update(roles=["argument"]), "roles"),
    "arguments": (lambda d: d.update(arguments={"tuple": [0, 1]}), "arguments"),
    "results": (lambda d: d.update(results={"exec": []}), "nesting"),
    "equations": (lambda d: d["graph"].update(equations="all"), "equations"),
    "parameter name": (lambda d: d["graph"]["inputs"][1].update(name="other"), "does not belong"),
    "no object": (lambda d: d.update(graph=[1, 2]), "object"),
}


@pytest.mark.parametrize("name", EDITS)
def test_damaged_graphs_are_refused(exported, name):
    path, _, _ = exported
    edit, message = EDITS[name]
    change(path.with_suffix(".json"), edit)
    with pytest.raises(FileFormatError, match=message):
        load(path, backend=BACKEND)


def test_truncated_and_swapped_files(exported):
    path, _, _ = exported
    model, parameters = path.with_suffix(".json"), path.with_suffix(".safetensors")
    text, data = model.read_bytes(), parameters.read_bytes()
    for cut in (0, 1, len(text) // 2, len(text) - 2):
        model.write_bytes(text[:cut])
        with pytest.raises(FileFormatError, match=r"model\.json"):
            load(path)
    model.write_bytes(text)
    for cut in (0, 5, 100, len(data) - 1):
        parameters.write_bytes(data[:cut])
        with pytest.raises(FileFormatError, match=r"model\.safetensors"):
            load(path)
    parameters.write_bytes((1 << 40).to_bytes(8, "little") + data[8:])
    with pytest.raises(FileFormatError, match="header"):
        load(path)
    parameters.unlink()
    with pytest.raises(FileNotFoundError):
        load(path)


def test_deep_nesting_is_refused(exported):
    path, _, _ = exported
    model = path.with_suffix(".json")
    model.write_text("[" * 100_000)
    with pytest.raises(FileFormatError):
        load(path)
    deep = "[" * 50 + "]" * 50
    model.write_text(
        json.dumps(
            {
                "format": "hybrid-model",
                "version": 1,
                "graph": {
                    "inputs": [],
                    "outputs": [],
                    "equations": [{"op": "iota", "inputs": [], "attrs": {"shape": json.loads(deep)}, "types": []}],
                },
            }
        )
    )
    with pytest.raises(FileFormatError, match="deep"):
        load(path)


def test_a_failed_write_leaves_the_old_file(exported, monkeypatch):
    path, x, expected = exported
    net = lenet()
    net(x)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        net.export(path, x)
    monkeypatch.undo()
    assert isinstance(load(path, backend=BACKEND), SymbolBlock)
    np.testing.assert_allclose(load(path, backend=BACKEND)(x).asnumpy(), expected, rtol=1e-6, atol=1e-6)
    assert not [p for p in path.parent.iterdir() if p.suffix == ".tmp"]


def mutate(value, rng):
    """One random change somewhere in plain data."""
    junk = [None, -1, 0, 1 << 70, 1.5, "n", "x" * 100, [], [[]], {}, {"size": [[1, ["n"]]]}, {"dtype": "int8"}, True]
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = list(value)[rng.integers(len(value))]
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: mutate(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        i = int(rng.integers(len(value)))
        if rng.random() < 0.1:
            return value[:i] + value[i + 1 :]
        return [*value[:i], mutate(value[i], rng), *value[i + 1 :]]
    return junk[rng.integers(len(junk))]


def test_random_damage_is_refused_or_harmless():
    data = json.loads(json.dumps(encode_graph(graph_with_sizes())))
    for seed in range(2000):
        changed = mutate(data, np.random.default_rng(seed))
        try:
            graph = decode_graph(changed)
        except FileFormatError:
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}: {changed}") from error
        assert isinstance(graph, Graph)


def test_a_loaded_model_is_compiled_once_for_all_batch_sizes(tmp_path):
    net = nn.Dense(3, in_units=4)
    net.initialize()
    net.export(tmp_path / "m", nd.ones((5, 4)))
    loaded = load(tmp_path / "m")
    for size in (7, 1, 5, 2):
        x = nd.random.normal(shape=(size, 4))
        np.testing.assert_allclose(loaded(x).asnumpy(), net(x).asnumpy(), rtol=1e-5, atol=1e-6)
    assert loaded._compiled.traces == 1


def entry(op, inputs, number, shape, **attrs):
    types = [{"dtype": "float32", "shape": shape}]
    return {"op": op, "inputs": inputs, "outputs": [number], "types": types, **({"attrs": attrs} if attrs else {})}


def unguarded(symbols, inputs, equations, **rest):
    shapes = [{"name": f"x{i}", "dtype": "float32", "shape": s} for i, s in enumerate(inputs)]
    return {"name": "forged", "symbols": symbols, "inputs": shapes, "equations": equations,
            "outputs": [len(inputs) + len(equations) - 1], **rest}


def test_guards_that_a_file_leaves_out_are_derived_again():
    data = unguarded({"n": 4, "m": 4}, [["n"], ["m"]], [entry("add", [0, 1], 2, ["n"])])
    graph = decode_graph(data)
    assert [str(g) for g in graph.guards] in (["n == m"], ["m == n"], ["n + -m == 0"])
    outputs, _ = replay(graph, [nd.ones(7), nd.ones(7)], nd.cpu())
    np.testing.assert_array_equal(outputs[0].asnumpy(), np.full(7, 2))
    with pytest.raises(ValueError, match="hold"):
        replay(graph, [nd.ones(7), nd.ones(3)], nd.cpu())
    with pytest.raises(ValueError, match="hold"):
        evaluate_graph(graph, [np.ones(7, np.float32), np.ones(3, np.float32)])
    again = decode_graph(json.loads(json.dumps(encode_graph(graph))))
    assert list(map(str, again.guards)) == list(map(str, graph.guards))


def test_bodies_have_the_symbols_of_the_graph_around_them():
    def forged(hint, inner):
        body = {"name": "body", "symbols": {"n": hint}, "inputs": [{"dtype": "float32", "shape": ["n"]}], "outputs": [1],
                "equations": [entry("negative", [0], 1, ["n"])]}
        other = {**body, "symbols": {"n": 4, **inner}}
        branch = {**entry("branch", [0, 1], 2, ["n"]), "attrs": {"then": {"graph": body}, "otherwise": {"graph": other}}}
        return {**unguarded({"n": 4}, [], [branch]), "outputs": [2],
                "inputs": [{"dtype": "bool", "shape": []}, {"dtype": "float32", "shape": ["n"]}]}

    assert decode_graph(forged(4, {})).guards == ()
    for data in (forged(5, {}), forged(4, {"k": 2})):
        with pytest.raises(FileFormatError, match="graph around it"):
            decode_graph(data)


def test_a_graph_that_is_called_fits_its_arguments():
    def forged(inner, outer, **rest):
        called = unguarded({"n": 4, "m": 4}, inner, [entry("add", [0, 1], 2, inner[0])], **rest)
        call = {**entry("graph_call", [0, 1], 2, outer[0]), "attrs": {"graph": {"graph": called}}}
        return unguarded({"a": 4, "b": 4}, outer, [call])

    (guard,) = decode_graph(forged([["n"], ["m"]], [["a"], ["b"]])).guards
    assert guard.holds({"a": 5, "b": 5}) and not guard.holds({"a": 5, "b": 4})
    (guard,) = decode_graph(forged([["n"], ["n"]], [["a"], ["b"]])).guards  # the second shape isn't read, but must be the same
    assert guard.holds({"a": 5, "b": 5}) and not guard.holds({"a": 5, "b": 4})
    with pytest.raises(FileFormatError, match=r"made for sizes|takes"):
        decode_graph(forged([["n"], ["n"]], [["a"], [5]]))
    with pytest.raises(FileFormatError, match="can't be read off"):
        decode_graph(forged([[{"size": [[2, ["n"]]]}]] * 2, [[8], [8]]))
