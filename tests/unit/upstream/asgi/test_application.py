"""How the application that a configuration names is found, and what is said when it is not."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path

import pytest

from quicedge.config.loader import ConfigError, parse_config
from quicedge.config.schema import Upstream
from quicedge.config.unusable import UnusableError
from quicedge.upstream.asgi.application import load

_numbers = itertools.count()

CODE = """
async def app(scope, receive, send): ...
class Api:
    def __call__(self, scope, receive, send): ...
    async def method(self, scope, receive, send): ...
api = Api()
class Double:
    def __init__(self, scope): ...
def make(): return api
def make_nothing(): return None
def make_badly(): raise LookupError("no settings")
def wsgi(environ, start_response): ...
def any_number(*arguments): ...
number = 5
"""


def found(tmp_path: Path, attribute: str, code: str = CODE, kind: str = "asgi") -> object:
    name = f"quicedge_example_{next(_numbers)}"
    (tmp_path / f"{name}.py").write_text(code)
    config = Upstream(**{kind: f"{name}:{attribute}"}, app_directory=str(tmp_path))
    try:
        return load("x", config)
    finally:
        sys.path.remove(str(tmp_path))


@pytest.mark.parametrize("attribute", ["app", "api", "api.method", "make()", "any_number"])
def test_applications_and_factories_are_found(tmp_path: Path, attribute: str) -> None:
    assert callable(found(tmp_path, attribute))


@pytest.mark.parametrize(
    ("attribute", "code", "message"),
    [
        ("missing", CODE, r"has no attribute 'missing'"),
        ("number", CODE, r"is not callable"),
        ("make_nothing()", CODE, r"is not callable"),
        ("make_badly()", CODE, r"LookupError: no settings \(.*\.py, line 11\)"),
        ("wsgi", CODE, r"takes 2 parameters, .* use the key wsgi"),
        ("make", CODE, r"takes 0 parameters, .* write quicedge_example_\d+:make\(\)"),
        ("app", "import quicedge_no_such_thing", r"ModuleNotFoundError: .* line 1\)"),
        ("app", "1 / 0", r"ZeroDivisionError: division by zero \(.*\.py, line 1\)"),
        ("app", "\ndef app(:", r"SyntaxError: .*line 2"),
        ("app", "import sys; sys.exit(3)", r"SystemExit: 3 "),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    tmp_path: Path, attribute: str, code: str, message: str
) -> None:
    with pytest.raises(
        UnusableError, match=r"upstreams\.x\.asgi: quicedge_example_\d+.*" + message
    ):
        found(tmp_path, attribute, code)


def test_a_missing_module_is_named_with_the_directory(tmp_path: Path) -> None:
    config = Upstream(asgi="quicedge_absent.main:app", app_directory=str(tmp_path))
    with pytest.raises(UnusableError, match=rf"no module 'quicedge_absent' in {tmp_path}"):
        load("x", config)
    sys.path.remove(str(tmp_path))


def test_wsgi_applications_are_adapted(tmp_path: Path) -> None:
    assert callable(found(tmp_path, "wsgi", kind="wsgi"))


def config_of(upstream: dict[str, object], directory: Path) -> Upstream:
    document = {"upstreams": {"x": upstream}, "routes": [{"upstream": "x"}]}
    return parse_config(document, "test", directory).upstreams["x"]


def test_applications_are_imported_from_beside_the_configuration(tmp_path: Path) -> None:
    assert config_of({"asgi": "main:app"}, tmp_path).app_directory == str(tmp_path)
    other = config_of({"asgi": "main:app", "app_directory": "src"}, tmp_path)
    assert other.app_directory == str(tmp_path / "src")


@pytest.mark.parametrize(
    ("upstream", "message"),
    [
        ({"asgi": "main"}, "upstreams.x.asgi: 'main' is not module:attribute; write main:app"),
        ({"asgi": "main.py:app:x"}, "upstreams.x.asgi: 'main.py:app:x' is not module:attribute"),
        ({"asgi": "a:b", "wsgi": "a:b"}, "upstreams.x.wsgi: has no effect with asgi"),
        ({"asgi": "a:b", "servers": ["http://x"]}, "upstreams.x.servers: has no effect with asgi"),
        ({"asgi": "a:b", "retries": 1}, "upstreams.x.retries: has no effect with asgi"),
        ({"asgi": "a:b", "root_path": "/a/"}, "upstreams.x.root_path: '/a/' is not a path"),
        ({"servers": ["http://x"], "root_path": "/a"}, "has no effect without asgi or wsgi"),
        ({}, "upstreams.x.servers: at least one server, or root, asgi or wsgi, is required"),
    ],
)
def test_configurations_without_effect_are_refused(
    upstream: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        config_of(upstream, tmp_path)
