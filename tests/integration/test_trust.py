"""`quicedge certs trust` and `untrust`, in stores of a namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from quicedge.config import devcerts
from tests.support.edge import REPOSITORY, edge
from tests.support.origin import demo_origin
from tests.support.peers import require

_SCRIPT = """
set -e
cp -a /etc/ssl "$HOME/ssl"
mkdir "$HOME/local"
mount --bind "$HOME/ssl" /etc/ssl
mount --bind "$HOME/local" /usr/local/share/ca-certificates
certs() { "$PYTHON" -m quicedge certs "$1" --directory "$CERTS"; }
try() { curl -s -o /dev/null "$URL" && echo "curl trusts" || echo "curl refuses"; }
nss() { certutil -d "sql:$HOME/.pki/nssdb" -L | grep -c quicedge- || true; }
try
certs trust
certs trust
try
nss
certs untrust
certs untrust
try
nss
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace requires root")
def test_clients_trust_the_development_ca_until_it_is_untrusted(tmp_path: Path) -> None:
    for program in ("unshare", "curl", "certutil", "update-ca-certificates"):
        require(program)
    home = tmp_path / "home"
    home.mkdir()
    with demo_origin() as origin, edge(tmp_path, origin) as running:
        environment = {
            **os.environ, "HOME": str(home), "PYTHON": sys.executable,
            "CERTS": str(tmp_path / "certs"), "URL": f"https://localhost:{running.port}/",
        }  # fmt: skip
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SCRIPT],
            env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=100,
            check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    system = "system (/usr/local/share/ca-certificates)"
    nss = f"NSS ({home}/.pki/nssdb)"
    assert done.stdout.splitlines() == [
        "curl refuses",
        f"{system}: trusted",
        f"{nss}: trusted",
        f"{system}: trusted already",
        f"{nss}: trusted already",
        "curl trusts",
        "1",
        f"{system}: no longer trusted",
        f"{nss}: no longer trusted",
        f"{system}: not trusted",
        f"{nss}: not trusted",
        "curl refuses",
        "0",
    ]


def test_only_a_ca_is_trusted(tmp_path: Path) -> None:
    files = devcerts.ensure(tmp_path / "certs")
    files.ca.write_bytes(files.cert.read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "quicedge", "certs", "untrust", "--directory", str(files.ca.parent)],
        capture_output=True, cwd=REPOSITORY, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert b"not of a CA" in done.stderr
