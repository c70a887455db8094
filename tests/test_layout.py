"""The shape of the source: imports go one way, and no road leads round that."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "graphc"

# A file imports from its own entry and from those before it, and from nothing else of graphc.
ORDER = (
    "errors", "structs", "data", "graph", "ops", "reference", "rewrite", "notation", "dsl", "diff", "kernels", "llvm",
    "runtime", "inspect", "pipeline", "look", "probes", "compiler", "study", "__init__", "cli", "__main__",
)

# Heavy packages of others may be imported where they are used; all else is imported at the top of its file.
HEAVY = ("sympy", "llvmlite", "matplotlib", "tqdm", "safetensors", "resvg_py")
# So may these of graphc, which only look at what is compiled; the package's own file names theirs for type checkers.
LOOKING = ("graphc.look", "graphc.probes", "graphc.study", "graphc.inspect.draw")


def module_name(path: Path, package: Path) -> str:
    """The dotted name of a file: ``graphc.graph.sizes``; a package's ``__init__.py`` has the package's name."""
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def entry(module: str) -> str:
    """The part of ``ORDER`` that a module belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imported(
    node: ast.Import | ast.ImportFrom, module: str, modules: Mapping[str, ast.Module], is_package: bool
) -> list[str]:
    """The dotted names that one import takes; ``from graphc.ops import table`` takes the module where there is one."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if node.level:
        base = module.split(".")[: len(module.split(".")) - node.level + is_package]
        source = ".".join([*base, *([node.module] if node.module else [])])
    else:
        source = node.module or ""
    return [f"{source}.{alias.name}" if f"{source}.{alias.name}" in modules else source for alias in node.names]


def faults_of_file(module: str, modules: Mapping[str, ast.Module], is_package: bool) -> tuple[list[str], list[str]]:
    """What is wrong with one file's imports, and the modules of the same project that it imports."""
    faults: list[str] = []
    edges: list[str] = []
    root = module.split(".")[0]
    top_level = set(map(id, modules[module].body))
    for node in ast.walk(modules[module]):
        name_or_attribute = getattr(node, "id", None) or getattr(node, "attr", None)
        if isinstance(node, (ast.Name, ast.Attribute)) and name_or_attribute == "TYPE_CHECKING":
            if module != root:
                faults.append(f"{module}:{node.lineno}: TYPE_CHECKING")
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        at = f"{module}:{node.lineno}"
        if any(alias.name == "*" for alias in node.names):
            faults.append(f"{at}: star import")
        for name in imported(node, module, modules, is_package):
            ours = name.split(".")[0] == root
            late = name in LOOKING if ours else name.split(".")[0] in HEAVY
            if id(node) not in top_level and not late:
                faults.append(f"{at}: imports {name} inside a function or branch")
            if not ours:
                continue
            edges.append(name)
            if entry(name) not in ORDER:
                faults.append(f"{at}: {name} has no place in the order")
            elif entry(module) in ORDER and ORDER.index(entry(name)) > ORDER.index(entry(module)):
                faults.append(f"{at}: imports {name}, which comes later")
    if entry(module) not in ORDER:
        faults.append(f"{module}: has no place in the order")
    return faults, edges


def cycle(edges: Mapping[str, list[str]]) -> list[str]:
    """The modules that stand on import cycles or between two of them; empty when there is none."""
    left = {name: {other for other in others if other in edges} for name, others in edges.items()}
    while True:
        wanted = set().union(*left.values())
        kept = {name: others for name, others in left.items() if others and name in wanted}
        if len(kept) == len(left):
            return sorted(left)
        left = {name: others & kept.keys() for name, others in kept.items()}


def faults(package: Path) -> list[str]:
    """Everything that the files of a package do against the rules above."""
    paths = {module_name(path, package): path for path in sorted(package.rglob("*.py"))}
    modules = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in paths.items()}
    found: list[str] = []
    edges: dict[str, list[str]] = {}
    for name, path in paths.items():
        wrong, edges[name] = faults_of_file(name, modules, path.name == "__init__.py")
        found += wrong
    if on_cycle := cycle(edges):
        found.append("import cycle: " + ", ".join(on_cycle))
    return found


def test_imports_go_one_way() -> None:
    assert len(list(PACKAGE.rglob("*.py"))) > 10
    assert faults(PACKAGE) == []


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """A package ``graphc`` in ``folder`` with these files beside empty ``__init__.py`` files."""
    for name, text in {"graph/__init__.py": "", "ops/__init__.py": "", "__init__.py": "", **files}.items():
        path = folder / "graphc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "graphc"


B = {"ops/b.py": ""}
LATER = "graphc.graph.a:1: imports graphc.ops.b, which comes later"
PLANTED = {
    "later": ({"graph/a.py": "import graphc.ops.b\n", **B}, LATER),
    "later_from": ({"graph/a.py": "from graphc.ops import b\n", **B}, LATER),
    "later_relative": ({"graph/a.py": "from ..ops import b\n", **B}, LATER),
    "root": ({"graph/a.py": "import graphc\n"}, "graphc.graph.a:1: imports graphc, which comes later"),
    "star": ({"ops/b.py": "from graphc.graph import *\n"}, "graphc.ops.b:1: star import"),
    "in_function": (
        {"ops/b.py": "def f() -> None:\n    import graphc.graph\n"},
        "graphc.ops.b:2: imports graphc.graph inside a function or branch",
    ),
    "light_in_function": (
        {"ops/b.py": "def f() -> None:\n    import json\n"},
        "graphc.ops.b:2: imports json inside a function or branch",
    ),
    "type_checking": ({"ops/b.py": "import typing\nx = typing.TYPE_CHECKING\n"}, "graphc.ops.b:2: TYPE_CHECKING"),
    "stranger": ({"zoo/a.py": ""}, "graphc.zoo.a: has no place in the order"),
    "cycle": (
        {
            "ops/a.py": "import graphc.ops.b\n",  # beside the cycle, not on it
            "ops/b.py": "import graphc.ops.c\n",
            "ops/c.py": "from graphc.ops import b\nfrom graphc.ops import d\n",
            "ops/d.py": "",
        },
        "import cycle: graphc.ops.b, graphc.ops.c",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_fault_is_found(name: str, tmp_path: Path) -> None:
    files, message = PLANTED[name]
    assert faults(write(tmp_path, files)) == [message]


def test_what_is_allowed_passes(tmp_path: Path) -> None:
    files = {
        "graph/a.py": "",
        "ops/b.py": "from graphc.graph import a\nfrom .c import y\n\ndef f() -> None:\n    import sympy\n",
        "ops/c.py": "y = 1\n",
        "cli.py": "import graphc\n",
    }
    assert faults(write(tmp_path, files)) == []


def test_import_loads_nothing_heavy() -> None:
    code = f"import sys, graphc; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("[]", "", 0)
