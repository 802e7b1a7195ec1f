"""docs/security.md names tests and limits: each must exist, and be where it says."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path
from typing import NamedTuple, get_args, get_type_hints

import msgspec
import pytest

from quicedge.config import acmelimits, filterlimits, limits
from quicedge.config.schema import Config

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "docs" / "security.md"


class Row(NamedTuple):
    threat: str
    defence: str
    limit: str
    test: str


def rows() -> list[Row]:
    found = []
    for line in RECORD.read_text().splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == 4, line
            if cells[0] != "threat" and set(cells[0]) != {"-"}:
                found.append(Row(*cells))
    return found


@functools.cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    )


def sections(hint: object) -> list[type]:
    """The tables of the configuration that a field's type holds."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return [hint]
    return [found for part in get_args(hint) for found in sections(part)]


def keys(section: type, prefix: str = "") -> set[str]:
    """`table.key` of every key; tables of one kind count as one."""
    found: set[str] = set()
    for name, hint in get_type_hints(section).items():
        found.add(prefix + name)
        for inner in sections(hint):
            found |= keys(inner, f"{prefix}{name}.")
    return found


LIMITS = {*vars(limits), *vars(acmelimits), *vars(filterlimits)}
KEYS = keys(Config)


def test_there_are_rows() -> None:
    assert len(rows()) > 40


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.threat[:50])
def test_what_a_row_names_exists(row: Row) -> None:
    assert row.defence
    for named in re.findall(r"`([^`]+)`", row.test):
        path, _, name = named.partition("::")
        assert name in names_in(path), named
    assert "::" in row.test
    if row.limit != "-":
        names = re.findall(r"`([^`]+)`", row.limit)
        assert names, row.limit
        for name in names:
            assert name in KEYS if "." in name or name.islower() else name in LIMITS, name
