"""Key updates of TLS on TCP: each is answered, and a flood of them ends the connection."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from quicedge.config.limits import TLS_ANSWERS_BURST, TLS_ANSWERS_RATE
from quicedge.quic.hkdf import expand_block
from tests.unit.tcp.test_arrivals import Echo, Front, front, until

_ASKING = b"\x18\0\0\1\1"
"""A KeyUpdate that asks for one in return (RFC 8446 section 4.6.3)."""
_HANDSHAKE, _APPLICATION_DATA = b"\x16", b"\x17"


class Updater:
    """A client that seals its records by itself, once its handshake is complete."""

    def __init__(self, front: Front, directory: Path) -> None:
        self._front = front
        self._keylog = directory / "keys"
        self._secret: bytes
        self._number = 0
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def connect(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.keylog_filename = str(self._keylog)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing)
        self.reader, self.writer = await self._front.dial()
        done = False
        while not done:
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
                done = True
            self.writer.write(outgoing.read())
            if not done:
                incoming.write(await self.reader.read(65536))
        assert client.cipher() == ("TLS_AES_128_GCM_SHA256", "TLSv1.3", 128)
        lines = dict(line.split(" ", 1) for line in self._keylog.read_text().splitlines())
        self._secret = bytes.fromhex(lines["CLIENT_TRAFFIC_SECRET_0"].split(" ")[1])
        await until(lambda: self._front.sessions)

    def _record(self, content: bytes, kind: bytes) -> bytes:
        head = b"\x17\3\3" + (len(content) + 17).to_bytes(2, "big")
        key, iv = (expand_block(32, self._secret, name, b"", n) for name, n in _MATERIAL)
        nonce = int.from_bytes(iv, "big") ^ self._number
        self._number += 1
        return head + AESGCM(key).encrypt(nonce.to_bytes(12, "big"), content + kind, head)

    def update(self, count: int) -> None:
        """Update the keys so many times, asking for the same in return."""
        for _ in range(count):
            self.writer.write(self._record(_ASKING, _HANDSHAKE))
            self._secret = expand_block(32, self._secret, b"traffic upd", b"", 32)
            self._number = 0

    def send(self, data: bytes) -> None:
        self.writer.write(self._record(data, _APPLICATION_DATA))


_MATERIAL = ((b"key", 16), (b"iv", 12))


async def test_a_flood_of_key_updates_on_tcp_is_cut_off(tmp_path: Path) -> None:
    async with front() as one:
        client = Updater(one, tmp_path)
        await client.connect()
        client.update(2 * TLS_ANSWERS_BURST)
        await until(lambda: one.sessions[0].lost)
        with contextlib.suppress(ConnectionResetError):
            answers = await client.reader.read()
            assert len(answers) < TLS_ANSWERS_BURST * 64 + 1024  # and tickets


async def test_a_client_that_updates_its_keys_now_and_then_is_let_be(tmp_path: Path) -> None:
    received = bytearray()

    class Reader(Echo):
        def data_received(self, data: bytes) -> None:
            received.extend(data)

    async with front() as one:
        one.kind = Reader
        client = Updater(one, tmp_path)
        await client.connect()
        transport = one.sessions[0].connection.transport
        loop = transport._loop
        passed = 0.0

        class Later:
            def time(self) -> float:
                return loop.time() + passed

            def __getattr__(self, name: str) -> Any:
                return getattr(loop, name)

        transport._loop = Later()  # type: ignore[assignment]
        for n in range(1, 6):
            client.update(TLS_ANSWERS_BURST)
            client.send(b"still here")
            await until(lambda n=n: len(received) == n * len(b"still here"))
            passed += TLS_ANSWERS_BURST / TLS_ANSWERS_RATE
        assert not transport.is_closing()
        assert not one.sessions[0].lost
