"""Certificates by ACME for a fleet: one host orders, and all serve."""

from __future__ import annotations

import ssl
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.acme_edge import Ports, acme_edge
from tests.support.pebble import pebble
from tests.support.peers import free_edge_port, wait_until
from tests.support.redisserver import redis_server

HOST = "www.example.com"


@pytest.fixture
def ports() -> Ports:
    return Ports.free()


@pytest.mark.parametrize("kind", ["directory", "redis"])
def test_one_of_three_hosts_orders_and_all_serve(tmp_path: Path, ports: Ports, kind: str) -> None:
    with ExitStack() as stack:
        issuer = stack.enter_context(
            pebble(tmp_path / "pebble", http_port=ports.http, tls_port=ports.https)
        )
        storage = str(tmp_path / "shared")
        if kind == "redis":
            storage = stack.enter_context(redis_server(tmp_path)).url
        acme = issuer.config(storage=storage)
        edges = [
            stack.enter_context(
                acme_edge(
                    tmp_path / f"edge{n}",
                    Ports(ports.https, ports.http, free_edge_port()),
                    acme,
                    HOST,
                    "other.example.com",
                    address=f"127.0.0.{n}",
                )
            )
            for n in (1, 2, 3)
        ]

        def serials(host: str) -> set[int | None]:
            found: set[int | None] = set()
            for edge in edges:
                try:
                    found.add(edge.serial(host))
                except ssl.SSLError:
                    found.add(None)
            return found

        def all_serve(host: str) -> bool:
            found = serials(host)
            return len(found) == 1 and None not in found

        for host in (HOST, "other.example.com"):
            wait_until(lambda host=host: all_serve(host), f"one certificate for {host}", 60)
        assert issuer.orders == 2
        before = serials(HOST)
        # The issuer asks another host than the one that orders.
        issuer.dns("set-default-ipv4", ip="127.0.0.3")
        edges[1].renew(HOST)
        edges[1].wait_event("certificate issued")
        wait_until(lambda: all_serve(HOST) and serials(HOST) != before, "its renewal", 60)
        assert issuer.orders == 3
