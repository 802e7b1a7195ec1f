"""Files of certificates: a key that others can read is no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from quicedge.quic.tls import CertificateError, load_certificate, read_certificate
from tests.support.certs import write_certificate


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o644, 0o666])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    cert, key = write_certificate(tmp_path, "localhost")
    key.chmod(mode)
    with pytest.raises(CertificateError) as caught:
        load_certificate(cert, key)
    assert str(key) in str(caught.value)
    assert f"mode {mode:o}" in str(caught.value)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_of_its_owner_alone_is_taken(tmp_path: Path, mode: int) -> None:
    cert, key = write_certificate(tmp_path, "localhost")
    key.chmod(mode)
    assert load_certificate(cert, key).names == {"localhost"}


def test_a_key_shows_nowhere_in_text(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path, "localhost")
    pem = read_certificate(cert, key)
    assert b"PRIVATE KEY" in pem.key
    assert "PRIVATE" not in repr(pem) + str([pem])
