"""The tutorials' notebooks run, from first to last cell, in a fresh kernel."""

import warnings
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "tutorials").glob("*.ipynb"))


@pytest.mark.parametrize("epochs", [3, pytest.param(15, marks=pytest.mark.slow)])
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs(path, epochs):
    """As it stands, and with shorter training."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        cell.source = cell.source.replace("epochs=15", f"epochs={epochs}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the notebook machinery; the kernel is another process
        where = {"metadata": {"path": str(ROOT)}}
        nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=where).execute()
    printed = "".join(o.get("text", "") for c in notebook.cells if c.cell_type == "code" for o in c.outputs)
    assert "TraceError" in printed
    assert "same answers: True" in printed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_stored_notebook_is_complete_and_small(path):
    assert path.stat().st_size < 400_000
    notebook = nbformat.read(path, as_version=4)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))  # run once, in order
    assert not any(o.output_type == "error" for c in code for o in c.outputs)
