"""How the class of a filter is found and built, and what is said when it is not."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from quicedge.config.filters import Python
from quicedge.config.loader import parse_config
from quicedge.config.unusable import UnusableError
from quicedge.filters import Filter
from quicedge.proxy.filters import python_class
from quicedge.proxy.filters.python_class import build_filter

_numbers = itertools.count()

CODE = """
from quicedge.filters import Filter
class Good(Filter):
    VERSION = 1
    def __init__(self, share=0.5, *, names=()):
        if share > 1:
            raise ValueError("share is more than 1")
        self.share = share
class Other: ...
class Late(Filter):
    async def on_done(self, context): ...
def function(): ...
"""


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    sys.path[:] = [path for path in sys.path if path != str(tmp_path)]


def module(directory: Path, code: str = CODE) -> str:
    name = f"quicedge_filter_{next(_numbers)}"
    (directory / f"{name}.py").write_text(code)
    return name


def build(directory: Path, name: str, **options: object) -> Filter:
    settings = Python(filter=name, options=dict(options), directory=str(directory))
    return build_filter(settings, "routes[0].filters[1].python")


def test_options_are_keyword_arguments(directory: Path) -> None:
    built = build(directory, f"{module(directory)}:Good", share=0.1, names=["a"])
    assert built.share == 0.1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("attribute", "options", "message"),
    [
        ("Missing", {}, r"filter: .* has no attribute 'Missing'"),
        ("Other", {}, r"filter: .* is no subclass of quicedge.filters.Filter"),
        ("function", {}, r"filter: .* is no subclass of quicedge.filters.Filter"),
        ("Late", {}, r"filter: .*on_done must not be a coroutine function"),
        ("Good", {"shares": 1}, r"options: .*unexpected keyword argument 'shares'"),
        ("Good", {"share": 2}, r"options: .*ValueError: share is more than 1 \(.*\.py, line 7\)"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    directory: Path, attribute: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UnusableError, match=r"^routes\[0\]\.filters\[1\]\.python\." + message):
        build(directory, f"{module(directory)}:{attribute}", **options)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import quicedge_no_such_thing", "ModuleNotFoundError: .*line 1"),
        ("\n1 / 0", "ZeroDivisionError: .*line 2"),
        ("class X(:", "SyntaxError: .*line 1"),
        ("import sys; sys.exit(3)", r"SystemExit: 3 \(.*line 1"),
    ],
)
def test_the_line_of_a_failing_module_is_named(directory: Path, code: str, message: str) -> None:
    with pytest.raises(UnusableError, match=message):
        build(directory, f"{module(directory, code)}:X")


def test_a_missing_module_is_named(directory: Path) -> None:
    with pytest.raises(UnusableError, match="No module named 'quicedge_absent'"):
        build(directory, "quicedge_absent:X")


def test_changed_code_is_imported_anew_and_running_filters_keep_theirs(directory: Path) -> None:
    name = module(directory)
    before = build(directory, f"{name}:Good")
    same = build(directory, f"{name}:Good")
    assert type(before) is type(same)
    path = directory / f"{name}.py"
    path.write_text(CODE.replace("VERSION = 1", "VERSION = 22"))
    os.utime(path, ns=(1, 1))
    after = build(directory, f"{name}:Good")
    assert (before.VERSION, after.VERSION) == (1, 22)  # type: ignore[attr-defined]


def test_code_that_does_not_load_leaves_what_runs(directory: Path) -> None:
    name = module(directory)
    build(directory, f"{name}:Good")
    loaded = sys.modules[name]
    path = directory / f"{name}.py"
    path.write_text("1 / 0")
    os.utime(path, ns=(1, 1))
    with pytest.raises(UnusableError, match="ZeroDivisionError"):
        build(directory, f"{name}:Good")
    assert sys.modules[name] is loaded
    path.write_text(CODE)
    os.utime(path, ns=(2, 2))
    assert build(directory, f"{name}:Good")


def test_installed_packages_name_filters_by_entry_points(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("good", f"{module(directory)}:Good", python_class.ENTRY_POINTS)
    monkeypatch.setattr(
        python_class, "entry_points", lambda **wanted: EntryPoints([point]).select(**wanted)
    )
    sys.path.insert(0, str(directory))
    assert build(directory, "good", share=0.2).share == 0.2  # type: ignore[attr-defined]
    with pytest.raises(UnusableError, match=r"no installed package .*; installed: good"):
        build(directory, "bad")


def test_an_installed_package_is_imported_anew_when_it_was_upgraded(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = module(directory)
    point = EntryPoint("versioned", f"{name}:Good", python_class.ENTRY_POINTS)
    monkeypatch.setattr(
        python_class, "entry_points", lambda **wanted: EntryPoints([point]).select(**wanted)
    )
    monkeypatch.syspath_prepend(str(directory))
    assert build(directory, "versioned").VERSION == 1  # type: ignore[attr-defined]
    path = directory / f"{name}.py"
    path.write_text(CODE.replace("VERSION = 1", "VERSION = 22"))
    os.utime(path, ns=(1, 1))
    assert build(directory, "versioned").VERSION == 22  # type: ignore[attr-defined]


def test_a_string_is_a_filter_from_beside_the_configuration(tmp_path: Path) -> None:
    document = {
        "upstreams": {"x": {"servers": ["http://127.0.0.1:1"]}},
        "routes": [{"upstream": "x", "filters": [{"python": "edge:Filter"}]}],
    }
    (entry,) = parse_config(document, "test", tmp_path).routes[0].filters
    assert entry.python == Python(filter="edge:Filter", directory=str(tmp_path))
