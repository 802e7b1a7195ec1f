"""docs/architecture.md and the words in the code match the tree."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from interop.commands import main as interop
from quicedge.cli import main

ROOT = Path(__file__).resolve().parents[2]
MAP = (ROOT / "docs" / "architecture.md").read_text()
SOURCES = sorted((ROOT / "quicedge").rglob("*.py"))
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("[a-z]*/README.md")]

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


def test_every_package_is_on_the_map() -> None:
    packages = {p.name for p in (ROOT / "quicedge").iterdir() if (p / "__init__.py").exists()}
    block = MAP.split("```")[1]
    assert set(re.findall(r"^  (\w+)/ ", block, re.MULTILINE)) == packages


def test_the_map_names_modules_that_exist() -> None:
    """Paths below `quicedge/` may be written without it."""
    packages = "|".join(p.name for p in (ROOT / "quicedge").iterdir() if p.is_dir())
    named = re.findall(rf"`((?:{packages})/[\w/]+\.py)`", MAP)
    assert len(named) > 20
    assert [name for name in named if not (ROOT / "quicedge" / name).exists()] == []


PROGRAMS: dict[str, click.Command] = {"quicedge": main, "python -m interop": interop}


def commands(text: str, program: str) -> list[list[str]]:
    """What pages say to run: `PROGRAM ...` in console blocks and in backticks."""
    blocks = "\n".join(re.findall(r"```(?:console|sh|bash)\n(.*?)```", text, re.DOTALL))
    blocks = re.sub(r"\s#.*", "", blocks.replace("\\\n", " "))
    lines = [line.removeprefix("$ ") for line in blocks.splitlines()]
    lines += re.findall(rf"`((?:\w+=\S+ )*{program} [^`\n]+)`", text)
    found = (re.search(rf"(?:^|[\s/]){program} (.*)", line) for line in lines)
    return [shlex.split(match[1]) for match in found if match is not None]


def unknown(arguments: list[str], program: str = "quicedge") -> list[str]:
    """The words of a command line that the program does not know."""
    command = PROGRAMS[program]
    known = {"-h", "--help", "--version"}
    strange = []
    for word in arguments:
        if isinstance(command, click.Group) and not word.startswith("-"):
            found = command.get_command(click.Context(command), word)
            if found is None:
                return [*strange, word]
            command = found
            known |= {name for parameter in command.params for name in parameter.opts}
        elif re.fullmatch(r"--?[A-Za-z][\w-]*(=.*)?", word) and word.split("=")[0] not in known:
            strange.append(word)
    return strange


def test_unknown_commands_and_options_are_found() -> None:
    assert unknown(["serve", "--upstream", "x"]) == []
    assert unknown(["serve", "--up", "x"]) == ["--up"]
    assert unknown(["qlog", "statz", "x"]) == ["statz"]
    assert commands("`python -m interop run --all`", "python -m interop") == [["run", "--all"]]
    assert unknown(["run", "--all"], "python -m interop") == ["--all"]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_commands_that_exist(page: Path, program: str) -> None:
    for arguments in commands(page.read_text(), program):
        assert unknown(arguments, program) == [], arguments


def test_make_targets_that_pages_name_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"(?:^\$ |`)make ([a-z ]+)", page.read_text(), re.MULTILINE)
        assert {word for words in named for word in words.split()} <= targets, page


def test_the_conformance_table_names_tests_that_exist() -> None:
    """`path.py` and `path.py::name` below `tests/`; `::name` is of the path before it."""
    tests = ROOT / "tests"
    named = 0
    for line in (tests / "conformance" / "README.md").read_text().splitlines():
        path = tests
        for file, name in re.findall(r"`((?:unit|hostile|integration|regressions)/[\w/]+\.py)?"
                                     r"(?:::(\w+))?`", line):  # fmt: skip
            path = tests / file if file else path
            if file or name:
                named += 1
                assert re.search(rf"def {name}\b", path.read_text()), f"{path}::{name}"
    assert named > 80
