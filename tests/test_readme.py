"""What README and ARCHITECTURE say: the first model runs, import lines and files exist, every module is named."""

import re
from pathlib import Path

import pytest

from ndarray.settings import SETTINGS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_model_learns_and_loads_again(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    monkeypatch.chdir(tmp_path)
    import ndarray as nd

    nd.random.seed(0)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert float(capsys.readouterr().out.removeprefix("right:")) > 0.97
    import hybrid

    x = names["x"]
    assert abs(hybrid.load("quadrants")(x) - names["net"](x)).max() < 1e-5


IMPORTS = re.findall(r"^\| `.*?\| `((?:from|import) .*?)` \|$", README, flags=re.MULTILINE)


@pytest.mark.parametrize("line", IMPORTS)
def test_the_import_lines_for_users_of_mxnet_work(line):
    exec(line, {})


def test_there_are_import_lines():
    assert len(IMPORTS) >= 8


def test_every_setting_is_in_the_table():
    assert re.findall(r"^\| `(HYBRID_\w+)` \| .+ \(", README, flags=re.MULTILINE) == list(SETTINGS)


def test_links_and_pictures_exist():
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert targets
    assert [t for t in targets if not (ROOT / t).exists()] == []


def test_commands_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([a-z][\w-]*)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_architecture_names_every_module_and_no_other():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+\.py)`", text))
    modules = [p for package in ("ndarray", "hybrid", "jit", "kvstore", "blocks") for p in (ROOT / package).glob("*.py")]
    assert [str(p) for p in modules if p.name != "__init__.py" and p.name not in {n.rpartition("/")[2] for n in named}] == []
    paths = {str(p.relative_to(ROOT)) for folder in ("tutorials", "tests", "benchmarks") for p in (ROOT / folder).glob("*.py")}
    modules += (ROOT / "jit" / "cuda").glob("*.py")
    paths |= {str(p.relative_to(ROOT)) for p in modules}
    assert [n for n in named if n not in paths and not any(p.name == n for p in modules)] == []
