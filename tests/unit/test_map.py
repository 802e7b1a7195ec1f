"""docs/architecture.md and the words in the code match the tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from aioquic.quic.connection import QuicConnection

from quicedge.quic.connection import Connection

ROOT = Path(__file__).resolve().parents[2]
MAP = (ROOT / "docs" / "architecture.md").read_text()
SOURCES = sorted((ROOT / "quicedge").rglob("*.py"))
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")]
MOST_LINES = 520
"""Of a file; README.md says so."""

LINK = re.compile(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)")
NAMED = re.compile(r"`((?:quicedge|tests|bench|docs|deploy|interop)/[\w/.-]+\.\w+)`")
GENERATED = {"interop/runs"}


def missing(text: str, pattern: re.Pattern[str], base: Path) -> list[str]:
    """What `text` names that is not there."""
    return [
        name
        for name in pattern.findall(text)
        if not (base / name).exists()
        and not any(name.startswith(directory) for directory in GENERATED)
    ]


def test_what_is_missing_is_found() -> None:
    assert missing("see [this](no/such.md#a) and `tests/gone.py`", LINK, ROOT) == ["no/such.md"]
    assert missing("see [this](no/such.md#a) and `tests/gone.py`", NAMED, ROOT) == ["tests/gone.py"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_and_link_to_what_is_there(page: Path) -> None:
    text = page.read_text()
    assert missing(text, LINK, page.parent) == []
    assert missing(text, NAMED, ROOT) == []


def test_the_code_names_files_that_are_there() -> None:
    for source in SOURCES:
        assert missing(source.read_text(), NAMED, ROOT) == [], source


def test_every_room_is_on_the_map() -> None:
    rooms = {p.name for p in (ROOT / "quicedge").iterdir() if (p / "__init__.py").exists()}
    block = MAP.split("```")[1]
    assert set(re.findall(r"^  (\w+)/ ", block, re.MULTILINE)) == rooms


def test_the_layers_of_a_connection_are_told_from_the_bottom_up() -> None:
    mro = [c.__name__ for c in Connection.__mro__]
    layers = mro[: mro.index(QuicConnection.__name__)]
    layers = [name for name in reversed(layers) if name in MAP]
    told = re.findall(r"`(\w*Connection)`", MAP.split("From aioquic's")[1])
    assert told[0] == QuicConnection.__name__
    assert told[1 : 1 + len(layers)] == layers
    assert len(layers) == sum(
        "quicedge.quic" in c.__module__ and c.__name__.endswith("Connection")
        for c in Connection.__mro__
    )


def test_no_file_is_too_long_to_read() -> None:
    long = {str(p.relative_to(ROOT)): n for p in SOURCES
            if (n := p.read_text().count("\n")) > MOST_LINES}  # fmt: skip
    assert not long
