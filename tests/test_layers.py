"""The tree is the architecture: who may import whom, how long a file may be, and what is in the wheel.

Each rule is a function from a tree to its violations; the tests below hold it against this repository, and against
a planted violation that it must catch.
"""

from __future__ import annotations

import ast
import re
import statistics
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
ROOTS = ("src", "kernels", "modalities")
KERNEL_GUESTS = {"triton", "numpy", "peft", "rapidfuzz", "rensa"}  # inside one function of kernels/ only
KERNEL_USERS = {"gates", "train", "evaluate"}  # folders of src/tercet that may import tercet_kernels
MOST_LINES = 400
MEDIAN_LINES = 150
MODULE_NAMED = re.compile(r"(tercet_\w+)(?:\.\w+)*:\w+")


def modules(tree: Path, *roots: str) -> list[Path]:
    return sorted(path for root in roots for path in (tree / root).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield (top-level package, is it imported inside a function) for each import of a module."""
    parsed = ast.parse(path.read_text())
    inside = {
        id(node)
        for function in ast.walk(parsed)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], id(node) in inside
        elif isinstance(node, ast.ImportFrom):
            yield ("." if node.level else (node.module or "").split(".")[0]), id(node) in inside


def named_modules(path: Path) -> Iterator[str]:
    """Yield the package of each "package.module:attribute" written as a string."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = MODULE_NAMED.fullmatch(node.value)
            if found:
                yield found[1]


def ours(package: str) -> bool:
    return package == "tercet" or package.startswith("tercet_")


def wrong_imports(tree: Path) -> list[str]:
    wrong = []
    for path in modules(tree, *ROOTS):
        for name, in_function in imports(path):
            reason = reason_against(path.relative_to(tree), name, in_function=in_function)
            if reason:
                wrong.append(f"{path.relative_to(tree)}: imports {name}: {reason}")
        if path.is_relative_to(tree / "src"):
            wrong += [f"{path.relative_to(tree)}: names {name} in a string" for name in named_modules(path)]
    return wrong


def reason_against(path: Path, name: str, *, in_function: bool) -> str:
    """Say why the module at `path` may not import the package `name`; empty where it may."""
    root, package, below = path.parts[:3]
    if name == ".":
        return "relative import; write the package's name"
    if root == "kernels":
        if ours(name) and name != "tercet_kernels":
            return "kernels know nothing of ours"
        late_enough = in_function or path.name == "fused.py"
        return "import it inside the function" if name in KERNEL_GUESTS and not late_enough else ""
    allowed = {"tercet", package}
    if root == "modalities" or below in KERNEL_USERS:
        allowed.add("tercet_kernels")
    return f"{package} may import of ours: {', '.join(sorted(allowed))}" if ours(name) and name not in allowed else ""


def long_files(tree: Path) -> list[str]:
    lengths = {path: len(path.read_text().splitlines()) for path in modules(tree, *ROOTS)}
    wrong = [f"{path.relative_to(tree)}: {lines} lines" for path, lines in lengths.items() if lines > MOST_LINES]
    written = [lines for lines in lengths.values() if lines]
    median = statistics.median(written) if written else 0
    return wrong + [f"the median module has {median:.0f} lines; {MEDIAN_LINES} at most"] * (median > MEDIAN_LINES)


def packaging_faults(tree: Path) -> list[str]:
    project = tomllib.loads((tree / "pyproject.toml").read_text())
    listed = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    present = {
        folder.relative_to(tree).as_posix()
        for root in ROOTS
        if (tree / root).is_dir()
        for folder in (tree / root).iterdir()
        if any(folder.rglob("*.py"))
    }
    wrong = [f"{name}: not in pyproject's wheel packages" for name in sorted(present - listed)]
    wrong += [f"{name}: in pyproject's wheel packages, but not in the tree" for name in sorted(listed - present)]
    wrong += [f"{name}: no py.typed" for name in sorted(present) if not (tree / name / "py.typed").is_file()]
    for name in sorted(present):
        folders = sorted({path.parent for path in (tree / name).rglob("*.py")})
        wrong += [
            f"{folder.relative_to(tree)}: no __init__.py"
            for folder in folders
            if not (folder / "__init__.py").is_file()
        ]
    return wrong


def roots_that_are_packages(tree: Path) -> list[str]:
    """List roots with an `__init__.py`: it would hide the packages of the same name on PyPI."""
    return [f"{root}/__init__.py" for root in ROOTS if (tree / root / "__init__.py").exists()]


RULES: list[Callable[[Path], list[str]]] = [wrong_imports, long_files, packaging_faults, roots_that_are_packages]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_this_repository_keeps_the_rule(rule: Callable[[Path], list[str]]) -> None:
    assert rule(REPOSITORY) == []


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small repository that keeps every rule, kernels included."""
    files = {
        "src/tercet/__init__.py": "from tercet import gates\n",
        "src/tercet/gates/__init__.py": "import tercet_kernels\n",
        "kernels/tercet_kernels/__init__.py": "import torch\n\n\ndef run():\n    import triton\n",
        "kernels/tercet_kernels/lora/__init__.py": "",
        "kernels/tercet_kernels/lora/fused.py": "import triton\n",
        "modalities/tercet_text/__init__.py": "import tercet\nimport tercet_kernels\nimport tercet_text.plan\n",
        "modalities/tercet_text/plan.py": "PLAN = 'tercet_text.plan:plan'\n",
    }
    packages = ["src/tercet", "kernels/tercet_kernels", "modalities/tercet_text"]
    for package in packages:
        files[f"{package}/py.typed"] = ""
    files["pyproject.toml"] = f"[tool.hatch.build.targets.wheel]\npackages = {packages}\n"
    for name, text in files.items():
        plant(tmp_path, name, text)
    return tmp_path


def plant(tree: Path, name: str, text: str) -> None:
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    (tree / name).write_text(text)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_tree_without_fault_passes(rule: Callable[[Path], list[str]], tree: Path) -> None:
    assert rule(tree) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("src/tercet/core.py", "import tercet_text\n"),
        ("src/tercet/core.py", "def f():\n    from tercet_audio.plan import plan\n"),
        ("src/tercet/core.py", "import tercet_kernels\n"),
        ("src/tercet/pipeline/__init__.py", "from tercet_kernels import lora\n"),
        ("src/tercet/core.py", "PLUG_IN = 'tercet_text.plan:plan'\n"),
        ("src/tercet/core.py", "from . import gates\n"),
        ("kernels/tercet_kernels/top.py", "import triton\n"),
        ("kernels/tercet_kernels/top.py", "def f():\n    import tercet\n"),
        ("kernels/tercet_kernels/top.py", "from tercet_text import plan\n"),
        ("modalities/tercet_text/more.py", "import tercet_audio\n"),
        ("modalities/tercet_text/more.py", "def f():\n    import tercet_image.plan\n"),
    ],
)
def test_a_planted_import_is_caught(tree: Path, name: str, text: str) -> None:
    plant(tree, name, text)
    assert [fault for fault in wrong_imports(tree) if fault.startswith(name)]


def test_a_file_of_401_lines_is_caught_and_one_of_400_is_not(tree: Path) -> None:
    plant(tree, "src/tercet/long.py", "x = 1\n" * 400)
    assert long_files(tree) == []
    plant(tree, "src/tercet/long.py", "x = 1\n" * 401)
    assert long_files(tree) == ["src/tercet/long.py: 401 lines"]


def test_a_median_above_150_lines_is_caught(tree: Path) -> None:
    for number in range(20):
        plant(tree, f"src/tercet/part{number}.py", "x = 1\n" * 151)
    assert long_files(tree) == ["the median module has 151 lines; 150 at most"]


def test_a_package_that_the_wheel_forgets_is_caught(tree: Path) -> None:
    plant(tree, "modalities/tercet_video/__init__.py", "")
    assert packaging_faults(tree) == [
        "modalities/tercet_video: not in pyproject's wheel packages",
        "modalities/tercet_video: no py.typed",
    ]


def test_a_listed_package_that_is_absent_is_caught(tree: Path) -> None:
    (tree / "kernels/tercet_kernels/py.typed").unlink()
    for path in modules(tree, "kernels"):
        path.unlink()
    assert packaging_faults(tree) == ["kernels/tercet_kernels: in pyproject's wheel packages, but not in the tree"]


def test_a_folder_without_init_is_caught(tree: Path) -> None:
    plant(tree, "src/tercet/report/page.py", "")
    assert packaging_faults(tree) == ["src/tercet/report: no __init__.py"]


@pytest.mark.parametrize("root", ROOTS)
def test_a_root_that_became_a_package_is_caught(tree: Path, root: str) -> None:
    plant(tree, f"{root}/__init__.py", "")
    assert roots_that_are_packages(tree) == [f"{root}/__init__.py"]
