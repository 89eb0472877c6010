"""What other code may rely on: public names, what loads when, and which room may import which."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest
from journeys import ROOT, run

import automl

ROOMS = ("compressors", "envs", "agents", "automl", "dashboards")
HEAVY = ("torch", "ray", "mlflow", "pydantic", "stable_baselines3", "numpy")
# What a library may be imported by: anything else is a seam broken.
KEEPERS = {
    "mlflow": {"automl/tracking.py"},
    "fsspec": {"automl/remote/folder.py"},
}


def test_public_names_are_pinned_and_there():
    names = [
        "DataConfig", "FinetuneConfig", "Loaders", "NetConfig", "Place", "SearchConfig", "SearchInterrupted",
        "SearchResult", "UserError", "WorkerPlan", "load_exported", "load_net", "load_splits", "resume", "search",
    ]  # fmt: skip
    assert sorted(automl.__all__) == names == sorted(dir(automl))
    assert all(callable(getattr(automl, name)) for name in names)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = automl.nonsense


@pytest.mark.parametrize(
    "code",
    [
        "import automl",
        "from automl.cli import main; import contextlib, io\n"
        "with contextlib.redirect_stdout(io.StringIO()): main(['--help'])",
        "from automl.cli import main; import contextlib, io\n"
        "with contextlib.redirect_stdout(io.StringIO()): main(['search', '--help'])",
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code):
    check = f"{code}\nimport sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout.strip() == ""


def test_help_is_quick(tmp_path):
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        assert run("--help", cwd=tmp_path).code == 0
        times.append(time.perf_counter() - begun)
    # 0.4 s on a quiet machine; others may use this one meanwhile.
    assert min(times) < 0.8


def imports(path: Path) -> set[str]:
    """Packages that a file imports anywhere in it, other than for type checkers alone."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def files() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def test_rooms_import_in_one_direction_only():
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files()
        for name in imports(path)
        if name in ROOMS and ROOMS.index(name) > ROOMS.index(path.relative_to(ROOT).parts[0])
    ]
    assert wrong == []


def test_each_outside_library_stays_behind_its_seam():
    wrong = []
    for path in files():
        place, found = path.relative_to(ROOT).as_posix(), imports(path)
        forbidden = {name for name, keepers in KEEPERS.items() if place not in keepers}
        if not place.startswith("agents/"):
            forbidden.add("stable_baselines3")
        if not place.startswith("automl/cluster/") and place != "automl/workers.py":
            forbidden.add("ray")
        wrong += [f"{place} imports {name}" for name in found & forbidden]
    assert wrong == []


def test_no_file_prints_outside_the_command_line():
    for path in files():
        # The driver is what a job runs: its output is the job's log.
        if "cli" in path.parts or "benchmarks" in path.parts or path.name == "driver.py":
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], path
