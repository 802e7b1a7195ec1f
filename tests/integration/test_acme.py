"""Certificates by ACME, from Pebble."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quicedge.config import devcerts
from tests.support.acme_edge import Ports, acme_edge, refusal
from tests.support.acme_proxy import Fault, acme_proxy
from tests.support.h3client import h3_client
from tests.support.pebble import Pebble, pebble
from tests.support.peers import free_edge_port, wait_until

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


@pytest.mark.parametrize("challenge", ["http-01", "tls-alpn-01"])
def test_a_certificate_is_issued_and_served_over_quic_and_tcp(
    tmp_path: Path, issuer: Pebble, ports: Ports, challenge: str
) -> None:
    acme = issuer.config(challenges=[challenge])
    with acme_edge(tmp_path, ports, acme, HOST, workers=2) as edge:
        edge.wait_event("certificate issued")
        done = edge.fetch(HOST, issuer.root())
        assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr
        assert edge.serial(HOST)
        # There is no default certificate for others, and validations are over.
        assert refusal(edge, "other.example.com") == "TLSV1_UNRECOGNIZED_NAME"
        assert refusal(edge, None) == "TLSV13_ALERT_MISSING_EXTENSION"
        assert edge.fetch("other.example.com", issuer.root()).returncode == 35
        with edge.connect(HOST, alpn="h2") as tls:
            assert tls.selected_alpn_protocol() == "h2"
        kept = [path for path in (tmp_path / "state" / "acme").rglob("*") if path.is_file()]
        assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
        assert {path.parent.name for path in kept} >= {"accounts", "certificates", "hosts"}
    orders = issuer.orders
    with acme_edge(tmp_path, ports, acme, HOST) as edge:
        assert edge.fetch(HOST, issuer.root()).returncode == 0, "served at once after a restart"
        assert edge.host(HOST)["error"] is None
    assert issuer.orders == orders, "and not ordered again"


async def test_a_renewal_disturbs_none_of_fifty_connections(
    tmp_path: Path, issuer: Pebble, ports: Ports
) -> None:
    with acme_edge(tmp_path, ports, issuer.config(), HOST, workers=2) as edge:
        await asyncio.to_thread(edge.wait_event, "certificate issued")
        before = await asyncio.to_thread(edge.serial, HOST)
        root = issuer.root()
        context = ssl.create_default_context(cafile=str(root))
        streams = [
            await asyncio.open_connection(
                "127.0.0.1", ports.https, ssl=context, server_hostname=HOST
            )
            for _ in range(25)
        ]

        async def ask_over_tcp() -> None:
            for _, writer in streams:
                writer.write(b"GET / HTTP/1.1\r\nhost: %b\r\n\r\n" % HOST.encode())
            for reader, _ in streams:
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
                assert head.startswith(b"HTTP/1.1 200")
                assert await reader.readexactly(6) == b"hello\n"

        async with asyncio.timeout(90):
            from contextlib import AsyncExitStack

            async with AsyncExitStack() as stack:
                clients = [
                    await stack.enter_async_context(
                        h3_client(
                            ports.https,
                            server_name=HOST,
                            cafile=str(root),
                            verify_mode=ssl.CERT_REQUIRED,
                        )
                    )
                    for _ in range(25)
                ]

                async def ask_over_quic() -> None:
                    for client in clients:
                        answer = await client.ask(b"GET", b"/", authority=HOST.encode())
                        assert (answer.status, answer.body) == (200, b"hello\n")

                await ask_over_tcp()
                await ask_over_quic()
                await asyncio.to_thread(edge.renew)
                renewing = asyncio.create_task(
                    asyncio.to_thread(edge.wait_event, "certificate issued", 2)
                )
                while not renewing.done():
                    await ask_over_tcp()
                    await ask_over_quic()
                after = await asyncio.to_thread(edge.serial, HOST)
                assert after != before
                assert "is a replacement of" in issuer.log(), "RFC 9773 section 5"
                assert "/renewalInfo/" in issuer.log()
                await ask_over_tcp()
                await ask_over_quic()
                assert [client.closed for client in clients] == [None] * 25
        for _, writer in streams:
            writer.close()
        done = await asyncio.to_thread(edge.fetch, HOST, root)
        assert done.returncode == 0, done.stderr


def test_refused_nonces_and_short_outages_are_survived_within_an_order(
    tmp_path: Path, ports: Ports
) -> None:
    with (
        pebble(
            tmp_path / "pebble",
            http_port=ports.http,
            tls_port=ports.https,
            PEBBLE_WFE_NONCEREJECT="40",
        ) as issuer,
        acme_proxy(issuer) as proxy,
    ):
        proxy.faults = {
            "/order-plz": Fault(503, retry_after="1", times=2),
            "/nonce-plz": Fault(500, times=1),
            "/finalize-order": Fault(502, times=1),
        }
        acme = issuer.config().replace(issuer.directory, proxy.directory)
        with acme_edge(tmp_path / "edge", ports, acme, HOST) as edge:
            edge.wait_event("certificate issued")
            assert edge.events("certificate not issued") == []
            assert edge.fetch(HOST, issuer.root()).returncode == 0
        assert proxy.count("/order-plz") >= 3


def test_while_renewal_fails_the_old_certificate_is_served_and_why_is_shown(
    tmp_path: Path, issuer: Pebble, ports: Ports
) -> None:
    with acme_proxy(issuer) as proxy:
        acme = issuer.config().replace(issuer.directory, proxy.directory)
        with acme_edge(tmp_path, ports, acme, HOST) as edge:
            edge.wait_event("certificate issued")
            serial = edge.serial(HOST)

            def revoke(path: str, answer: dict) -> None:
                if path.startswith("/authZ/"):
                    answer["status"] = "revoked"

            proxy.rewrite = revoke
            edge.renew(HOST)
            failed = edge.wait_event("certificate not renewed")
            assert failed["error"] == f"the authorization for {HOST} is revoked"
            proxy.rewrite = None
            limited = Fault(429, "rateLimited", "too many certificates", retry_after="7200")
            proxy.faults = {"/order-plz": limited}
            edge.renew(HOST)
            failed = edge.wait_event("certificate not renewed", 2)
            assert (failed["cause"], failed["host"]) == ("rate_limited", HOST)
            asked = proxy.count("/order-plz")
            edge.renew(HOST)
            assert edge.serial(HOST) == serial
            assert edge.fetch(HOST, issuer.root()).returncode == 0
            state = edge.host(HOST)
            assert state["error"] == "rateLimited: too many certificates"
            assert state["failing_since"] is not None
            assert (
                "rateLimited" in edge.quicedge("certs", "list", "-c", edge.config).stdout.decode()
            )
            metrics = edge.metrics()
            assert f'quicedge_acme_failing_since_timestamp_seconds{{host="{HOST}"}} 1.' in metrics
            assert 'quicedge_acme_orders_total{result="rate_limited"} 1.0' in metrics
            assert proxy.count("/order-plz") == asked, "an operator does not override it"


def test_an_issuer_that_is_down_at_start_delays_nothing(tmp_path: Path, ports: Ports) -> None:
    port = free_edge_port()
    pebbles = tmp_path / "pebble"

    def running():
        return pebble(pebbles, http_port=ports.http, tls_port=ports.https, port=port)

    with running() as issuer:
        acme = issuer.config()
        with acme_edge(tmp_path / "edge", ports, acme, HOST) as edge:
            edge.wait_event("certificate issued")
            serial = edge.serial(HOST)
    new = "new.example.com"
    with acme_edge(tmp_path / "edge", ports, acme, HOST, new) as edge:
        edge.wait_event("certificate not issued")
        assert edge.serial(HOST) == serial
        assert refusal(edge, new) == "TLSV1_UNRECOGNIZED_NAME"
        state = edge.host(new)
        assert "unavailable" in state["error"]
        assert edge.status()["acme"]["issuers"][0]["down_until"] is not None
        with running() as issuer:
            edge.renew(new)
            edge.wait_event("certificate issued", 2)
            assert edge.fetch(new, issuer.root()).returncode == 0
            assert edge.host(new)["failing_since"] is None


def test_wildcards_by_a_dns_command_with_an_external_account(tmp_path: Path, ports: Ports) -> None:
    key = base64.urlsafe_b64encode(os.urandom(48)).decode()
    with pebble(tmp_path / "pebble", http_port=1, tls_port=1, bindings={"kid-1": key}) as issuer:
        command = tmp_path / "dns.py"
        command.write_text(
            "import json, sys, urllib.request\n"
            "action, name, value = sys.argv[2:]\n"
            "path = 'set-txt' if action == 'add' else 'clear-txt'\n"
            "body = json.dumps({'host': name, 'value': value}).encode()\n"
            "request = urllib.request.Request(f'{sys.argv[1]}/{path}', body, method='POST')\n"
            "urllib.request.urlopen(request).close()\n"
        )
        hmac_key = tmp_path / "eab.key"
        hmac_key.write_text(key + "\n")
        hmac_key.chmod(0o600)
        acme = issuer.config(
            dns_command=[sys.executable, str(command), issuer.dns_management],
            eab_key_id="kid-1",
            eab_hmac_key_file=str(hmac_key),
            key_type="rsa2048",
        )
        # What is received from the issuer is read by this user, who can read nothing of ours.
        user = ""
        if os.geteuid() == 0:
            user = 'user = "nobody"'
            for directory in (tmp_path, *tmp_path.parents[:2]):
                directory.chmod(0o711)  # the site is served by that user
        with acme_edge(tmp_path / "edge", ports, acme, "*.example.com", options=user) as edge:
            edge.wait_event("certificate issued")
            done = edge.fetch("any.example.com", issuer.root())
            assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr


def test_the_second_issuer_takes_over_from_one_that_refuses_the_account(
    tmp_path: Path, issuer: Pebble, ports: Ports
) -> None:
    with pebble(
        tmp_path / "strict", http_port=ports.http, tls_port=ports.https, bindings={"k": "eA"}
    ) as strict:
        acme = issuer.config(issuers=[]).replace("issuers = []", "")
        tables = "".join(
            f'[[tls.acme.issuers]]\ndirectory = "{one.directory}"\nca = "{one.ca}"\n'
            for one in (strict, issuer)
        )
        with acme_edge(tmp_path / "edge", ports, acme + tables, HOST) as edge:
            edge.wait_event("certificate issued")
            assert edge.events("certificate not issued")[0]["cause"] == "refused"
            assert edge.host(HOST)["issuer"] == issuer.directory
            assert edge.fetch(HOST, issuer.root()).returncode == 0


def test_a_certificate_of_another_client_is_imported_into_a_running_edge(
    tmp_path: Path, ports: Ports
) -> None:
    other = devcerts.ensure(tmp_path / "other", (HOST,))
    acme = '[tls.acme]\nagree_to_terms = true\ndirectory = "https://127.0.0.1:1/dir"\n'
    with acme_edge(tmp_path / "edge", ports, acme, HOST) as edge:
        edge.wait_event("certificate not issued")
        arguments = ("certs", "import", "--config", edge.config, str(other.cert), str(other.key))
        done = edge.quicedge(*arguments)
        assert done.stdout == f"imported for {HOST}\n".encode(), done.stderr
        wait_until(lambda: edge.fetch(HOST, other.ca).returncode == 0, "the imported one")
        stranger = devcerts.ensure(tmp_path / "stranger", ("x.example.org",))
        done = edge.quicedge(*arguments[:-2], str(stranger.cert), str(stranger.key))
        assert done.returncode == 1
        assert b"no configured host" in done.stderr
