"""The rules about imports in docs/architecture.md, checked against the source."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
ROOT = CHECKOUT / "quicedge"

PACKAGES = (
    "cli", "migrate", "supervisor", "admin", "worker", "acme", "downstream", "proxy", "upstream",
    "filters", "http", "quic", "udp", "tcp", "client_auth", "telemetry", "qlog", "shares", "config",
)  # fmt: skip
"""From the top down: a package imports only packages below itself."""

FORBIDDEN = {
    "udp": {"quic", "http", "tcp"},
    "tcp": {"quic", "http", "udp"},
    "quic": {"http"},
    "upstream": {"quic", "proxy", "worker"},
    "downstream": {"upstream"},
    "qlog": {"quic", "http", "worker", "telemetry", "udp", "upstream", "proxy"},
}

NO_IO = {"asyncio", "socket", "selectors", "time", "datetime", "uvloop", "ssl"}
"""Modules that `http` must do without: it does no IO and reads no clock."""

NO_CLOCK = {"asyncio", "time", "uvloop"}
"""Modules that `quic` must do without: time is always a parameter."""

MAY_IMPORT_AIOQUIC = {"quic"}


def imported(tree: ast.AST) -> Iterator[tuple[str, str | None, int]]:
    """(module, name, line) of every import in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                yield node.module, alias.name, node.lineno


def package_of(module: str, name: str | None = None) -> str | None:
    parts = module.split(".")
    if parts[0] != "quicedge":
        return None
    if len(parts) > 1:
        return parts[1]
    return name if name in PACKAGES else None


def violations(source: str, package: str, path: str) -> list[str]:
    """What a file of a package imports or touches against the rules."""
    tree = ast.parse(source)
    found = []
    for module, name, line in imported(tree):
        top = module.split(".")[0]
        other = package_of(module, name)
        if other in PACKAGES and other != package:
            is_above = PACKAGES.index(other) < PACKAGES.index(package)
            if is_above or other in FORBIDDEN.get(package, ()):
                found.append(f"{path}:{line}: {package} imports {other}")
        if top == "aioquic" and package not in MAY_IMPORT_AIOQUIC:
            found.append(f"{path}:{line}: {package} imports aioquic")
        if top == "aioquic" and name is not None and name.startswith("_"):
            found.append(f"{path}:{line}: a private name of aioquic")
        if package == "http" and top in NO_IO:
            found.append(f"{path}:{line}: http imports {top}")
        if package == "quic" and top in NO_CLOCK:
            found.append(f"{path}:{line}: quic imports {top}")
    if package == "quic":
        found += [f"{path}:{line}: touches {attr}" for attr, line in private_attributes(tree)]
    return found


def private_attributes(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """`x._name` where x is not self or cls: a private name of something else."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and node.attr.startswith("_")
            and not node.attr.startswith("__")
            and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
        ):
            yield node.attr, node.lineno


def files() -> list[tuple[str, Path]]:
    return [
        (path.relative_to(ROOT).parts[0], path)
        for path in sorted(ROOT.rglob("*.py"))
        if path.relative_to(ROOT).parts[0] in PACKAGES
    ]


def test_every_package_is_there() -> None:
    assert {package for package, _ in files()} == set(PACKAGES)


@pytest.mark.parametrize(
    ("package", "path"), files(), ids=lambda value: value if isinstance(value, str) else value.name
)
def test_imports_point_down(package: str, path: Path) -> None:
    where = str(path.relative_to(ROOT.parent))
    assert violations(path.read_text(), package, where) == []


@pytest.mark.parametrize(
    ("source", "package"),
    [
        ("from quicedge.quic import events", "udp"),
        ("from quicedge.http.h3 import H3Connection", "quic"),
        ("import quicedge.worker.edge", "proxy"),
        ("from quicedge.proxy.exchange import Exchange", "upstream"),
        ("from quicedge import worker", "telemetry"),
        ("from quicedge.telemetry import stats", "qlog"),
        ("import asyncio", "http"),
        ("from time import monotonic", "quic"),
        ("from aioquic.buffer import Buffer", "worker"),
        ("from aioquic.tls import _x", "quic"),
        ("def f(c):\n    return c._loss", "quic"),
    ],
)
def test_the_reader_sees_a_broken_rule(source: str, package: str) -> None:
    assert violations(source, package, f"quicedge/{package}/x.py")


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """What each module imports of the others, under TYPE_CHECKING and in functions too."""
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        used = graph[module] = set()
        for other, name, _ in imported(ast.parse(source)):
            submodule = f"{other}.{name}"
            used.add(submodule if submodule in sources else other)
        used &= sources.keys() - {module}
    return graph


def circle_in(sources: Mapping[str, str]) -> list[str]:
    """The modules of one import circle; empty when there is none."""
    try:
        TopologicalSorter(import_graph(sources)).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle_in({module_of(path): path.read_text() for path in ROOT.rglob("*.py")}) == []


def test_a_circle_is_found_under_type_checking_in_functions_and_through_packages() -> None:
    sources = {
        "quicedge.a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import quicedge.b",
        "quicedge.b": "def f():\n    from quicedge import c",
        "quicedge.c": "from quicedge.a import A",
    }
    assert set(circle_in(sources)) == sources.keys()
    assert circle_in(sources | {"quicedge.c": "import json"}) == []


# --- the installed product and the checkout -------------------------------------------------------


def checkout_only() -> set[str]:
    """Folders of the checkout with Python code that pip does not install."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    installed = project["tool"]["setuptools"]["packages"]["find"]["include"]
    return {
        folder.name
        for folder in CHECKOUT.iterdir()
        if folder.is_dir()
        and folder.name.isidentifier()
        and not any(fnmatch(folder.name, pattern) for pattern in installed)
        and next(folder.rglob("*.py"), None) is not None
    }


def imports_of(source: str, names: set[str]) -> list[str]:
    """Modules of `names` that a file imports."""
    found = imported(ast.parse(source))
    return sorted({module for module, _, _ in found if module.split(".")[0] in names})


def test_folders_that_pip_does_not_install() -> None:
    assert {"interop", "bench", "tests"} <= checkout_only()
    assert "quicedge" not in checkout_only()


def test_the_installed_product_imports_nothing_of_the_checkout_beside_it() -> None:
    beside = checkout_only()
    sources = {str(path.relative_to(CHECKOUT)): path.read_text() for path in ROOT.rglob("*.py")}
    found = {where: imports_of(source, beside) for where, source in sources.items()}
    assert {where: modules for where, modules in found.items() if modules} == {}


@pytest.mark.parametrize("folder", ["runner", "peers"])
def test_the_interop_runner_imports_nothing_of_quicedge(folder: str) -> None:
    for path in (CHECKOUT / "interop" / folder).rglob("*.py"):
        assert imports_of(path.read_text(), {"quicedge"}) == [], path


def test_imports_of_named_packages_are_found() -> None:
    source = "def f():\n    from interop.runner import cases\nimport bench.run\nimport benchmark"
    assert imports_of(source, {"interop", "bench"}) == ["bench.run", "interop.runner"]
