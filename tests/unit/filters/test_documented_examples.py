"""The examples of docs/python-filters.md, with the tests that they bring along."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from quicedge.proxy.filters.build_route import unusable_filters
from tests.support.filtered import config_of

PAGE = Path(__file__).parents[3] / "docs" / "python-filters.md"

EXAMPLES = re.findall(
    r"^## Example: ([^\n]+)\n.*?```python\n(.*?)```\n+```python\n(.*?)```",
    PAGE.read_text(),
    re.MULTILINE | re.DOTALL,
)


def test_there_are_three_examples() -> None:
    assert len(EXAMPLES) == 3


def test_the_documented_configuration_builds_the_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    name = "documented_edge_filters"
    (tmp_path / f"{name}.py").write_text("\n".join(code for _, code, _ in EXAMPLES))
    monkeypatch.setattr(sys, "path", [*sys.path])
    config = config_of(found.replace("edge_filters:", f"{name}:"), tmp_path)
    assert len(config.routes[0].filters) == 3
    assert list(unusable_filters(config)) == []


@pytest.mark.parametrize(
    ("code", "test"), [pytest.param(*rest, id=name) for name, *rest in EXAMPLES]
)
async def test_an_example_does_what_it_says(code: str, test: str) -> None:
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, f"{PAGE} (filter)", "exec"), names)
    exec(compile(test, f"{PAGE} (test)", "exec"), names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 1
    await tests[0]()
