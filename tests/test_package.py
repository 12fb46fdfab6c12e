"""The package as such: version, imports, metadata, the guards of CI. Every guard must fail on bad input."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

import pytest

import etnpot

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HEAVY = ("ase", "matplotlib", "numba", "numpy", "opt_einsum", "pydantic", "scipy", "sympy")


def run(*command: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def load_script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------------------------------- version and imports


def test_the_version_stands_in_one_place() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", etnpot.__version__)
    assert "version" in PROJECT["project"]["dynamic"] and "version" not in PROJECT["project"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "etnpot/__init__.py"
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert not re.search(r"^version:", citation, flags=re.MULTILINE)
    assert f"## {etnpot.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_import_is_fast_and_light() -> None:
    program = f"import sys, etnpot; print([name for name in {HEAVY!r} if name in sys.modules])"
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        done = run(sys.executable, "-c", program, PYTHONPATH=str(ROOT))
        times.append(time.perf_counter() - begin)
        assert done.stdout == "[]\n", done.stderr
    assert min(times) < 0.5


@pytest.mark.parametrize("name", etnpot.__all__)
def test_every_public_name_loads(name: str) -> None:
    assert getattr(etnpot, name) is not None
    assert name in dir(etnpot)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        AttributeError, match=r"no attribute 'fitt'; it has ETN, ActiveLearning, DataSet, ETNCalculator"
    ):
        etnpot.fitt  # noqa: B018


def test_the_package_is_typed() -> None:
    assert Path(etnpot.__file__).with_name("py.typed").is_file()


# --------------------------------------------------------------------------------------------------- metadata


def test_lower_bounds_are_those_that_ci_installs() -> None:
    lines = (ROOT / "ci" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    bounds = dict(requirement.split(">=") for requirement in PROJECT["project"]["dependencies"])
    assert pinned.keys() == bounds.keys()
    for name, bound in bounds.items():
        release = [int(part) for part in pinned[name].split(".")]
        wanted = [int(part) for part in bound.split(".")]
        assert release == wanted + [0] * (len(release) - len(wanted)), name


def test_the_package_is_registered_with_ase() -> None:
    registered = {entry.name: entry.value for entry in entry_points(group="ase.plugins")}
    assert registered.get("etnpot") == "etnpot.interfaces.ase_plugin", "install the package: pip install -e ."


ASE_LOOKUP = """
import sys
from ase._4.plugins import plugins
from ase.calculators.calculator import get_calculator_class
(plugin,) = [p for p in plugins.calculators if p.name == "etn"]
calculator = get_calculator_class("etn")
import etnpot
assert calculator is plugin() is etnpot.ETNCalculator
assert get_calculator_class("etn") is calculator
print(plugin.display())
"""


@pytest.mark.parametrize(
    "before",
    [
        "",
        "import etnpot",
        # ASE skips a plugin module that is half imported when the discovery starts
        "import etnpot.interfaces.ase_plugin",
        "import etnpot; etnpot.ETNCalculator",
    ],
)
def test_ase_knows_the_calculator_by_name(before: str) -> None:
    done = run(sys.executable, "-W", "error", "-c", before + "\n" + ASE_LOOKUP)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == ["etn", "(etnpot.interfaces.ase_plugin"]


def test_the_name_costs_nothing_until_it_is_used() -> None:
    program = """
import sys
import etnpot
from etnpot import _ase_name
_ase_name.install()
assert sum("etnpot" in getattr(finder, "__module__", "") for finder in sys.meta_path) == 1
from ase._4.plugins import plugins
assert "etn" in {plugin.name for plugin in plugins.calculators}
assert "numba" not in sys.modules
try:
    import ase.calculators.etnx
except ModuleNotFoundError as error:
    print(error)
"""
    done = run(sys.executable, "-W", "error", "-c", program)
    assert done.stdout == "No module named 'ase.calculators.etnx'\n", done.stderr


def test_ases_own_command_runs_the_calculator(tmp_path: Path) -> None:
    program = """
import sys
import etnpot
from ase import Atoms
from ase.cli.main import main
from ase.io import read
etnpot.ETN("Cu", cutoff=3.0, order=1, l_max=0, seed=0).save("copper.etn")
Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]]).write("dimer.xyz")
main(args=["run", "etn", "dimer.xyz", "-p", "potential=copper.etn", "-o", "result.json"])
atoms = read("dimer.xyz")
atoms.calc = etnpot.ETNCalculator("copper.etn")
assert read("result.json").get_potential_energy() == atoms.get_potential_energy() != 0
"""
    done = run(sys.executable, "-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------------------------------------- documentation

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/*.md")])


@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in PAGES])
def test_links_between_pages_lead_somewhere(page: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:|#", target):
            assert (ROOT / page).parent.joinpath(target.partition("#")[0]).exists(), target


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in ROOT.glob("docs/*.md"):
        assert page.name == "index.md" or f"]({page.name})" in index, page.name


def test_the_quickstart_runs(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5
    program = "\n".join(blocks)
    done = run(sys.executable, "-W", "error", "-c", program, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------------- the guards of CI


def test_the_test_command_of_the_readme_is_what_ci_runs() -> None:
    readme = load_script(ROOT / "ci" / "readme_block.py")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert ".venv/bin/pytest -n auto" in readme.block(text, "test-command")
    compile(readme.block(text, "example"), "README.md", "exec")
    with pytest.raises(ValueError, match="found 0"):
        readme.block(text, "missing")
    with pytest.raises(ValueError, match="found 2"):
        readme.block(text + text, "example")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this system")
@pytest.mark.parametrize(
    ("middle", "status"),
    [
        ("stage middle true", 0),
        ("stage middle false", 1),
        ("stage middle broken", 7),
        ("stage middle exit 5", 5),
    ],
)
def test_a_stage_that_fails_ends_the_run(middle: str, status: int) -> None:
    script = (
        "set -euo pipefail; source ci/stage.sh; broken() { true; (exit 7); echo continued; }; "
        f"stage first true; {middle}; stage last echo reached"
    )
    done = run("bash", "-c", script)
    assert done.returncode == status
    assert ("reached" in done.stdout) == (status == 0)
    assert "continued" not in done.stdout


def test_missing_notebooks_are_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_script(ROOT / "ci" / "run_notebooks.py").main(tmp_path) == 1
    assert "found none" in capsys.readouterr().err


def test_a_slow_first_call_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    check = load_script(ROOT / "ci" / "first_call.py")
    times = {name: {"processor": limit, "clock": 1.0, "call": 1.0} for name, limit in check.LIMITS.items()}
    assert check.verdict(times) == 0
    times["next process"]["processor"] += 0.1
    assert check.verdict(times) == 1
    assert "the next process took 2.1 s, expected at most 2" in capsys.readouterr().out


#: What is wrong, the file that is made to hold it, and the contract that must say so.
BAD_IMPORTS = {
    "upwards": ("so3/__init__.py", "from etnpot import potential", "Imports point one way"),
    "upwards, inside a function": (
        "basis/__init__.py",
        "def f():\n    import etnpot.cli",
        "Imports point one way",
    ),
    "between twins": (
        "reference/__init__.py",
        "import etnpot.kernels",
        "The reference does not use the kernels",
    ),
    "of classes into kernels": (
        "kernels/__init__.py",
        "import etnpot.basis",
        "Kernels are loops over arrays",
    ),
    "of numba": ("network/__init__.py", "import numba", "Only kernels and the compiler decorator"),
    "of nothing, but in no layer": ("helpers.py", "", "Imports point one way"),
}


@pytest.fixture(scope="module")
def skeleton(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The modules that the import contracts name, all empty, under the contracts of the project."""
    root = tmp_path_factory.mktemp("skeleton")
    shutil.copy(ROOT / "pyproject.toml", root)
    for layer in PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]:
        for module in re.findall(r"\w+", layer):
            (root / "etnpot" / module).mkdir(parents=True)
            (root / "etnpot" / module / "__init__.py").touch()
    (root / "etnpot" / "__init__.py").touch()
    return root


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return run(sys.executable, "-c", program, "--no-cache", cwd=root)


def test_the_contracts_hold_for_empty_modules(skeleton: Path) -> None:
    done = lint_imports(skeleton)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", BAD_IMPORTS)
def test_a_bad_import_breaks_a_contract(skeleton: Path, kind: str) -> None:
    name, source, contract = BAD_IMPORTS[kind]
    path = skeleton / "etnpot" / name
    existed = path.exists()
    path.write_text(source + "\n")
    try:
        done = lint_imports(skeleton)
    finally:
        if existed:
            path.write_text("")
        else:
            path.unlink()
    assert done.returncode != 0
    verdict = re.search(rf"{contract}.*?(KEPT|BROKEN)", " ".join(done.stdout.split()))
    if verdict is None:  # a module in no layer stops the check before any verdict
        assert "helpers" in done.stdout + done.stderr and kind.endswith("no layer")
    else:
        assert verdict[1] == "BROKEN", done.stdout + done.stderr
