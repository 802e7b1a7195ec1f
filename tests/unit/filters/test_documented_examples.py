"""The examples of docs/python-filters.md, with the tests that they bring along."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "python-filters.md"

EXAMPLES = re.findall(
    r"^## Example: ([^\n]+)\n.*?```python\n(.*?)```\n+```python\n(.*?)```",
    PAGE.read_text(),
    re.MULTILINE | re.DOTALL,
)


def test_there_are_three_examples() -> None:
    assert len(EXAMPLES) == 3


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
