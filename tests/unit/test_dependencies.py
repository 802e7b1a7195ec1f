"""What the code imports is what `pip install quicedge` brings, or an extra that the docs name."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
FOR_DEVELOPMENT = {"test", "fuzz"}
SOURCES = sorted((ROOT / "quicedge").rglob("*.py"))
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/*.md"), *SOURCES]


def distribution(requirement: str) -> str:
    """The normalized name in a requirement."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;]", requirement)[0]).lower()


DECLARED = {
    distribution(requirement)
    for requirements in (
        PROJECT["dependencies"],
        *(found for name, found in EXTRAS.items() if name not in FOR_DEVELOPMENT),
    )
    for requirement in requirements
}
BROUGHT = {"redis": "limits", "requests": "acme", "certifi": "acme"}
"""What others stand on, or bring as an extra."""


@cache
def known() -> dict[str, list[str]]:
    """The distributions of this environment by the package that they install."""
    return {
        package: [distribution(name) for name in names]
        for package, names in packages_distributions().items()
    }


def imported(path: Path) -> Iterator[str]:
    """The packages that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_every_library_that_is_imported_is_declared() -> None:
    missing = set()
    for path in SOURCES:
        for package in imported(path):
            if package in sys.stdlib_module_names or package == "quicedge":
                continue
            names = known().get(package, [package])
            if not any(name in DECLARED or BROUGHT.get(name) in DECLARED for name in names):
                missing.add(f"{package} ({path.relative_to(ROOT)})")
    assert not missing


def test_every_extra_that_is_named_exists() -> None:
    missing = set()
    for path in PAGES:
        text = path.read_text()
        named = re.findall(r"quicedge\[(\w+)\]", text) + re.findall(r"extras? `(\w+)`", text)
        missing |= {f"{name} ({path.relative_to(ROOT)})" for name in set(named) - EXTRAS.keys()}
    assert not missing
