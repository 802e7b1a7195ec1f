"""Pebble, Let's Encrypt's test issuer, with a DNS server that knows every name."""

from __future__ import annotations

import json
import os
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quicedge.config import devcerts
from tests.support.peers import answers, free_edge_port, process, require, wait_until

PROFILES = {
    "default": {"description": "90 days", "validityPeriod": 90 * 86400},
    "shortlived": {"description": "six days", "validityPeriod": 6 * 86400},
}


@dataclass
class Pebble:
    """A running issuer."""

    directory: str
    """Its directory URL."""
    ca: Path
    """What verifies its TLS certificate."""
    management: str
    dns_management: str
    folder: Path

    def _get(self, url: str) -> bytes:
        context = ssl.create_default_context(cafile=str(self.ca))
        with urllib.request.urlopen(url, timeout=10, context=context) as answer:
            return bytes(answer.read())

    def root(self) -> Path:
        """The root of the certificates that it issues."""
        path = self.folder / "root.pem"
        path.write_bytes(self._get(f"{self.management}/roots/0"))
        return path

    def dns(self, action: str, **values: Any) -> None:
        """Change what the DNS server answers: `set-default-ipv4`, `set-txt`, `add-caa`."""
        request = urllib.request.Request(
            f"{self.dns_management}/{action}", json.dumps(values).encode(), method="POST"
        )
        urllib.request.urlopen(request, timeout=10).close()

    def log(self) -> str:
        return (self.folder / "pebble.out").read_text()

    @property
    def orders(self) -> int:
        """Certificates ordered so far."""
        return self.log().count("POST /order-plz")

    def config(self, **keys: Any) -> str:
        """`[tls.acme]` for an edge whose issuer this is."""
        issuer = [f'directory = "{self.directory}"', f'ca = "{self.ca}"']
        lines = [
            "[tls.acme]",
            'email = "ops@example.com"',
            "agree_to_terms = true",
            *([] if "issuers" in keys else issuer),
            *(f"{key} = {json.dumps(value)}" for key, value in keys.items()),
        ]
        return "\n".join(lines) + "\n"


@contextmanager
def pebble(
    folder: Path,
    *,
    http_port: int,
    tls_port: int,
    port: int | None = None,
    ipv4: str = "127.0.0.1",
    bindings: dict[str, str] | None = None,
    retry_after: tuple[int, int] = (1, 1),
    **environment: str,
) -> Iterator[Pebble]:
    """An issuer that looks for proofs on these ports. `bindings`: external accounts it demands.

    `environment`: variables of Pebble, such as `PEBBLE_WFE_NONCEREJECT`.
    """
    program, dns_program = require("pebble"), require("pebble-challtestsrv")
    folder.mkdir(exist_ok=True)
    port = free_edge_port() if port is None else port
    management, dns, dns_management = (free_edge_port() for _ in range(3))
    files = devcerts.ensure(folder / "certs", ("localhost", "127.0.0.1"))
    config = folder / "pebble.json"
    config.write_text(
        json.dumps(
            {
                "pebble": {
                    "listenAddress": f"127.0.0.1:{port}",
                    "managementListenAddress": f"127.0.0.1:{management}",
                    "certificate": str(files.cert),
                    "privateKey": str(files.key),
                    "httpPort": http_port,
                    "tlsPort": tls_port,
                    "ocspResponderURL": "",
                    "externalAccountBindingRequired": bindings is not None,
                    "externalAccountMACKeys": bindings or {},
                    "retryAfter": {"authz": retry_after[0], "order": retry_after[1]},
                    "keyAlgorithm": "ecdsa",
                    "profiles": PROFILES,
                }
            }
        )
    )
    variables = {
        **os.environ,
        "PEBBLE_VA_NOSLEEP": "1",
        "PEBBLE_WFE_NONCEREJECT": "0",
        "PEBBLE_AUTHZREUSE": "0",
        **environment,
    }
    dns_command = [
        dns_program, "-defaultIPv4", ipv4, "-defaultIPv6", "", "-dns01", f"127.0.0.1:{dns}",
        "-management", f"127.0.0.1:{dns_management}", "-http01", "", "-https01", "",
        "-tlsalpn01", "", "-doh", "",
    ]  # fmt: skip
    command = [program, "-config", str(config), "-strict", "-dnsserver", f"127.0.0.1:{dns}"]
    with (
        process(dns_command, folder / "dns.out"),
        process(command, folder / "pebble.out", env=variables),
    ):
        found = Pebble(
            f"https://127.0.0.1:{port}/dir",
            files.ca,
            f"https://127.0.0.1:{management}",
            f"http://127.0.0.1:{dns_management}",
            folder,
        )
        wait_until(lambda: answers(port) and answers(dns_management), "Pebble")
        yield found
