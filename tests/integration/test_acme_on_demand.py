"""Certificates on demand, from Pebble."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.acme_edge import Ports, acme_edge, refusal
from tests.support.pebble import Pebble, pebble
from tests.support.peers import wait_until

HOST = "www.example.com"


@pytest.fixture(scope="module")
def ports() -> Ports:
    """Those of every edge of this module, one after the other: Pebble looks for proofs there."""
    return Ports.free()


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory, ports: Ports) -> Iterator[Pebble]:
    folder = tmp_path_factory.mktemp("pebble")
    with pebble(folder, http_port=ports.http, tls_port=ports.https) as running:
        yield running


class _Asked(BaseHTTPRequestHandler):
    """Allows names that begin with `shop`."""

    def do_GET(self) -> None:
        name = parse_qs(urlsplit(self.path).query)["domain"][0]
        self.server.asked.append(name)  # type: ignore[attr-defined]
        is_allowed = name.startswith("shop") and name not in self.server.gone  # type: ignore[attr-defined]
        self.send_response(200 if is_allowed else 403)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def operator() -> Iterator[ThreadingHTTPServer]:
    """Says which names may have certificates."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Asked)
    server.asked = []  # type: ignore[attr-defined]
    server.gone = set()  # type: ignore[attr-defined]
    running = threading.Thread(target=server.serve_forever, daemon=True)
    running.start()
    yield server
    server.shutdown()
    server.server_close()
    running.join()


def test_a_client_waits_for_a_certificate_that_is_ordered_on_demand(
    tmp_path: Path, issuer: Pebble, ports: Ports, operator: ThreadingHTTPServer
) -> None:
    ask = f"http://127.0.0.1:{operator.server_address[1]}/ask"
    acme = issuer.config() + f'[tls.acme.on_demand]\nask = "{ask}"\nrate = "4/hour"\n'
    asked: list[str] = operator.asked  # type: ignore[attr-defined]
    with acme_edge(tmp_path, ports, acme, "*", workers=2) as edge:
        orders = issuer.orders
        with ThreadPoolExecutor() as pool:
            serials = set(pool.map(edge.serial, ["shop1.example.com"] * 20))
        assert len(serials) == 1
        assert issuer.orders == orders + 1
        assert edge.fetch("shop1.example.com", issuer.root()).stdout == b"hello\n"
        began = time.monotonic()
        assert refusal(edge, "other.example.com") == "TLSV1_UNRECOGNIZED_NAME"
        assert time.monotonic() - began < 5, "it does not wait for what will not come"
        # Names that nobody may have, and names in other forms, are not even asked about.
        for name in ("localhost", "a..b", "x" * 70 + ".com", "127.0.0.1", "SHOP1.example.com."):
            with contextlib.suppress(ssl.SSLError, ValueError, UnicodeError):
                edge.connect(name).close()
        assert set(asked) == {"shop1.example.com", "other.example.com"}
        # Over QUIC the client is refused, and served once there is a certificate.
        assert edge.fetch("shop2.example.com", issuer.root()).returncode == 35
        edge.wait_event("certificate issued", 2)
        assert edge.fetch("shop2.example.com", issuer.root()).stdout == b"hello\n"
        assert refusal(edge, "shop3.example.com") == ""
        assert refusal(edge, "shop4.example.com") == "TLSV1_UNRECOGNIZED_NAME", "beyond the rate"
        assert edge.status()["acme"]["on_demand"] == {"allowed": 3, "refused": 1, "too_many": 1}
    with acme_edge(tmp_path, ports, acme, "*") as edge:
        assert edge.fetch("shop1.example.com", issuer.root()).returncode == 0, "after a restart"
        operator.gone.add("shop1.example.com")  # type: ignore[attr-defined]
        edge.renew("shop1.example.com", "shop2.example.com")
        edge.wait_event("certificate dropped: it is no longer allowed")
        wait_until(lambda: refusal(edge, "shop1.example.com") != "", "its end")
        assert edge.host("shop2.example.com")["on_demand"]
