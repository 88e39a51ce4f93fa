"""Layers import downward only, and only some layers may import Trio or SQL libraries."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
"""The layers, lowest first. Each may import from itself and from the layers before it."""

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
"""The layers that must not import Trio."""

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
    """Yield the line and name of each module imported anywhere in `node`.

    `from a import b` yields both `a` and `a.b`. `types=False` leaves out imports that only a type
    checker sees.
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
    """Return the layers that a file imports from. The package itself counts as `__init__`."""
    found = []
    for line, module in imported_by(path):
        first, _, rest = module.partition(".")
        if first == "blazen_trio":
            part = rest.partition(".")[0]
            if part in LAYERS:
                found.append((line, part))
            elif part:
                found.append((line, "__init__"))  # a public name, imported from the package itself
    return found


def test_every_module_is_in_a_layer():
    assert {layer_of(path) for path in FILES} <= set(LAYERS)


def test_layers_import_downward_only():
    upward = [
        f"{path.relative_to(ROOT)}:{line} imports {layer}"
        for path in FILES
        for line, layer in layers_imported(path)
        if LAYERS.index(layer) > LAYERS.index(layer_of(path))
    ]
    assert upward == []


def test_only_the_layers_that_may_import_trio_and_sql_do():
    for path in FILES:
        libraries = {module.partition(".")[0] for _, module in imported_by(path, types=False)}
        if layer_of(path) in PURE:
            assert "trio" not in libraries, path
        if "sql" not in path.relative_to(PACKAGE).parts:
            assert not libraries & {"sqlalchemy", "alembic", "sqlite3"}, path
        assert not libraries & {"pickle", "marshal", "shelve", "asyncio", "anyio"}, path


def test_there_are_no_import_cycles():
    """Imports for types count, too: code that two modules share belongs in one below both."""
    names = {_name_of(path): path for path in FILES}
    graph = {
        name: {each for _, each in imported_by(path) if each in names and each != name}
        for name, path in names.items()
    }
    # Importing `a.b` also names the package `a`. That is not an import of what `a` contains.
    for name, imported in graph.items():
        graph[name] = {
            each for each in imported if not any(other.startswith(f"{each}.") for other in imported)
        }
    while lowest := {name for name, imported in graph.items() if not imported}:
        graph = {name: imported - lowest for name, imported in graph.items() if name not in lowest}
    assert graph == {}


def _name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_the_dispatcher_imports_only_the_protocol_of_stores():
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


def test_migrations_import_from_stores_only():
    for path in (ROOT / "migrations").rglob("*.py"):
        assert {layer for _, layer in layers_imported(path)} <= {"_stores"}, path.name


def test_importing_the_package_loads_no_database_library():
    # Modules loaded before the import do not count: a coverage tool may have loaded them.
    program = (
        "import sys; before = {*sys.modules}; import blazen_trio; "
        "loaded = {*sys.modules} - before; "
        "sys.exit(sorted({'sqlalchemy', 'alembic', 'sqlite3'} & loaded) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def own_private_names(tree: ast.AST) -> set[str]:
    """Return the private names that a module defines: functions, classes, attributes, slots."""
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


def test_modules_do_not_use_each_others_private_names():
    assert set().union(*map(private_names_reached, FILES)) - ALLOWED == set()


def private_names_reached(path: Path) -> set[str]:
    """Return the uses of private names that a module does not define itself."""
    tree = ast.parse(path.read_text())
    own = own_private_names(tree)
    reached = {
        f"{path.name}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and is_private(node.attr)
        and node.attr not in own
        # Inherited names are the class's own.
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
    return reached


ALLOWED = {
    "scope.py: sys._getframe",
    "engine.py: connection._sock",
    "shapes.py: origin._fields",
    "migrate.py: scripts._upgrade_revs",
}
"""Private names of other packages that have no public equivalent. The code says why at each use."""
