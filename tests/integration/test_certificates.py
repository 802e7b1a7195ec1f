"""Certificates in files, which others replace while the edge runs."""

from __future__ import annotations

import json
import shutil
import ssl
from pathlib import Path

from quicedge.config import devcerts
from tests.support.edge import RunningEdge, edge
from tests.support.origin import demo_origin
from tests.support.peers import wait_until


def events(running: RunningEdge, name: str) -> list[dict]:
    lines = [json.loads(line) for line in running.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("event") == name]


def served(running: RunningEdge) -> bytes:
    """The certificate on TCP."""
    pem = ssl.get_server_certificate(("127.0.0.1", running.port), timeout=10)
    return pem.encode().strip()


def leaf(path: Path) -> bytes:
    return path.read_bytes().partition(b"-----END CERTIFICATE-----")[0].strip() + (
        b"\n-----END CERTIFICATE-----"
    )


def test_replaced_files_are_served_without_a_reload_once_they_fit(tmp_path: Path) -> None:
    new = devcerts.ensure(tmp_path / "new", ("localhost", "new.example"))
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        old = leaf(running.certificate.cert)
        assert served(running) == old
        shutil.copy(new.cert, running.certificate.cert)
        wait_until(lambda: bool(events(running, "certificates not replaced")), "the refusal", 30)
        (refusal, *_) = events(running, "certificates not replaced")
        assert "the key is not that of the certificate" in refusal["error"]
        assert served(running) == old
        shutil.copy(new.key, running.certificate.key)
        wait_until(lambda: served(running) == leaf(new.cert), "the new certificate", 30)
        status = running.admin("/api/v1/status")
        assert status["certificates"][0]["names"] == ["localhost", "new.example"]
        assert status["reloads"] == 0


def test_a_certificate_that_appears_in_a_directory_is_served(tmp_path: Path) -> None:
    directory = tmp_path / "more"
    directory.mkdir()
    other = devcerts.ensure(tmp_path / "other", ("other.example",))
    tls = f'certificate_directories = ["{directory}"]'
    with demo_origin() as origin, edge(tmp_path, origin, tls=tls) as running:
        secret = directory / "other"
        secret.mkdir()
        for source, name in ((other.cert, "tls.crt"), (other.key, "tls.key")):
            shutil.copy(source, secret / name)

        def names() -> set[str]:
            found = running.admin("/api/v1/status")["certificates"]
            return {name for one in found for name in one["names"]}

        wait_until(lambda: "other.example" in names(), "the new certificate", 30)
        done = running.get("/", "--sni", "other.example", "--cacert", str(other.ca))
        # Verified with that CA; the edge refuses requests for another name on the connection.
        assert (done.returncode, done.stdout) == (0, b"421 Misdirected Request\n"), done.stderr
        shutil.rmtree(secret)
        wait_until(lambda: "other.example" not in names(), "its removal", 30)
        assert running.get("/echo").returncode == 0
