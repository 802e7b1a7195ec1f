"""Which names get certificates."""

from __future__ import annotations

import pytest

from quicedge.acme.names import is_dns_name, on_demand_problem, wanted
from quicedge.config.schema import Acme, Config, OnDemand, Route, Tls


def config(*hosts: str, **keys: object) -> Config:
    return Config(
        tls=Tls(acme=Acme(agree_to_terms=True, **keys)),  # type: ignore[arg-type]
        routes=[Route(upstream="app", host=host) for host in hosts],
    )


def test_hosts_of_routes_and_those_that_are_listed_each_once() -> None:
    found = wanted(config("WWW.example.com", "www.example.com.", "*", hosts=["api.example.com"]))
    assert found == ["api.example.com", "www.example.com"]


def test_names_that_no_public_issuer_may_have_are_left_to_an_issuer_of_ones_own() -> None:
    hosts = ("localhost", "app.internal", "x.local", "127.0.0.1", "::1", "printer", "a.example.com")
    assert wanted(config(*hosts)) == ["a.example.com"]
    own = wanted(config(*hosts, directory="https://ca.internal/directory"))
    assert own == ["app.internal", "x.local", "a.example.com"]


def test_names_that_files_of_the_operator_cover_are_not_ordered() -> None:
    hosts = config("a.example.com", "b.example.net", "c.example.com")
    assert wanted(hosts, {"*.example.net", "a.example.com"}) == ["c.example.com"]


def test_wildcards_are_ordered_where_dns_can_prove_them() -> None:
    assert wanted(config("*.example.com", dns_command=["x"])) == ["*.example.com"]
    assert wanted(config("*.example.com", on_demand=OnDemand(ask="http://a/"))) == []


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "a/b.example.com", "a..example.com", ".example.com", "-a.example.com",
     "a" * 64 + ".example.com", "x." * 130 + "com", "localhost", "10.0.0.1", "a.example.1",
     "*.example.com", "a b.example.com", "a\n.example.com", "", "ex\u00e4mple.com"],
)  # fmt: skip
def test_what_is_no_dns_name_never_becomes_a_file_or_an_order(name: str) -> None:
    assert not is_dns_name(name)
    assert on_demand_problem(config("*"), name) is not None


@pytest.mark.parametrize(
    ("host", "name", "is_good"),
    [
        ("*", "a.example.com", True),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "a.b.example.com", False),
        ("*.example.com", "a.example.org", False),
        ("*", "a.internal", False),
    ],
)
def test_a_name_on_demand_needs_a_route(host: str, name: str, is_good: bool) -> None:
    assert (on_demand_problem(config(host), name) is None) == is_good
