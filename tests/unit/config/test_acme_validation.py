"""Contradictions in `[tls.acme]`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quicedge.config.loader import ConfigError, parse_config
from quicedge.config.schema import Config

GOOD: dict[str, Any] = {"email": "ops@example.com", "agree_to_terms": True}


def parse(acme: dict[str, Any], host: str = "www.example.com", **keys: Any) -> Config:
    document = {
        "tls": {"acme": acme},
        "upstreams": {"app": {"servers": ["http://127.0.0.1:1"]}},
        "routes": [{"upstream": "app", "host": host}],
        **keys,
    }
    return parse_config(document, "quicedge.toml", Path("/etc/quicedge"), machine=False)


def problems(acme: dict[str, Any], host: str = "www.example.com", **keys: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        parse(acme, host, **keys)
    return str(refused.value)


def test_an_address_and_consent_are_enough() -> None:
    acme = parse(GOOD).tls.acme
    assert acme is not None
    assert acme.key_type == "p256"


def test_relative_names_are_those_of_the_configuration() -> None:
    acme = parse(
        {**GOOD, "directory": "https://ca/d", "ca": "ca.pem", "storage": "../shared"}
    ).tls.acme
    assert acme is not None
    assert (acme.ca, acme.storage) == ("/etc/quicedge/ca.pem", "/etc/quicedge/../shared")
    acme = parse({**GOOD, "storage": "redis://10.0.0.9/0"}).tls.acme
    assert acme is not None
    assert acme.storage == "redis://10.0.0.9/0"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"agree_to_terms": False}, "tls.acme.agree_to_terms: is required"),
        ({"email": "ops"}, "tls.acme.email: 'ops' is not an address"),
        ({"hosts": ["https://x.example"]}, "tls.acme.hosts[0]"),
        ({"hosts": ["*.x.example"]}, "tls.acme.hosts[0]: '*.x.example' is a wildcard"),
        ({"staging": True, "directory": "https://ca/d"}, "tls.acme.staging: has no effect"),
        ({"ca": "x.pem"}, "tls.acme.ca: has no effect without directory"),
        ({"directory": "http://ca/d"}, "tls.acme.directory: 'http://ca/d' is not https://"),
        ({"eab_key_id": "k"}, "tls.acme.eab_hmac_key_file: is required"),
        ({"issuers": [{"directory": "https://ca/d"}] * 2}, "https://ca/d is listed twice"),
        (
            {"issuers": [{"directory": "https://ca/d"}], "eab_key_id": "k"},
            "tls.acme.eab_key_id: has no effect with issuers",
        ),
        ({"challenges": []}, "tls.acme.challenges: must not be empty"),
        ({"challenges": ["dns-01"]}, "tls.acme.challenges[0]"),
        ({"storage": "http://x"}, "tls.acme.storage: is neither a directory nor redis://"),
        ({"on_demand": {"ask": "127.0.0.1"}}, "tls.acme.on_demand.ask"),
        ({"on_demand": {"ask": "http://a/", "rate": "often"}}, "tls.acme.on_demand.rate"),
        ({"on_demand": {}}, "ask is required"),
    ],
)
def test_a_contradiction_is_named(changes: dict[str, Any], said: str) -> None:
    assert said in problems({**GOOD, **changes})


def test_a_wildcard_requires_dns_or_demand() -> None:
    assert "'*.example.com' is a wildcard" in problems(GOOD, "*.example.com")
    parse({**GOOD, "dns_command": ["dns"]}, "*.example.com")
    parse({**GOOD, "on_demand": {"ask": "http://127.0.0.1/"}}, "*.example.com")


def test_a_route_for_all_hosts_alone_names_none() -> None:
    assert "no host to have a certificate for" in problems(GOOD, "*")
    parse({**GOOD, "hosts": ["www.example.com"]}, "*")


def test_an_edge_that_issuers_cannot_reach_requires_dns() -> None:
    assert "issuers have no way to reach" in problems(GOOD, protocols=["h3"])
    parse({**GOOD, "dns_command": ["dns"]}, protocols=["h3"])
    only_http = {**GOOD, "challenges": ["http-01"]}
    assert "requires redirect_http" in problems(only_http, redirect_http=False)
