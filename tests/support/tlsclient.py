"""What stock aioquic's client lacks: key exchange groups of any choice, hybrids with ML-KEM among
them, an answer to a HelloRetryRequest, and compressed certificates."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from aioquic import tls
from aioquic.buffer import Buffer
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x448, x25519

from quicedge.quic.key_exchange import GROUPS

RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
CURVES = {"secp256r1": ec.SECP256R1(), "secp384r1": ec.SECP384R1(), "secp521r1": ec.SECP521R1()}
NUMBERS = {name: group.number for name, group in GROUPS.items()}

Change = Callable[[tls.ClientHello], None]
Finish = Callable[[bytes], bytes]
"""From the server's key share to the shared secret."""


def point_of(key: ec.EllipticCurvePublicKey) -> bytes:
    size = (key.curve.key_size + 7) // 8
    numbers = key.public_numbers()
    return b"\4" + numbers.x.to_bytes(size, "big") + numbers.y.to_bytes(size, "big")


def new_share(group: str) -> tuple[bytes, Finish]:
    """A client's key share, and what it makes of the server's."""
    if group == "x25519":
        key = x25519.X25519PrivateKey.generate()
        decode = x25519.X25519PublicKey.from_public_bytes
        return key.public_key().public_bytes_raw(), lambda share: key.exchange(decode(share))
    if group == "x448":
        key448 = x448.X448PrivateKey.generate()
        decode448 = x448.X448PublicKey.from_public_bytes
        return (
            key448.public_key().public_bytes_raw(),
            lambda share: key448.exchange(decode448(share)),
        )
    if group in CURVES:
        curve = CURVES[group]
        private = ec.generate_private_key(curve)
        return point_of(private.public_key()), lambda share: private.exchange(
            ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(curve, share)
        )
    decapsulation = mlkem.MLKEM768PrivateKey.generate()
    encapsulation = decapsulation.public_key().public_bytes_raw()
    if group == "X25519MLKEM768":
        share, finish = new_share("x25519")
        return (
            encapsulation + share,
            lambda theirs: decapsulation.decapsulate(theirs[:1088]) + finish(theirs[1088:]),
        )
    assert group == "SecP256r1MLKEM768"
    share, finish = new_share("secp256r1")
    return (
        share + encapsulation,
        lambda theirs: finish(theirs[:65]) + decapsulation.decapsulate(theirs[65:]),
    )


class _Received:
    """A server's key share, which aioquic takes for one of X25519."""

    def __init__(self, share: tuple[int, bytes]) -> None:
        self.share = share


x25519.X25519PublicKey.register(_Received)


class _Keys:
    """Private keys of all groups, which aioquic takes for one of X25519."""

    def __init__(self) -> None:
        self.finish: dict[int, Finish] = {}

    def exchange(self, received: _Received) -> bytes:
        number, share = received.share
        return self.finish[number](share)


class TlsClient:
    """Patches stock aioquic's clients while they are made and shake hands (`patched`)."""

    def __init__(
        self,
        groups: Sequence[str],
        shares: Sequence[str | tuple[str, bytes]] | None = None,
        *,
        compressions: Sequence[int] = (),
        decompress: Callable[[int, bytes], bytes] = lambda _, data: zlib.decompress(data),
        change: Change = lambda hello: None,
    ) -> None:
        """`groups` are supported, `shares` sent first (with their bytes, or well-made; None: of the
        first group). `change` edits the ClientHello after a HelloRetryRequest."""
        self.groups = groups
        self.shares = groups[:1] if shares is None else shares
        self.compressions = compressions
        self.decompress = decompress
        self.change = change
        self.requests: list[int] = []
        """Groups asked for by HelloRetryRequests."""
        self.compressed_with: int | None = None
        self.certificate_size = 0
        """Bytes of the message that brought the certificate."""
        self._sent = b""

    def _hello(self, context: Any, output: Buffer, shares: Sequence[Any], before: bytes) -> None:
        """Write a ClientHello behind a transcript."""
        context._x25519_private_key = keys = _Keys()
        entries = []
        for share in shares:
            if isinstance(share, tuple):
                entries.append((NUMBERS[share[0]], share[1]))
                continue
            data, keys.finish[NUMBERS[share]] = new_share(share)
            entries.append((NUMBERS[share], data))
        others = list(context.handshake_extensions)
        if self.compressions:
            listed = b"".join(number.to_bytes(2, "big") for number in self.compressions)
            others.append((27, bytes((len(listed),)) + listed))
        ticket = context.session_ticket
        hello = tls.ClientHello(
            random=context.client_random,
            legacy_session_id=context.legacy_session_id,
            cipher_suites=[int(suite) for suite in context._cipher_suites],
            legacy_compression_methods=context._legacy_compression_methods,
            alpn_protocols=context._alpn_protocols,
            key_share=entries,
            psk_key_exchange_modes=context._psk_key_exchange_modes,
            server_name=context._server_name,
            signature_algorithms=context._signature_algorithms,
            supported_groups=[NUMBERS[group] for group in self.groups],
            supported_versions=context._supported_versions,
            other_extensions=others,
        )
        if before:
            self.change(hello)
        if ticket is not None:
            hello.pre_shared_key = tls.OfferedPsks(
                identities=[(ticket.ticket, ticket.obfuscated_age)], binders=[bytes(32)]
            )
        message = Buffer(capacity=8000)
        tls.push_client_hello(message, hello)
        data = message.data
        if ticket is not None:
            schedule = tls.KeySchedule(ticket.cipher_suite)
            schedule.extract(ticket.resumption_secret)
            key = schedule.derive_secret(b"res binder")
            schedule.update_hash(before + data[:-35])
            data = data[:-32] + schedule.finished_verify_data(key)
            schedule.update_hash(data[-35:])
            context._key_schedule_psk = schedule
        context._key_schedule_proxy = tls.KeyScheduleProxy(context._cipher_suites)
        context._key_schedule_proxy.extract(None)
        context._key_schedule_proxy.update_hash(before + data)
        output.push_bytes(data)
        self._sent = data

    @contextmanager
    def patched(self) -> Iterator[TlsClient]:
        handle_hello = tls.Context._client_handle_hello
        handle = tls.Context._handle_reassembled_message

        def send(context: Any, output: Buffer) -> None:
            self._hello(context, output, self.shares, b"")
            context._set_state(tls.State.CLIENT_EXPECT_SERVER_HELLO)

        def receive(context: Any, message: Buffer, output: Buffer) -> None:
            data = message.data_slice(0, message.capacity)
            if data[6:38] != RETRY_RANDOM:
                handle_hello(context, message, output)
                return
            message.seek(message.capacity)
            group = int.from_bytes(data[-2:], "big")
            self.requests.append(group)
            suite = tls.CipherSuite(int.from_bytes(data[39:41], "big"))
            schedule = tls.KeySchedule(suite)
            schedule.update_hash(self._sent)
            digest = schedule.hash.copy().finalize()
            before = b"\xfe\0\0" + bytes((len(digest),)) + digest + data
            (name,) = (name for name, number in NUMBERS.items() if number == group)
            self._hello(context, output, [name], before)

        def receive_any(
            context: Any, message_type: int, input_buf: Buffer, output_buf: Any
        ) -> None:
            data = input_buf.data_slice(0, input_buf.capacity)
            if message_type in (tls.HandshakeType.CERTIFICATE, 25):
                self.certificate_size = len(data)
            if message_type != 25:
                handle(context, message_type, input_buf, output_buf)
                return
            self.compressed_with = int.from_bytes(data[4:6], "big")
            body = self.decompress(self.compressed_with, data[12:])
            assert len(body) == int.from_bytes(data[6:9], "big")
            assert len(data) == 12 + int.from_bytes(data[9:12], "big")
            message = b"\x0b" + len(body).to_bytes(3, "big") + body
            context.key_schedule.update_hash(data)
            context._set_peer_certificate(tls.pull_certificate(Buffer(data=message)))
            context._set_state(tls.State.CLIENT_EXPECT_CERTIFICATE_VERIFY)

        with (
            patch.object(tls.Context, "_client_send_hello", send),
            patch.object(tls.Context, "_client_handle_hello", receive),
            patch.object(tls.Context, "_handle_reassembled_message", receive_any),
            patch.object(tls, "decode_public_key", _Received),
        ):
            yield self
