"""No module imports itself by way of others: not at the top, not inside a function, not for types alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("lora_lab", "lora_course")


def _modules(root: Path, packages: tuple[str, ...]) -> dict[str, Path]:
    paths = [path for package in packages for path in (root / package).rglob("*.py")]
    parts = {path: path.relative_to(root).with_suffix("").parts for path in paths}
    return {".".join(part[:-1] if part[-1] == "__init__" else part): path for path, part in parts.items()}


def _imported(module: str, path: Path) -> Iterator[tuple[str, ...]]:
    """What each import names, the longest name first: of `from a import b`, `a.b` and then `a`."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name,) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            home = resolve_name("." * node.level + (node.module or ""), package)
            yield from ((f"{home}.{alias.name}", home) for alias in node.names)


def imports(root: Path, packages: tuple[str, ...]) -> dict[str, set[str]]:
    """The modules that each module imports. A package's own public names, looked up when used, are no imports."""
    modules = _modules(root, packages)
    return {
        module: {
            next(name for name in names if name in modules)
            for names in _imported(module, path)
            if module not in packages and any(name in modules for name in names)
        }
        for module, path in modules.items()
    }


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """Groups of modules, each of which reaches all others of its group, and a module that imports itself."""

    def reached(module: str) -> set[str]:
        seen: set[str] = set()
        ahead = [module]
        while ahead:
            fresh = graph[ahead.pop()] - seen
            seen |= fresh
            ahead.extend(fresh)
        return seen

    reach = {module: reached(module) for module in graph}
    return {
        frozenset(other for other in reach[module] if module in reach[other])
        for module in graph
        if module in reach[module]
    }


def test_no_module_imports_itself_by_way_of_others():
    assert circles(imports(ROOT, PACKAGES)) == set()
