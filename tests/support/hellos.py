"""ClientHellos taken apart, changed and put together again, and what servers make of them."""

from __future__ import annotations

import random
from functools import cache
from typing import NamedTuple

from aioquic import tls
from aioquic.buffer import Buffer, BufferReadError

from quicedge.quic.client_hello import ClientHello, read_client_hello
from tests.fuzz.mutate import mutate
from tests.support.openssl import OpenSslClient, openssl_verdict, our_verdict

SERVER_NAME, PRE_SHARED_KEY, EARLY_DATA, KEY_EXCHANGE_MODES = 0, 41, 42, 45
PSK_DHE_KE = 1
NO_APPLICATION_PROTOCOL = 120
COMPRESS_CERTIFICATE = 27
GREASE = 0x3A3A
READ_BY_BOTH = (0, 10, 13, 16, 41, 42, 43, 45, 51)
READ_BY_ONE = (1, 5, 18, 21, 22, 23, 27, 35, 44, 49, 50, 65281, GREASE)
"""Extensions that OpenSSL reads and we need not, because they ask for what QUIC or this server
lacks, and certificate compression, which this build of OpenSSL lacks."""


class Hello(NamedTuple):
    """The parts of a ClientHello."""

    version: bytes
    random: bytes
    session_id: bytes
    suites: bytes
    compression: bytes
    extensions: tuple[tuple[int, bytes], ...]

    @classmethod
    def parse(cls, message: bytes) -> Hello:
        session_id, at = _vector(message, 38, 1)
        suites, at = _vector(message, at, 2)
        compression, at = _vector(message, at, 1)
        listed, _ = _vector(message, at, 2)
        extensions, at = [], 0
        while at < len(listed):
            kind = int.from_bytes(listed[at : at + 2], "big")
            body, at = _vector(listed, at + 2, 2)
            extensions.append((kind, body))
        return cls(message[4:6], message[6:38], session_id, suites, compression, tuple(extensions))

    def with_extensions(self, *more: tuple[int, bytes]) -> Hello:
        return self._replace(extensions=(*self.extensions, *more))

    def encode(self) -> bytes:
        extensions = b"".join(
            kind.to_bytes(2, "big") + _opaque(body, 2) for kind, body in self.extensions
        )
        body = b"".join((
            self.version, self.random, _opaque(self.session_id, 1), _opaque(self.suites, 2),
            _opaque(self.compression, 1), _opaque(extensions, 2),
        ))  # fmt: skip
        return b"\1" + _opaque(body, 3)


def _vector(data: bytes, at: int, width: int) -> tuple[bytes, int]:
    start = at + width
    end = start + int.from_bytes(data[at:start], "big")
    return data[start:end], end


def _opaque(data: bytes, width: int) -> bytes:
    data = data[: (1 << 8 * width) - 1]
    return len(data).to_bytes(width, "big") + data


@cache
def seeds() -> tuple[Hello, ...]:
    """What OpenSSL's client sends, without the session ID that QUIC forbids."""
    groups = (
        (), ("x25519",), ("secp256r1", "x25519"), ("X25519MLKEM768",), ("SecP256r1MLKEM768",),
        ("secp521r1", "secp384r1"), ("x448",),
    )  # fmt: skip
    plain = [Hello.parse(OpenSslClient(each).hello())._replace(session_id=b"") for each in groups]
    ticket = b"\0\x0f\0\x09no ticket\0\0\0\5", b"\0\x21\x20" + bytes(32)
    tickets = b"\0\x1e" + 2 * ticket[0][2:], b"\0\x42" + 2 * ticket[1][2:]
    resuming = [
        plain[0].with_extensions((EARLY_DATA, b""), (PRE_SHARED_KEY, b"".join(ticket))),
        plain[1].with_extensions((PRE_SHARED_KEY, b"".join(tickets))),
    ]
    return (*plain, *resuming)


def mutated(rng: random.Random) -> Hello:
    """A seed with one to three changes that keep the lengths around them right."""
    hello = rng.choice(seeds())
    for _ in range(rng.randint(1, 3)):
        hello = _changed(hello, rng)
    return hello


def _changed(hello: Hello, rng: random.Random) -> Hello:
    extensions = list(hello.extensions)
    bodies = [body for _, body in extensions] or [b"\0"]
    kind = rng.randrange(12)
    at = rng.randrange(len(extensions) or 1)
    if kind == 0:
        return hello._replace(suites=mutate(hello.suites, bodies, rng))
    if kind == 1:
        return hello._replace(compression=mutate(hello.compression, bodies, rng))
    if kind == 2:
        return hello._replace(version=rng.randbytes(2))
    if kind == 3:
        rng.shuffle(extensions)
    elif kind == 4:
        extensions.append((rng.choice(READ_BY_BOTH + READ_BY_ONE), rng.choice(bodies)))
    elif not extensions:
        pass
    elif kind == 5:
        del extensions[at]
    elif kind == 6:
        extensions.insert(rng.randrange(len(extensions) + 1), extensions[at])
    else:
        extensions[at] = extensions[at][0], mutate(extensions[at][1], bodies, rng)
    return hello._replace(extensions=tuple(extensions))


class Difference(AssertionError):
    """Two servers disagree about a ClientHello."""


def compare_with_openssl(hello: Hello) -> None:
    """Compare our server's verdict with OpenSSL's: both go on, and in the same group, or neither
    does. The alert may differ where a ClientHello is wrong twice. Raises Difference."""
    if _agree(hello):
        return
    ours, theirs = our_verdict(hello.encode()), openssl_verdict(hello.encode())
    # What only one of them reads explains a difference if there is none without it.
    passed_over = {*READ_BY_ONE}
    if theirs.alert is None:
        passed_over.add(PRE_SHARED_KEY)  # OpenSSL reads the binders of tickets that it takes
    common = tuple(one for one in hello.extensions if one[0] not in passed_over)
    if common != hello.extensions and _agree(hello._replace(extensions=common)):
        return
    raise Difference(f"ours {ours}, OpenSSL's {theirs}: {hello.encode().hex()}")


def compare_with_aioquic(hello: Hello) -> None:
    """What we accept, aioquic's reader accepts too, and reads the same; raises Difference.

    Not the other way round: it lets pass what RFC 8446 forbids beyond the syntax, and some vectors
    that are longer than what holds them.
    """
    # It insists on the legacy version, which RFC 8446 section 4.2.1 has servers ignore.
    message = hello._replace(version=b"\3\3").encode()
    try:
        ours = read_client_hello(message)
    except tls.Alert:
        return
    try:
        theirs = tls.pull_client_hello(Buffer(data=message))
    except (tls.Alert, BufferReadError) as error:
        raise Difference(f"aioquic: {error!r}: {message.hex()}") from error
    read_alike(ours, theirs, message)


def read_alike(ours: ClientHello, theirs: tls.ClientHello, message: bytes) -> None:
    """Raises AssertionError where both readings of a message differ."""
    assert ours.random == theirs.random
    assert ours.session_id == theirs.legacy_session_id
    assert list(ours.cipher_suites) == theirs.cipher_suites
    assert list(ours.compression_methods) == theirs.legacy_compression_methods
    assert ours.server_name == theirs.server_name
    assert ours.early_data == theirs.early_data
    assert list((ours.key_shares or {}).items()) == (theirs.key_share or [])
    others = [one for one in theirs.other_extensions if one[0] != COMPRESS_CERTIFICATE]
    assert list(ours.others.items()) == others
    for mine, other in (
        (ours.signature_algorithms, theirs.signature_algorithms),
        (ours.supported_groups, theirs.supported_groups),
        (ours.supported_versions, theirs.supported_versions),
        (ours.key_exchange_modes, theirs.psk_key_exchange_modes),
    ):
        assert (None if mine is None else list(mine)) == other
    # It leaves out names that are not ASCII, which nobody has in common.
    protocols = [name.decode() for name in ours.alpn_protocols or [] if name.isascii()]
    assert protocols == (theirs.alpn_protocols or [])
    offered = theirs.pre_shared_key
    assert (ours.pre_shared_key is None) == (offered is None)
    if ours.pre_shared_key is not None and offered is not None:
        assert ours.pre_shared_key[:2] == offered.identities[0]
        assert ours.pre_shared_key.binder == offered.binders[0]
        binders = b"".join(bytes((len(binder),)) + binder for binder in offered.binders)
        assert message[ours.pre_shared_key.binders_at :] == len(binders).to_bytes(2) + binders


def _agree(hello: Hello) -> bool:
    message = hello.encode()
    ours, theirs = our_verdict(message), openssl_verdict(message)
    if ours is None or ours == theirs or (ours.alert and theirs.alert):
        return True
    if theirs.alert is not None:
        return False
    # RFC 9001 section 8.1: QUIC goes on only with a protocol in common.
    if ours.alert == NO_APPLICATION_PROTOCOL:
        return True
    # Names are logged and listed, so that they have to be printable; OpenSSL leaves that to its
    # application.
    return not dict(hello.extensions).get(SERVER_NAME, b"").isascii()
