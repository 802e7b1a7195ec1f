"""What OpenSSL can do and Python's `ssl` does not offer: session tickets under keys of our own,
lists of key exchange groups, an order of cipher suites, and requests for clients' certificates that
name authorities.

Contexts of `ssl` seal tickets with random keys: a client resumes in the process that issued its
ticket, and nowhere else. `SharedTickets` sets the keys, by functions of the very libssl that `_ssl`
is linked to. They need the SSL_CTX of a context, which is the first field of the C object behind
it. Nothing is done with that pointer before it has been seen, by a system call that cannot crash,
to lead to an SSL_CTX with the server method of this libssl; and nothing relies on the keys before
a session was resumed across contexts. Wherever this fails, contexts keep keys of their own.

OpenSSL itself knows one key per context. Tickets of other keys, as there are for some time after
each change, need a callback, which costs each handshake another 10 us: contexts with and without
one stand side by side, and the caller chooses by the ticket (`is_older`).
"""

from __future__ import annotations

import ctypes
import functools
import os
import ssl
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from quicedge.config.groups import HYBRIDS
from quicedge.config.limits import CLIENT_AUTHORITIES_SIZE, FLEET_KEYS
from quicedge.tcp.ticket_keys import NAME_SIZE, TicketKey, TicketKeys

_IV_SIZE = 16
_POINTER = ctypes.sizeof(ctypes.c_void_p)
_SET_TICKET_KEYS = 59
"""SSL_CTRL_SET_TLSEXT_TICKET_KEYS: name, HMAC key and AES key."""
_SET_GROUPS = 92
"""SSL_CTRL_SET_GROUPS_LIST: names, joined by colons."""
_SET_SESSION_CACHE = 44
"""SSL_CTRL_SET_SESS_CACHE_MODE; 0 is off."""
_FIRST_WITH_MLKEM = (3, 5)
_OCTET_STRING, _UTF8_STRING = 5, 4
"""Types of OSSL_PARAM (OSSL_PARAM(3))."""

_UNUSABLE, _GOOD, _RENEW = 0, 1, 2
"""Results of the callback (SSL_CTX_set_tlsext_ticket_key_evp_cb(3))."""

_TicketCallback = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,  # SSL *
    ctypes.c_void_p,  # unsigned char name[16]
    ctypes.c_void_p,  # unsigned char iv[16]
    ctypes.c_void_p,  # EVP_CIPHER_CTX *
    ctypes.c_void_p,  # EVP_MAC_CTX *
    ctypes.c_int,  # 1: seal, 0: open
)


class UnsupportedError(Exception):
    """This Python or OpenSSL does not let us do what `ssl` does not offer; says why."""


class _Parameter(ctypes.Structure):
    """OSSL_PARAM."""

    _fields_ = (
        ("key", ctypes.c_char_p),
        ("data_type", ctypes.c_uint),
        ("data", ctypes.c_char_p),
        ("data_size", ctypes.c_size_t),
        ("return_size", ctypes.c_size_t),
    )


@functools.cache
def _library() -> ctypes.CDLL:
    """The libssl and libcrypto that `_ssl` uses; raises UnsupportedError."""
    if ssl.OPENSSL_VERSION_INFO < (3,):
        raise UnsupportedError(f"{ssl.OPENSSL_VERSION} is older than 3.0")
    import _ssl

    try:
        # Names are looked up in the extension and in what it is linked to, or, if it is built in,
        # in the program.
        found = ctypes.CDLL(getattr(_ssl, "__file__", None))
        number = found.OpenSSL_version_num
        number.restype = ctypes.c_ulong
        if number() != ssl.OPENSSL_VERSION_NUMBER:
            raise UnsupportedError("there is another OpenSSL than that of `ssl`")
        pointer, integer = ctypes.c_void_p, ctypes.c_int
        for name, result, arguments in (
            ("TLS_server_method", pointer, ()),
            ("SSL_CTX_ctrl", ctypes.c_long, (pointer, integer, ctypes.c_long, pointer)),
            ("SSL_CTX_set_tlsext_ticket_key_evp_cb", integer, (pointer, pointer)),
            ("SSL_CTX_set_ciphersuites", integer, (pointer, ctypes.c_char_p)),
            ("d2i_X509", pointer, (pointer, pointer, ctypes.c_long)),
            ("X509_free", None, (pointer,)),
            ("SSL_CTX_add_client_CA", integer, (pointer, pointer)),
            ("SSL_CTX_get_cert_store", pointer, (pointer,)),
            ("SSL_CTX_set1_cert_store", None, (pointer, pointer)),
            ("EVP_CIPHER_fetch", pointer, (pointer, ctypes.c_char_p, ctypes.c_char_p)),
            ("EVP_EncryptInit_ex", integer, (pointer,) * 3 + (ctypes.c_char_p, pointer)),
            ("EVP_DecryptInit_ex", integer, (pointer,) * 3 + (ctypes.c_char_p, pointer)),
            ("EVP_MAC_CTX_set_params", integer, (pointer, pointer)),
        ):
            function = getattr(found, name)
            function.restype = result
            function.argtypes = arguments
    except (OSError, AttributeError) as error:
        raise UnsupportedError(f"OpenSSL's functions are out of reach: {error}") from error
    return found


def _read(address: int, size: int) -> bytes:
    """Memory that may not exist: the kernel copies it, and fails where we would crash."""
    reader, writer = os.pipe()
    try:
        os.write(writer, (ctypes.c_char * size).from_address(address))
        return os.read(reader, size)
    except OSError:
        return b""
    finally:
        os.close(reader)
        os.close(writer)


def _place(context: ssl.SSLContext) -> int:
    """Where the C object behind a context begins, after its header."""
    return id(context) + object.__basicsize__


def _pointer(library: ctypes.CDLL, context: ssl.SSLContext) -> int:
    """The SSL_CTX of a context; raises UnsupportedError."""
    pointer = ctypes.c_void_p.from_address(_place(context)).value
    # struct ssl_ctx_st begins with its library context and its method.
    fields = _read(pointer, 2 * _POINTER) if pointer else b""
    if int.from_bytes(fields[_POINTER:], sys.byteorder) != library.TLS_server_method():
        raise UnsupportedError("no SSL_CTX where `ssl` was expected to have it")
    assert pointer is not None
    return pointer


def known_groups(names: Iterable[str]) -> list[str]:
    """The groups that this OpenSSL has."""
    has_mlkem = ssl.OPENSSL_VERSION_INFO >= _FIRST_WITH_MLKEM
    return [name for name in names if has_mlkem or name not in HYBRIDS]


def set_groups(context: ssl.SSLContext, names: Iterable[str]) -> None:
    """Let a context exchange keys in these groups alone, in order of preference; raises
    UnsupportedError. Those that OpenSSL does not have are left out."""
    known = known_groups(names)
    if not known:
        raise UnsupportedError(f"{ssl.OPENSSL_VERSION} has none of {', '.join(names)}")
    library = _library()
    listed = ":".join(_OPENSSL_NAMES.get(name, name) for name in known).encode()
    if library.SSL_CTX_ctrl(_pointer(library, context), _SET_GROUPS, 0, listed) != 1:
        raise UnsupportedError(f"OpenSSL does not take the groups {', '.join(known)}")


_OPENSSL_NAMES = {"x25519": "X25519", "x448": "X448"}
"""Where they differ from the registered ones."""


_SUITES = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_PRIORITIZE_CHACHA = 1 << 21
"""SSL_OP_PRIORITIZE_CHACHA."""


def prefer_fast_ciphers(context: ssl.SSLContext) -> None:
    """Choose ciphers as over QUIC (`quic.tls_server`): AES-128 for clients that name AES-256 first
    only because it has the longer key, ChaCha20 for those that have no AES in hardware and hence
    name that first; raises UnsupportedError.

    For TLS 1.2 it is the order of `set_ciphers` that counts then.
    """
    library = _library()
    if library.SSL_CTX_set_ciphersuites(_pointer(library, context), _SUITES) != 1:
        raise UnsupportedError("OpenSSL does not take an order of cipher suites")
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | _PRIORITIZE_CHACHA


def finish_asking(context: ssl.SSLContext, authorities: Sequence[bytes]) -> None:
    """Name the authorities (DER) in requests for clients' certificates, so that browsers know what
    to offer, and remember no sessions (of TLS 1.2); raises UnsupportedError."""
    library = _library()
    pointer = _pointer(library, context)
    library.SSL_CTX_ctrl(pointer, _SET_SESSION_CACHE, 0, None)
    if sum(map(len, authorities)) > CLIENT_AUTHORITIES_SIZE:
        return
    for der in authorities:
        start = ctypes.c_char_p(der)
        certificate = library.d2i_X509(None, ctypes.byref(start), len(der))
        if certificate:
            library.SSL_CTX_add_client_CA(pointer, certificate)
            library.X509_free(certificate)


def share_authorities(context: ssl.SSLContext, source: ssl.SSLContext) -> None:
    """Let a context have the authorities and revocation lists of another one, without a copy, which
    may be large; raises UnsupportedError."""
    library = _library()
    store = library.SSL_CTX_get_cert_store(_pointer(library, source))
    library.SSL_CTX_set1_cert_store(_pointer(library, context), store)


class SharedTickets:
    """Lets contexts seal and open session tickets with given keys.

    Call `refresh` about once per second. There is one per process: OpenSSL keeps its address.
    """

    def __init__(self, keys: TicketKeys) -> None:
        """Raises UnsupportedError."""
        self._keys = keys
        self._sealing = keys.sealing()
        self._installed: WeakSet[ssl.SSLContext] = WeakSet()
        self._library = library = _library()
        self._cipher = library.EVP_CIPHER_fetch(None, b"AES-256-CBC", None)
        if not self._cipher:
            raise UnsupportedError("OpenSSL has no AES-256-CBC")
        self._parameters: dict[bytes, Any] = {}
        self._callback = _TicketCallback(self._choose)
        _immortal.append(self)

    def use(self, keys: TicketKeys) -> None:
        """Replace the keys, in all contexts."""
        self._keys = keys
        self.refresh()

    def refresh(self) -> None:
        """Let all contexts seal with the key whose time it is."""
        key = self._keys.sealing()
        if key != self._sealing:
            self._sealing = key
            for context in self._installed:
                self.install(context)

    def is_older(self, hello: bytes | bytearray) -> bool:
        """Whether a client has a ticket of a key that seals no more, but still opens."""
        older = self._keys.older()
        return bool(older) and any(name in hello for name in older)

    def install(self, context: ssl.SSLContext) -> None:
        """Let a context seal with the current key, and open what it sealed; raises
        UnsupportedError."""
        key = self._sealing
        blob = key.name + key.mac + key.cipher
        pointer = _pointer(self._library, context)
        if self._library.SSL_CTX_ctrl(pointer, _SET_TICKET_KEYS, len(blob), blob) != 1:
            raise UnsupportedError("OpenSSL does not take the keys")
        self._installed.add(context)

    def install_all(self, context: ssl.SSLContext) -> None:
        """Let a context seal with the current key, and open with all; raises UnsupportedError."""
        self._library.SSL_CTX_set_tlsext_ticket_key_evp_cb(
            _pointer(self._library, context), self._callback
        )

    def _choose(self, _: int, name: int, iv: int, cipher: int, mac: int, seal: int) -> int:
        # An exception would be printed and leave the result to chance.
        try:
            return self._seal(name, iv, cipher, mac) if seal else self._open(name, iv, cipher, mac)
        except Exception:
            return _UNUSABLE

    def _seal(self, name: int, iv: int, cipher: int, mac: int) -> int:
        key = self._keys.sealing()
        ctypes.memmove(name, key.name, NAME_SIZE)
        ctypes.memmove(iv, os.urandom(_IV_SIZE), _IV_SIZE)
        return self._prepare(self._library.EVP_EncryptInit_ex, key, iv, cipher, mac)

    def _open(self, name: int, iv: int, cipher: int, mac: int) -> int:
        key = self._keys.opening(ctypes.string_at(name, NAME_SIZE))
        if key is None:
            return _UNUSABLE
        done = self._prepare(self._library.EVP_DecryptInit_ex, key, iv, cipher, mac)
        return _RENEW if done == _GOOD else done

    def _prepare(
        self, start: Callable[..., int], key: TicketKey, iv: int, cipher: int, mac: int
    ) -> int:
        if start(cipher, self._cipher, None, key.cipher, iv) != 1:
            return _UNUSABLE
        done = self._library.EVP_MAC_CTX_set_params(mac, self._mac_parameters(key))
        return _GOOD if done == 1 else _UNUSABLE

    def _mac_parameters(self, key: TicketKey) -> Any:
        known = self._parameters.get(key.name)
        if known is None:
            if len(self._parameters) > FLEET_KEYS:
                self._parameters.clear()  # most of them have expired
            known = self._parameters[key.name] = (_Parameter * 3)(
                _Parameter(b"digest", _UTF8_STRING, b"SHA256", 6, 0),
                _Parameter(b"key", _OCTET_STRING, key.mac, len(key.mac), 0),
            )
        return known


_immortal: list[SharedTickets] = []
"""Callbacks that contexts may hold: `ssl` does not tell when OpenSSL lets go of one."""


def prove(tickets: SharedTickets, make_context: Callable[[], ssl.SSLContext]) -> None:
    """Resume a session of one context at others; raises UnsupportedError."""
    first, second, third = (make_context() for _ in range(3))
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    tickets.install(first)
    tickets.install_all(second)
    tickets.install(third)
    session = None
    try:
        for context in (first, second, third):
            end = _shake_hands(client, context, session)
            if session is not None and not end.session_reused:
                raise UnsupportedError("sessions do not resume")
            session = end.session
    except ssl.SSLError as error:
        raise UnsupportedError(f"the handshake fails: {error.reason or error}") from error


def _shake_hands(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext, session: ssl.SSLSession | None
) -> ssl.SSLObject:
    """The client's end of a connection in memory that has got its ticket."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, session=session)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for step in (client.do_handshake, server.do_handshake) * 2:
        with suppress(ssl.SSLWantReadError):
            step()
    with suppress(ssl.SSLWantReadError):
        client.read(1)
    return client
