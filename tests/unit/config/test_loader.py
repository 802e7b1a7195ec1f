"""Loading the configuration: units, suggestions for unknown keys, contradictions."""

from __future__ import annotations

import errno
import os
import re
import time
import typing
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config import filters, schema
from quicedge.config.loader import ConfigError, config_from_options, load_config, parse_config
from quicedge.config.placeholders import PLAIN

GOOD: dict[str, Any] = {
    "upstreams": {"app": {"servers": ["http://127.0.0.1:8000"]}},
    "routes": [{"upstream": "app"}],
}


def parse(**extra: Any) -> schema.Config:
    return parse_config({**GOOD, **extra}, "test", Path("/etc/quicedge"))


def problems(**extra: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(**extra)
    return [str(problem) for problem in caught.value.problems]


def test_units_become_numbers() -> None:
    config = parse(
        drain_timeout="1m",
        quic={"idle_timeout": "500ms", "max_data": "2MiB", "max_stream_data": 9000},
    )
    assert config.drain_timeout == 60
    assert config.quic.idle_timeout == 0.5
    assert config.quic.max_data == 2 * 2**20
    assert config.quic.max_stream_data == 9000


def test_paths_are_relative_to_the_file() -> None:
    config = parse(tls={"certificates": [{"cert": "a.pem", "key": "/k/b.key"}]})
    assert config.tls.certificates[0].cert == "/etc/quicedge/a.pem"
    assert config.tls.certificates[0].key == "/k/b.key"


def test_options_make_a_configuration() -> None:
    config = config_from_options("http://127.0.0.1:8000", listen=["127.0.0.1:4433"], workers=2)
    assert config.upstreams["default"].servers == ["http://127.0.0.1:8000"]
    assert config.workers == 2


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"worker": 2}, "worker: unknown key; did you mean 'workers'?"),
        ({"pass_on": {"server_timing": True}}, "pass_on: renamed to forwarding"),
        ({"quic": {"retri": "off"}}, "quic.retri: unknown key; did you mean 'retry'?"),
        ({"quic": {"retry": "maybe"}}, "quic.retry: 'maybe' is not one of 'off', 'always', 'auto'"),
        ({"quic": {"idle_timeout": "soon"}}, "quic.idle_timeout: 'soon' is not a duration"),
        ({"quic": {"max_data": "big"}}, "quic.max_data: 'big' is not a size"),
        (
            {"quic": {"idle_timeout": 0}},
            "quic.idle_timeout: 0 is not a duration such as 30s or 500ms above 0",
        ),
        ({"listen": ["nowhere"]}, "listen[0]: 'nowhere' is not host:port"),
        ({"listen": []}, "listen: at least one address is required"),
        ({"routes": [{"upstream": "apq"}]}, "unknown upstream 'apq'; did you mean 'app'?"),
        (
            {"routes": [{"upstream": "app", "path": "x"}]},
            "routes[0].path: 'x' does not start with /",
        ),
        ({"routes": [{"upstream": "app", "host": "a.*.b"}]}, "routes[0].host: 'a.*.b': a wildcard"),
        (
            {"routes": [{"upstream": "app"}] * 2},
            "routes[1]: duplicate route for host '*' and path '/'",
        ),
        ({"upstreams": {"app": {"servers": ["ftp://x"]}}}, "upstreams.app.servers[0]: 'ftp://x'"),
        ({"upstreams": {"app": {"servers": ["http://x/y"]}}}, "an origin URL has no path"),
        (
            {"upstreams": {"app": {"servers": ["http://x"], "tls_verify": False}}},
            "upstreams.app.tls_verify: has no effect",
        ),
        ({"limits": {"redis": "localhost"}}, "limits.redis: is not redis://host:port"),
        (
            {"tls": {"shared_keys": "keys"}, "quic": {"early_data": True}},
            "quic.early_data: with tls.shared_keys requires limits.redis",
        ),
        (
            {"upstreams": {"app": {"servers": ["http://x"], "health_interval": 1}}},
            "upstreams.app.health_interval: has no effect without health_path",
        ),
        (
            {"upstreams": {"app": {"servers": ["http://x"], "health_path": "up"}}},
            "upstreams.app.health_path: 'up' is not a path",
        ),
        ({"workers": "many"}, "workers: 'many' is not a whole number from 1 to 64 or 'auto'"),
        ({"upstreams": {"app": {"servers": ["a:80"]}}}, "unix:/path, perhaps http://a:80"),
        ({"upstreams": {"app": {"servers": ["8000"]}}}, "perhaps http://127.0.0.1:8000"),
        ({"upstreams": {"app": {"servers": ["http://x:0"]}}}, "the port is out of range"),
        ({"upstreams": {"app": {"root": "/no/such"}}}, "upstreams.app.root: /no/such is not a dir"),
        ({"http3": {"qpack_blocked_streams": 4}}, "http3.qpack_blocked_streams: has no effect"),
        ({"quic": {"retry": "off", "retry_threshold": 5}}, "quic.retry_threshold: has no effect"),
        (
            {"admin": {"listen": "0.0.0.0:80"}},
            "admin.listen: '0.0.0.0:80' is not a loopback address",
        ),
        ({"log": {"access": False, "access_file": "x"}}, "log.access_file: has no effect"),
    ],
)
def test_problems_name_their_place(extra: dict[str, Any], expected: str) -> None:
    assert any(expected in problem for problem in problems(**extra)), problems(**extra)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"upstream": "8000"}, "command line: --upstream: '8000': expected http://"),
        ({"listen": ["443"]}, "command line: --listen: '443' is not host:port"),
        ({"admin": "0.0.0.0:1"}, "command line: --admin: '0.0.0.0:1' is not a loopback"),
        ({"root": "/no/such"}, "command line: --root: /no/such is not a directory"),
    ],
)
def test_problems_of_a_command_line_name_options(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_options(**{"upstream": "http://127.0.0.1:1", **options})
    assert str(caught.value).startswith(expected)


def test_all_unknown_keys_are_reported_at_once() -> None:
    assert len(problems(worker=1, admn={}, lissten=[])) == 3


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "quicedge.toml"
    file.write_text("listen = [\n'x'\nworkers = ")
    with pytest.raises(ConfigError, match=r"quicedge\.toml:3: .* \("):
        load_config(file)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["listen", "quic", "upstreams", "app", "servers", "routes", "path", "x"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*schema.Config.__struct_fields__, "x"]), VALUES))
def test_any_document_gives_a_configuration_or_a_config_error(document: dict[str, Any]) -> None:
    with suppress(ConfigError):
        assert parse_config({**GOOD, **document}, "test", Path("/")).routes


def sections() -> list[type[msgspec.Struct]]:
    return [
        value
        for value in vars(schema).values()
        if isinstance(value, type)
        and issubclass(value, msgspec.Struct)
        and value.__module__ == schema.__name__
        and not value.__name__.startswith("_")
    ]


def test_the_documentation_names_every_key_and_no_other() -> None:
    text = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()
    documented = set(re.findall(r"^\| `([a-z_0-9]+)`", text, re.MULTILINE))
    known = {field for section in sections() for field in section.__struct_fields__}
    assert documented == known


def test_the_documentation_of_filters_names_every_kind_key_and_placeholder() -> None:
    text = (Path(__file__).parents[3] / "docs" / "filters.md").read_text()
    sections = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert sections.keys() == set(filters.KINDS)
    for kind, section in sections.items():
        documented = set(re.findall(r"^\| `([a-z_0-9]+)`", section, re.MULTILINE))
        assert documented == set(keys_of(kind)), kind
    placeholders = set(re.findall(r"`\{([a-z_.0-9?&]+)\}`", text))
    assert placeholders - {"match.1"} == PLAIN


def keys_of(kind: str) -> Iterator[str]:
    """The keys of a filter, and those of tables in it."""
    settings = typing.get_type_hints(filters.FilterEntry)[kind]
    waiting = [settings]
    while waiting:
        hint = waiting.pop()
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            yield from hint.__struct_fields__
            waiting += typing.get_type_hints(hint).values()
        else:
            waiting += typing.get_args(hint)


def test_a_root_takes_the_place_of_servers(tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    document = {"upstreams": {"app": {"root": "www"}}, "routes": [{"upstream": "app"}]}
    config = parse_config(document, "test", tmp_path)
    assert config.upstreams["app"].root == str(tmp_path / "www")
    served = config_from_options(None, root=str(tmp_path))
    assert served.upstreams["default"].root == str(tmp_path)
    spa = config_from_options(None, root=str(tmp_path), listing=True, spa=True)
    site = spa.upstreams["default"]
    assert (site.listing, site.fallback) == (True, "/index.html")
    assert [entry.kind for entry in spa.filters] == ["compress"]
    both = {"app": {"root": "www", "servers": ["http://127.0.0.1:1"], "retries": 3}}
    assert problems(upstreams=both) == [
        "upstreams.app.servers: has no effect with root",
        "upstreams.app.retries: has no effect with root",
        "upstreams.app.root: /etc/quicedge/www is not a directory",
    ]
    assert problems(upstreams={"app": {}}) == [
        "upstreams.app.servers: at least one server, or root, asgi or wsgi, is required"
    ]


@pytest.mark.parametrize(
    ("extra", "key"),
    [
        ({"upstreams": {"app": {"root": "closed/x"}}}, "upstreams.app.root"),
        ({"qlog": {"directory": "closed/x"}}, "qlog.directory"),
    ],
)
def test_a_directory_that_cannot_be_reached_is_named_with_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], key: str
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)  # root may search every directory
    with pytest.raises(ConfigError) as error:
        parse_config({**GOOD, **extra}, "test", tmp_path)
    assert f"{key}: {tmp_path}/closed/x: Permission denied" in str(error.value)


@pytest.mark.parametrize(
    ("extra", "key"),
    [
        ({"tls": {"certificates": [{"cert": "PIPE", "key": "key"}]}}, "tls.certificates[0].cert"),
        ({"tls": {"certificates": [{"cert": "cert", "key": "PIPE"}]}}, "tls.certificates[0].key"),
        ({"tls": {"shared_keys": "PIPE"}}, "tls.shared_keys"),
        ({"admin": {"token_file": "PIPE"}}, "admin.token_file"),
        (
            {"upstreams": {"app": {"servers": ["https://127.0.0.1"], "tls_ca": "PIPE"}}},
            "upstreams.app.tls_ca",
        ),
    ],
)
def test_a_pipe_is_refused_where_a_file_is_read(
    tmp_path: Path, extra: dict[str, Any], key: str
) -> None:
    os.mkfifo(tmp_path / "PIPE")
    with pytest.raises(ConfigError) as error:
        parse_config({**GOOD, **extra}, "test", tmp_path)
    assert f"{key}: {tmp_path}/PIPE is a pipe or a device, not a file" in str(error.value)


def test_spans_need_the_extra_and_to_be_enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(otel={"sample_ratio": 0.5}) == [
        "otel.sample_ratio: has no effect without enabled = true"
    ]
    assert "is not http" in problems(otel={"enabled": True, "endpoint": "collector:4317"})[0]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert problems(otel={"enabled": True}) == [
        "otel.enabled: requires `pip install 'quicedge[otel]'`"
    ]


def test_servers_in_dns_need_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    servers = ["http://a", {"url": "http://b", "discover": "addresses"}]
    assert problems(upstreams={"app": {"servers": servers}}) == [
        "upstreams.app.servers: discover requires `pip install 'quicedge[dns]'`"
    ]


def test_loading_takes_time_in_proportion_to_the_number_of_routes_and_networks() -> None:
    def cost(count: int) -> float:
        routes = [{"upstream": "app", "path": f"/{number}"} for number in range(count)]
        networks = [f"10.{number // 256}.{number % 256}.0/24" for number in range(count)]
        started = time.process_time()
        parse(routes=routes, limits={"deny": networks})
        return time.process_time() - started

    cost(10)
    assert min(cost(4000) for _ in range(3)) < 16 * min(cost(500) for _ in range(3))
