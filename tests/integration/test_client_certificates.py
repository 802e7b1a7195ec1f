"""Whole edges that ask clients for certificates, and clients of others that have some, or none."""

from __future__ import annotations

import base64
import json
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from quicedge.config import devcerts
from tests.support.clientpki import Certified, authority, client, revocation_list
from tests.support.edge import RunningEdge, edge
from tests.support.h3client import h3_client
from tests.support.peers import gtlsclient, require, wait_until
from tests.support.recording_origin import RecordingOrigin

SECRET, OPEN = "localhost", "open.example"
ROOT = authority("root")
INTERMEDIATE = authority("intermediate", ROOT)
ALICE = client("alice", INTERMEDIATE)
MALLORY = client("mallory", authority("another root"))
FORGED = (
    "Client-Cert: :Zm9yZ2Vk:",
    "Client_Cert-Chain: :Zm9yZ2Vk:",
    "X-SSL-Client-Verify: SUCCESS",
)


class Site:
    """An edge with a host that requires certificates, and one that does not."""

    def __init__(self, running: RunningEdge, origin: RecordingOrigin) -> None:
        self.running = running
        self.origin = origin
        self.directory = running.directory

    def files(self, who: Certified) -> tuple[Path, Path]:
        return who.write(self.directory, who.certificate.subject.rfc4514_string())

    def curl(
        self, who: Certified | None, *options: str, host: str = SECRET
    ) -> subprocess.CompletedProcess[bytes]:
        ca = self.running.certificate.ca
        command = [
            require("curl"), "--silent", "--show-error", "--cacert", str(ca),
            "--resolve", f"{host}:{self.running.port}:127.0.0.1", "--write-out", " %{http_code}",
            "--max-time", "20", *options, f"https://{host}:{self.running.port}/",
        ]  # fmt: skip
        if who is not None:
            cert, key = self.files(who)
            command += ["--cert", str(cert), "--key", str(key)]
        return subprocess.run(command, capture_output=True, timeout=30, check=False)

    def on_quic(self, who: Certified | None) -> bytes | None:
        """What another stack's client gets; None: nothing."""
        options: list[str] = []
        if who is not None:
            cert, key = self.files(who)
            options += [f"--cert={cert}", f"--key={key}"]
        got = self.directory / "got" / "page"
        got.unlink(missing_ok=True)
        gtlsclient(
            self.running.port, "/page", directory=got.parent, options=(f"--sni={SECRET}", *options)
        )
        return got.read_bytes() if got.exists() else None

    def reload(self) -> None:
        before = self.running.admin("/api/v1/status")["reloads"]
        self.running.process.send_signal(signal.SIGHUP)
        wait_until(
            lambda: self.running.admin("/api/v1/status")["reloads"] > before, "the reload", 20
        )

    def verdicts(self) -> dict[tuple[str, str], float]:
        """Handshakes by transport and verdict."""
        found = {}
        for line in self.running.metrics().splitlines():
            name, _, rest = line.partition("{")
            if name == "quicedge_tls_client_certificates_total":
                labels, _, value = rest.rpartition("} ")
                pairs = dict(item.split("=") for item in labels.split(","))
                key = pairs["transport"].strip('"'), pairs["verdict"].strip('"')
                found[key] = float(value)
        return found

    def refusals(self) -> list[dict[str, Any]]:
        lines = [json.loads(x) for x in self.running.log().splitlines() if x.startswith("{")]
        return [x for x in lines if x.get("event") == "client certificate refused"]


@contextmanager
def site(directory: Path, *, mode: str = "require", crl: bytes = b"") -> Iterator[Site]:
    devcerts.ensure(directory / "certs", (*devcerts.DEFAULT_HOSTS, OPEN))
    (directory / "clients.pem").write_bytes(ROOT.pem)
    (directory / "clients.crl").write_bytes(crl)
    lists = 'crl = ["clients.crl"]' if crl else ""
    extra = f"""
[[tls.client_auth]]
hosts = ["{SECRET}"]
client_ca = "clients.pem"
mode = "{mode}"
{lists}

[forwarding]
client_certificate = "chain"
"""
    origin = RecordingOrigin()
    try:
        with edge(directory, origin.url, extra) as running:
            yield Site(running, origin)
    finally:
        origin.close()


def byte_sequence(certificate: Certified) -> bytes:
    return b":%b:" % base64.b64encode(certificate.chain[0])


def test_origins_learn_who_the_client_is_and_nothing_that_it_claims(tmp_path: Path) -> None:
    with site(tmp_path) as there:
        forged = [item for line in FORGED for item in ("--header", line)]
        for version in ("--http1.1", "--http2"):
            done = there.curl(ALICE, version, *forged)
            assert done.stdout == b"ok 200", done.stderr
        assert there.on_quic(ALICE) == b"ok"
        assert len(there.origin.requests) == 3
        for seen in there.origin.requests:
            assert seen.values(b"client-cert") == [byte_sequence(ALICE)]
            assert seen.values(b"client-cert-chain") == [byte_sequence(INTERMEDIATE)]
            assert b"forged" not in b"".join(value for _, value in seen.fields)
            assert not seen.values(b"x-ssl-client-verify")
        done = there.curl(None, *forged, host=OPEN)
        assert done.stdout == b"ok 200", done.stderr
        names = {name for name, _ in there.origin.requests[-1].fields}
        assert not {name for name in names if b"cert" in name or b"ssl" in name}
        wait_until(lambda: len(there.running.access()) == 4, "access records")
        records = there.running.access()
        assert [item["client_subject"] for item in records] == ["CN=alice,O=Example"] * 3 + [None]
        assert len({item["client_fingerprint"] for item in records[:3]}) == 1
        assert there.verdicts() == {("tcp", "accepted"): 2, ("quic", "accepted"): 1}


@pytest.mark.parametrize(
    ("who", "alert", "verdict"),
    [(None, b"certificate required", "required"), (MALLORY, b"unknown ca", "unknown_ca")],
    ids=["none", "another authority's"],
)
def test_who_is_not_accepted_gets_an_alert_and_a_line_in_the_log(
    tmp_path: Path, who: Certified | None, alert: bytes, verdict: str
) -> None:
    with site(tmp_path) as there:
        for version in ("--http1.1", "--http2"):
            done = there.curl(who, version)
            assert done.returncode in (35, 56), done
            assert alert in done.stderr, done.stderr
        old = there.curl(who, "--tls-max", "1.2")
        assert old.returncode in (35, 56), old
        assert not there.on_quic(who)
        assert there.origin.requests == []
        wait_until(lambda: len(there.refusals()) == 4, "lines in the log")
        # GnuTLS keeps a certificate to itself that none of the named authorities has issued.
        told = [(item["transport"], item["verdict"]) for item in there.refusals()]
        assert told == [("tcp", verdict)] * 3 + [("quic", "required")]
        assert {item["server_name"] for item in there.refusals()} == {SECRET}
        assert {item["client"].rpartition(":")[0] for item in there.refusals()} == {"127.0.0.1"}
        assert there.verdicts() == {("tcp", verdict): 3, ("quic", "required"): 1}
        assert there.curl(ALICE, "--tls-max", "1.2").stdout == b"ok 200"


def test_where_a_certificate_is_only_requested_clients_may_come_without(tmp_path: Path) -> None:
    with site(tmp_path, mode="request") as there:
        assert there.curl(None).stdout == b"ok 200"
        assert there.on_quic(None) == b"ok"
        assert there.curl(ALICE).stdout == b"ok 200"
        assert [bool(seen.values(b"client-cert")) for seen in there.origin.requests] == [
            False, False, True,
        ]  # fmt: skip
        assert b"unknown ca" in there.curl(MALLORY).stderr


async def test_no_connection_carries_requests_for_a_host_with_another_rule(
    tmp_path: Path,
) -> None:
    with site(tmp_path) as there:
        for who, host, other in ((ALICE, SECRET, OPEN), (None, OPEN, SECRET)):
            for version in ("--http1.1", "--http2"):
                done = there.curl(who, version, "--header", f"Host: {other}", host=host)
                assert done.stdout.endswith(b" 421"), done
        # Without a name too, and however it is written.
        for name in (SECRET, SECRET.upper(), f"{SECRET}."):
            done = there.curl(None, "--header", f"Host: {name}", host="127.0.0.1")
            assert done.stdout.endswith(b" 421"), done
        port = there.running.port
        async with h3_client(port, server_name=OPEN) as visitor:
            assert (await visitor.ask(b"GET", b"/", authority=SECRET.encode())).status == 421
        async with h3_client(port, **credentials(ALICE)) as visitor:
            assert (await visitor.ask(b"GET", b"/", authority=OPEN.encode())).status == 421
        assert there.origin.requests == []


def credentials(who: Certified) -> dict[str, Any]:
    """As aioquic's configuration has them."""
    return {
        "certificate": who.certificate,
        "certificate_chain": list(who.intermediates),
        "private_key": who.key,
    }


def test_a_rule_that_a_reload_brings_holds_for_open_connections_too(tmp_path: Path) -> None:
    with site(tmp_path) as there:
        config = tmp_path / "quicedge.toml"
        with_rule = config.read_text()
        config.write_text(with_rule.replace(f'hosts = ["{SECRET}"]', 'hosts = ["other.example"]'))
        there.reload()
        visitor = Visitor(there, ALICE)  # nobody asks for it
        assert visitor.get().startswith(b"HTTP/1.1 200")
        assert there.verdicts() == {}
        config.write_text(with_rule)
        there.reload()
        heard = visitor.get()
        assert heard == b"" or heard.startswith(b"HTTP/1.1 421")
        wait_until(visitor.is_closed, "the end of the connection", 20)
        assert len(there.origin.requests) == 1
        assert Visitor(there, ALICE).get().startswith(b"HTTP/1.1 200")


class Visitor:
    """A client on TCP that keeps its connection."""

    def __init__(self, there: Site, who: Certified) -> None:
        context = ssl.create_default_context(cafile=str(there.running.certificate.ca))
        context.load_cert_chain(*there.files(who))
        plain = socket.create_connection(("127.0.0.1", there.running.port), timeout=30)
        self.sock = context.wrap_socket(plain, server_hostname=SECRET)

    def get(self) -> bytes:
        """What is answered; nothing once the connection is closed."""
        try:
            self.sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return self.sock.recv(65536)
        except ConnectionError:
            return b""

    def is_closed(self) -> bool:
        self.sock.settimeout(0.1)
        try:
            while self.sock.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True


async def test_a_revoked_client_loses_its_connections_and_others_keep_theirs(
    tmp_path: Path,
) -> None:
    bob = client("bob", INTERMEDIATE)
    lists = revocation_list(ROOT) + revocation_list(INTERMEDIATE)
    with site(tmp_path, crl=lists) as there:
        alices, bobs = Visitor(there, ALICE), Visitor(there, bob)
        assert alices.get().startswith(b"HTTP/1.1 200")
        assert bobs.get().startswith(b"HTTP/1.1 200")
        async with h3_client(there.running.port, **credentials(ALICE)) as on_quic:
            answer = await on_quic.ask(b"GET", b"/")
            assert answer.status == 200
            # Nobody reloads: the file is watched.
            (tmp_path / "clients.crl").write_bytes(
                revocation_list(ROOT) + revocation_list(INTERMEDIATE, ALICE)
            )
            await on_quic.until(lambda: on_quic.closed is not None)
        assert alices.sock.recv(1) == b""
        assert bobs.get().startswith(b"HTTP/1.1 200")
        assert b"revoked" in there.curl(ALICE).stderr
        assert not there.on_quic(ALICE)
        assert there.curl(bob).stdout == b"ok 200"
        assert there.verdicts()["tcp", "revoked"] == 1


def test_a_list_that_is_broken_changes_nothing(tmp_path: Path) -> None:
    lists = revocation_list(ROOT) + revocation_list(INTERMEDIATE)
    with site(tmp_path, crl=lists) as there:
        (tmp_path / "clients.crl").write_bytes(lists[:-200])
        wait_until(lambda: "certificates not replaced" in there.running.log(), "the refusal", 30)
        assert "tls.client_auth[0].crl" in there.running.log()
        assert there.curl(ALICE).stdout == b"ok 200"
