"""The process that speaks to an issuer, by itself."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from quicedge.acme.failure import Cause
from quicedge.acme.wire import Account, AskRenewal, Failed, Job, Message, User, line
from quicedge.config import devcerts
from quicedge.config.acmelimits import ISSUER_PROCESS_MEMORY
from tests.support.peers import serve_in_threads

ROOT = Path(__file__).resolve().parents[3]


def job(directory: str, ca: Path | None = None, user: User | None = None) -> Job:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return Job(
        account=Account(directory=directory, key_pem=pem),
        email=None,
        ca=None if ca is None else str(ca),
        user_agent="test",
        user=user,
        task=AskRenewal(certificates={}),
    )


def start(**environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "quicedge.acme"], cwd=ROOT, env={**os.environ, **environment},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def outcome(process: subprocess.Popen[bytes], given: Job) -> Message:
    out, err = process.communicate(line(given), timeout=60)
    assert process.returncode == 0, err
    return msgspec.json.decode(out, type=Message)


def test_without_the_library_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "__init__.py").write_text("raise ImportError('no acme here')")
    process = start(PYTHONPATH=os.pathsep.join((str(tmp_path), str(ROOT))))
    found = outcome(process, job("https://127.0.0.1:1/"))
    assert isinstance(found, Failed)
    assert found.failure.cause is Cause.INTERNAL
    assert "pip install 'quicedge[acme]'" in found.failure.message


def test_an_issuer_that_is_not_there_is_unavailable() -> None:
    pytest.importorskip("acme")
    found = outcome(start(), job("https://127.0.0.1:1/"))
    assert isinstance(found, Failed)
    assert found.failure.cause is Cause.UNAVAILABLE
    assert "Connection refused" in found.failure.message


def _endless() -> Iterator[bytes]:
    while True:
        yield b" " * (1 << 16)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([b"<html>"], "answered 200 OK, which cannot be understood"),
        ([b"[" * 100_000], "makes no sense: RecursionError"),
        ([b"[1]"], "makes no sense: TypeError"),
        (_endless(), "the issuer"),
    ],
    ids=["page", "deep", "list", "endless"],
)
def test_an_issuer_that_answers_nonsense_is_unavailable_and_fills_no_memory(
    content: Iterable[bytes], reason: str
) -> None:
    pytest.importorskip("acme")
    sent = 0

    def answer(connection: socket.socket) -> None:
        nonlocal sent
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
            for part in content:
                connection.sendall(part)
                sent += len(part)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serve_in_threads(listener, answer)
        found = outcome(start(), job(f"http://127.0.0.1:{listener.getsockname()[1]}/"))
    assert isinstance(found, Failed)
    assert found.failure.cause is Cause.UNAVAILABLE
    assert reason in found.failure.message
    assert sent < 2 * ISSUER_PROCESS_MEMORY


@pytest.mark.skipif(os.geteuid() != 0, reason="changing the user requires root")
def test_it_speaks_to_the_issuer_as_another_user_for_good(tmp_path: Path) -> None:
    pytest.importorskip("acme")
    nobody = pwd.getpwnam("nobody")
    files = devcerts.ensure(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as issuer:
        issuer.settimeout(60)
        process = start()
        user = User(nobody.pw_uid, nobody.pw_gid, [])
        port = issuer.getsockname()[1]
        assert process.stdin is not None
        process.stdin.write(line(job(f"https://127.0.0.1:{port}/", files.ca, user)))
        process.stdin.flush()
        connection, _ = issuer.accept()
        status = Path(f"/proc/{process.pid}/status").read_text()
        connection.close()
        process.communicate(timeout=60)
    facts = dict(row.split(":\t", 1) for row in status.splitlines() if ":\t" in row)
    assert set(facts["Uid"].split()) == {str(nobody.pw_uid)}
    assert set(facts["Gid"].split()) == {str(nobody.pw_gid)}
    assert facts["Groups"].split() == []
    assert int(facts["CapPrm"], 16) == 0
