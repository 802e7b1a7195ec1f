"""What a reload says of the difference between two configurations."""

from __future__ import annotations

from pathlib import Path

import msgspec

from quicedge.config.changes import changes, with_passwords, without_passwords, written
from quicedge.config.loader import parse_config, parse_document
from quicedge.config.schema import Config

DOCUMENT = {
    "upstreams": {"app": {"servers": ["http://127.0.0.1:1"]}},
    "routes": [{"upstream": "app"}, {"upstream": "app", "path": "/api"}],
}


def config(**changed: object) -> Config:
    return parse_config({**DOCUMENT, **changed}, "test", Path("/"))


def test_equal_configurations_differ_in_nothing() -> None:
    assert changes(config(), config()) == []


def test_every_changed_key_is_named_with_both_values() -> None:
    new = config(
        drain_timeout="7s",
        listen=["127.0.0.1:4433"],
        limits={"max_uri": 4096, "max_connections_per_address": 5},
    )
    assert changes(config(), new) == [
        'listen: ["0.0.0.0:443","[::]:443"] -> ["127.0.0.1:4433"]',
        "drain_timeout: 30.0 -> 7.0",
        f"limits.max_connections_per_address: {Config().limits.max_connections_per_address} -> 5",
        "limits.max_uri: 16384 -> 4096",
    ]


def test_tables_are_compared_one_by_one() -> None:
    new = config(
        upstreams={
            "app": {"servers": ["http://127.0.0.1:1"], "retries": 5},
            "other": {"servers": ["http://127.0.0.1:2"]},
        },
        routes=[
            {"upstream": "app"},
            {"upstream": "other", "path": "/api"},
            {"upstream": "app", "path": "/x"},
        ],
    )
    old = config()
    assert changes(old, new) == [
        f"upstreams.app.retries: {old.upstreams['app'].retries} -> 5",
        "upstreams.other: added",
        'routes[1].upstream: "app" -> "other"',
        "routes[2]: added",
    ]
    assert "routes[2]: removed" in changes(new, old)


def test_passwords_are_neither_shown_nor_lost() -> None:
    shared = {"redis": "redis://user:hunter2@cache:6379/0", "requests": [{"rate": "5/second"}]}
    old, new = config(limits=shared), config(limits={**shared, "max_uri": 100})
    shown = without_passwords(new)
    assert shown.limits.redis == "redis://***@cache:6379/0"
    assert with_passwords(shown, old) == new
    elsewhere = config(limits={**shared, "redis": "redis://other/0"})
    assert with_passwords(elsewhere, old) == elsewhere
    assert "hunter2" not in "".join(changes(old, config()) + changes(config(), new))


def test_what_is_shown_can_be_read_again() -> None:
    shown = written(config(drain_timeout=7))
    assert shown == {**DOCUMENT, "drain_timeout": 7.0}
    document = msgspec.json.encode(shown)
    assert parse_document(document, "request", Path("/"), is_json=True) == config(drain_timeout=7)
