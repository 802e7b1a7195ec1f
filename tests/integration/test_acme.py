"""Certificates by ACME, from Pebble."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.acme_edge import Ports, acme_edge
from tests.support.pebble import pebble

HOST = "www.example.com"


@pytest.mark.parametrize("challenge", ["http-01", "tls-alpn-01"])
def test_a_certificate_is_issued_and_served_over_quic_and_tcp(
    tmp_path: Path, challenge: str
) -> None:
    ports = Ports.free()
    with pebble(tmp_path / "pebble", http_port=ports.http, tls_port=ports.https) as issuer:
        acme = issuer.config(challenges=[challenge])
        with acme_edge(tmp_path / "edge", ports, acme, HOST, workers=2) as edge:
            edge.wait_event("certificate issued")
            done = edge.fetch(HOST, issuer.root())
            assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr
            assert edge.serial(HOST)
