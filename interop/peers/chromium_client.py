"""Chromium as client of `python -m interop tls`: it loads one page over HTTP/3."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import tempfile
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

UNSUPPORTED = 127
TIMEOUT = 60


def main() -> int:
    if (os.environ["ROLE"], os.environ["TESTCASE"]) != ("client", "handshake"):
        return UNSUPPORTED
    url = os.environ["REQUESTS"].split()[0]
    with open(f"{os.environ['CERTS']}/cert.pem", "rb") as file:
        leaf = x509.load_pem_x509_certificates(file.read())[0]
    key = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pin = base64.b64encode(hashlib.sha256(key).digest()).decode()
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [
                "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-dev-shm-usage", "--disable-background-networking",
                "--disable-component-update", "--disable-sync", f"--user-data-dir={profile}",
                "--enable-quic", "--host-resolver-rules=MAP localhost 127.0.0.1",
                f"--origin-to-force-quic-on={urlsplit(url).netloc}",
                f"--ignore-certificate-errors-spki-list={pin}", "--dump-dom", url,
            ],
            capture_output=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
    if done.returncode or b"handshake" not in done.stdout:
        sys.stderr.buffer.write(done.stdout[-500:] + done.stderr[-1500:])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
