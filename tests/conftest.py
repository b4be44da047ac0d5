"""Golden text files: `golden(name, text)` compares with tests/golden/<name>; `pytest --update-golden` rewrites them."""

from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite the files in tests/golden that differ")
    parser.addoption("--fuzz-seconds", type=int, default=30, help="how long random graphs are tested (30)")
    parser.addoption("--fuzz-seed", type=int, default=20261121, help="the first seed of the random graphs")


@pytest.fixture
def golden(request):
    """A function that asserts that a text equals a golden file."""

    def check(name, text):
        path, text = GOLDEN / name, text.rstrip("\n") + "\n"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        expected = (
            path.read_text(encoding="utf-8") if path.exists() else f"<no file {path}: run pytest --update-golden>"
        )
        assert text == expected

    return check
