"""Imports go downward only, and Trio and SQL are known only where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "blazen_trio"

LAYERS = [
    "errors",
    "_definitions",
    "_state",
    "_codec",
    "_pictures",
    "pictures",
    "_telemetry",
    "telemetry",
    "_concurrency",
    "_clock",
    "_stores",
    "stores",
    "_dispatch",
    "_surface",
    "_runtime",
    "__init__",
    "testing",
    "_cli",
    "__main__",
]
"""Each may import from itself and from those before it."""

PURE = {
    "errors",
    "_definitions",
    "_state",
    "_codec",
    "_pictures",
    "pictures",
    "_telemetry",
    "telemetry",
}
"""The layers that know nothing of Trio."""

FILES = sorted(PACKAGE.rglob("*.py"))


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def is_for_types_only(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def imports_in(node: ast.AST, *, types: bool) -> Iterator[tuple[int, str]]:
    """The modules that are imported anywhere in `node`, by line; `from a import b` gives both a and a.b.

    `types=False` leaves out what only a type checker sees.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((child.lineno, alias.name) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: relative import"
            yield (child.lineno, str(child.module))
            yield from ((child.lineno, f"{child.module}.{alias.name}") for alias in child.names)
        elif types or not is_for_types_only(child):
            yield from imports_in(child, types=types)


def imported_by(path: Path, *, types: bool = True) -> list[tuple[int, str]]:
    return list(imports_in(ast.parse(path.read_text()), types=types))


def layers_imported(path: Path) -> list[tuple[int, str]]:
    """The layers of this package that a file imports from; the package itself counts as its face."""
    found = []
    for line, module in imported_by(path):
        first, _, rest = module.partition(".")
        if first == "blazen_trio":
            part = rest.partition(".")[0]
            if part in LAYERS:
                found.append((line, part))
            elif part:
                found.append((line, "__init__"))  # a public name taken from the face
    return found


def test_every_module_is_in_a_layer():
    assert {layer_of(path) for path in FILES} <= set(LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downward_only(path):
    own = LAYERS.index(layer_of(path))
    upward = [
        f"{path.name}:{line} imports {layer}"
        for line, layer in layers_imported(path)
        if LAYERS.index(layer) > own
    ]
    assert upward == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_trio_and_sql_are_where_they_belong(path):
    libraries = {module.partition(".")[0] for _, module in imported_by(path, types=False)}
    if layer_of(path) in PURE:
        assert "trio" not in libraries
    if "sql" not in path.relative_to(PACKAGE).parts:
        assert not libraries & {"sqlalchemy", "alembic", "sqlite3"}
    assert not libraries & {"pickle", "marshal", "shelve", "asyncio", "anyio"}


def test_no_modules_import_each_other():
    """Not for types either: what two modules need of each other belongs into one below both."""
    names = {_name_of(path): path for path in FILES}
    graph = {
        name: {each for _, each in imported_by(path) if each in names and each != name}
        for name, path in names.items()
    }
    # A package that a module is in, or takes another from, is no import of what that has.
    for name, imported in graph.items():
        graph[name] = {
            each for each in imported if not any(other.startswith(f"{each}.") for other in imported)
        }
    while lowest := {name for name, imported in graph.items() if not imported}:
        graph = {name: imported - lowest for name, imported in graph.items() if name not in lowest}
    assert graph == {}


def _name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_the_dispatcher_knows_stores_by_their_protocol_only():
    allowed = {"blazen_trio._stores"} | {
        f"blazen_trio._stores.{name}"
        for name in ("protocol", "driver", "base", "excerpts", "excerpts.asked_run")
    }
    for path in (PACKAGE / "_dispatch").rglob("*.py"):
        modules = {
            module
            for _, module in imported_by(path)
            if module.startswith("blazen_trio._stores")
            and not module.rpartition(".")[2][0].isupper()
        }
        assert modules <= allowed, path.name


def test_migrations_need_no_other_layer_than_the_stores():
    for path in (ROOT / "migrations").rglob("*.py"):
        assert {layer for _, layer in layers_imported(path)} <= {"_stores"}, path.name


def test_importing_the_package_loads_no_database_library():
    # What is there already, such as what measures coverage, is not the package's.
    program = (
        "import sys; before = {*sys.modules}; import blazen_trio; loaded = {*sys.modules} - before; "
        "sys.exit(sorted({'sqlalchemy', 'alembic', 'sqlite3'} & loaded) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def own_private_names(tree: ast.AST) -> set[str]:
    """What a module itself makes under a private name: functions, classes, attributes of its objects, slots."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)  # in `__slots__`
    return {name for name in found if is_private(name)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nobody_reaches_into_another_modules_private_names(path):
    tree = ast.parse(path.read_text())
    own = own_private_names(tree)
    reached = {
        f"{path.name}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and is_private(node.attr)
        and node.attr not in own
        # What a class inherits is its own.
        and not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"})
        and not (isinstance(node.value, ast.Call) and ast.unparse(node.value) == "super()")
    }
    reached |= {
        f"{path.name}: from {node.module} import {alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("blazen_trio")
        for alias in node.names
        if is_private(alias.name) and alias.name not in set(LAYERS)
    }
    assert reached - ALLOWED == set()


ALLOWED = {
    "scope.py: sys._getframe",
    "engine.py: connection._sock",
    "shapes.py: origin._fields",
    "migrate.py: scripts._upgrade_revs",
}
"""What is of other packages, and has no other way to it; the reason stands beside each in the code."""
