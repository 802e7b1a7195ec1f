"""TLS 1.2 and 1.3 on the standard library's `ssl`: one context per certificate, chosen by SNI."""

from __future__ import annotations

import _ssl
import os
import ssl
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache, cached_property
from typing import Any, Protocol

import structlog
from cryptography.hazmat.primitives.serialization import Encoding

from quicedge.client_auth.certificate import ClientCertificate
from quicedge.client_auth.rules import ClientAuth, Identity, Rule
from quicedge.client_auth.verdict import RefusedError, Verdict, verdict_of_openssl
from quicedge.config.groups import USUAL_GROUPS
from quicedge.config.schema import TlsPolicy
from quicedge.tcp.client_hello import asked_name, first_message, offered_protocols
from quicedge.tcp.openssl import (
    SharedTickets,
    UnsupportedError,
    finish_asking,
    prefer_fast_ciphers,
    prove,
    set_groups,
    share_authorities,
)
from quicedge.tcp.ticket_keys import TicketKeys

log = structlog.get_logger("quicedge.tcp")

_CIPHERS_TLS12 = "ECDHE+AESGCM+AES128:ECDHE+AESGCM:ECDHE+CHACHA20"
"""Forward secrecy and AEAD only, in order of preference; of TLS 1.3, OpenSSL's defaults are."""


_MISSING_EXTENSION = 109
"""AlertDescription (RFC 8446 section 6)."""

_OLDEST = {
    TlsPolicy.MODERN: ssl.TLSVersion.TLSv1_3,
    TlsPolicy.INTERMEDIATE: ssl.TLSVersion.TLSv1_2,
}

ACME_TLS = "acme-tls/1"
"""ALPN name of a validation, which is the only one that its client offers (RFC 8737 section 4)."""


class TlsError(ValueError):
    """A certificate that OpenSSL refuses, or settings that cannot be applied."""

    def __init__(self, message: str, key: str = "tls.certificates") -> None:
        super().__init__(message)
        self.key = key
        """Of the configuration."""


class Certificate(Protocol):
    """A certificate chain with its key and the names it covers."""

    @property
    def chain_pem(self) -> bytes: ...

    @property
    def key_pem(self) -> bytes: ...

    @property
    def pem(self) -> bytes:
        """Key and chain, and nothing else."""

    @property
    def title(self) -> str:
        """What it is called in errors."""

    def covers(self, host: str) -> bool: ...


class CertificateStore(Protocol):
    """Chooses certificates by server name."""

    @property
    def default(self) -> Certificate | None: ...

    def certificates(self) -> Iterable[Certificate]:
        """All of them, each once."""

    def select(self, server_name: str | None) -> Certificate | None: ...


class ServerSide(ssl.SSLObject):
    """The TLS state of one connection, with what its ClientHello asked for."""

    server_name: str | None = None
    certificate: Certificate | None = None
    hello: bytearray | None = None
    """What was received of its ClientHello, as long as there are validations."""
    is_refused = False
    """There is no certificate for the name that it asks for."""
    rule: Rule | None = None
    """Whether it is asked for a certificate of its own."""


class Validations:
    """The certificates that issuers are shown, by name; shared by all listeners of a worker."""

    def __init__(self) -> None:
        self._contexts: dict[str, ssl.SSLContext] = {}

    def __bool__(self) -> bool:
        return bool(self._contexts)

    def replace(self, certificates: Mapping[str, Certificate]) -> None:
        """Show these from now on; raises TlsError."""
        self._contexts = {
            name: _context(certificate, (ACME_TLS,), None)
            for name, certificate in certificates.items()
        }

    def context(self, tls: ServerSide, name: str | None) -> ssl.SSLContext | None:
        """The context for a client that wants to validate a name; None for all others."""
        context = self._contexts.get((name or "").lower())
        if context is None or tls.hello is None:
            return None
        return context if list(offered_protocols(tls.hello)) == [ACME_TLS.encode()] else None


_Select = Callable[[ssl.SSLObject, str | None, ssl.SSLContext], int | None]
"""Called for each ClientHello, with its server name; returns an alert, if any."""


class ServerContexts:
    """The TLS contexts of a certificate store; a reload builds new ones, then calls `activate`.

    Handshakes begin with `default`: OpenSSL opens tickets before it looks at SNI.
    """

    def __init__(
        self,
        store: CertificateStore,
        alpn: Sequence[str],
        keylog: str | None = None,
        previous: ServerContexts | None = None,
        *,
        tickets: SharedTickets | None = None,
        validations: Validations | None = None,
        groups: Sequence[str] | None = None,
        policy: TlsPolicy = TlsPolicy.INTERMEDIATE,
        client_auth: ClientAuth | None = None,
    ) -> None:
        """Raises TlsError. `alpn`: protocols in order of preference; `groups`: key exchange groups,
        likewise, None: OpenSSL's own. `client_auth`: the hosts that ask clients for certificates.

        Contexts of `previous` for unchanged certificates are used again. Without `tickets` each
        has ticket keys of its own, and sessions resume only as long as it is `default`.
        """
        self.alpn = tuple(alpn)
        self._store = store
        self._keylog = keylog
        self._tickets = tickets
        self._validations = Validations() if validations is None else validations
        self._groups = groups
        self._policy = policy
        self.client_auth = client_auth
        self._is_active = False
        self._authenticating: dict[tuple[int, int], ssl.SSLContext] = {}
        """By rule and certificate, each built when it is first needed."""
        self._authorities: dict[Rule, ssl.SSLContext] = {}
        """A context with the authorities of each rule."""
        if previous is not None:
            self._authorities.update(previous._authorities)
        for rule in () if client_auth is None else client_auth.rules:
            self._authenticating_context(rule, store.default)
        self._authorities = {
            rule: context
            for rule, context in self._authorities.items()
            if client_auth is not None and rule in client_auth.rules
        }
        kept = previous.by_content if previous is not None and previous.matches(self) else {}
        self.by_content: dict[tuple[bytes, bytes], ssl.SSLContext] = {}
        self._contexts = {
            id(certificate): self._context_for(certificate, kept)
            for certificate in store.certificates()
        }
        if store.default is None:
            # Handshakes begin with it, and are refused unless there is a certificate for the name.
            self.default = self._context_for(None, kept)
        else:
            self.default = self._contexts[id(store.default)]

    def _context_for(
        self, certificate: Certificate | None, kept: Mapping[tuple[bytes, bytes], ssl.SSLContext]
    ) -> ssl.SSLContext:
        content = _NO_CERTIFICATE
        if certificate is not None:
            content = certificate.chain_pem, certificate.key_pem
        context = kept.get(content) or self.by_content.get(content)
        if context is None:
            context = self._new_context(certificate)
            if self._tickets is not None:
                self._tickets.install(context)
        self.by_content[content] = context
        return context

    def _new_context(self, certificate: Certificate | None) -> ssl.SSLContext:
        return _context(certificate, self.alpn, self._keylog, self._groups, self._policy)

    def activate(self) -> None:
        """Choose certificates by this store from now on: call it before `wrap`.

        Not done when they are built: contexts may be shared with the ones in use, and these may be
        dropped.
        """
        self._is_active = True
        self._prepare(self.default, self._select)
        for context in self._authenticating.values():
            self._prepare(context, self._select_authenticating)

    def _prepare(self, context: ssl.SSLContext, select: _Select) -> None:
        context.sni_callback = select
        context.sslobject_class = ServerSide

    def matches(self, other: ServerContexts) -> bool:
        """Whether both differ in their certificates only."""
        return self._terms == other._terms

    @property
    def _terms(self) -> tuple[object, ...]:
        return self.alpn, self._keylog, self._groups, self._policy

    def wrap(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, hello: bytes | bytearray = b""
    ) -> ServerSide:
        """The TLS state of a new connection; `hello`: its first bytes, as far as they came; where
        there is `client_auth`, the whole ClientHello."""
        if self.client_auth is not None and (rule := self._rule_of(hello)) is not None:
            return self._wrap_authenticating(rule, incoming, outgoing, hello)
        older = self._tickets is not None and self._tickets.is_older(hello)
        context = self._for_older_tickets if older else self.default
        tls: ServerSide = context.wrap_bio(incoming, outgoing, server_side=True)  # type: ignore[assignment]
        return tls

    @cached_property
    def _for_older_tickets(self) -> ssl.SSLContext:
        """What stands in for `default` after a change of the ticket keys."""
        assert self._tickets is not None
        try:
            context = self._new_context(self._store.default)
        except TlsError:
            return self.default  # the key log is gone
        self._tickets.install_all(context)
        self._prepare(context, self._select)
        return context

    def _rule_of(self, hello: bytes | bytearray) -> Rule | None:
        """The rule of the host that a client asks for, unless it is an issuer that validates."""
        assert self.client_auth is not None
        if self._validations and list(offered_protocols(hello)) == [ACME_TLS.encode()]:
            return None
        return self.client_auth.rule_for(asked_name(first_message(hello)))

    def _wrap_authenticating(
        self,
        rule: Rule,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        hello: bytes | bytearray,
    ) -> ServerSide:
        # OpenSSL takes from the context of the start whether to ask for a certificate: another one
        # that is chosen during the handshake comes too late.
        certificate = self._store.select(asked_name(first_message(hello)))
        context = self._authenticating_context(rule, certificate)
        tls: ServerSide = context.wrap_bio(incoming, outgoing, server_side=True)  # type: ignore[assignment]
        tls.rule = rule
        tls.certificate = certificate
        return tls

    def _authenticating_context(
        self, rule: Rule, certificate: Certificate | None
    ) -> ssl.SSLContext:
        """A context that asks clients for certificates; raises TlsError.

        It issues no tickets, and knows no keys of those that others issue: clients prove who they
        are in each handshake.
        """
        key = id(rule), id(certificate)
        context = self._authenticating.get(key)
        if context is None:
            context = self._new_context(certificate)
            _ask_for_certificates(context, rule, self._authorities.get(rule))
            self._authorities.setdefault(rule, context)
            self._authenticating[key] = context
            if self._is_active:
                self._prepare(context, self._select_authenticating)
        return context

    def _select_authenticating(
        self, tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext
    ) -> int | None:
        assert isinstance(tls, ServerSide)
        assert self.client_auth is not None
        tls.server_name = name
        if (
            tls.certificate is not None
            and self._store.select(name) is tls.certificate
            and self.client_auth.rule_for(name) is tls.rule
        ):
            return None
        return _refuse_name(tls, name)

    def _select(self, tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        assert isinstance(tls, ServerSide)
        tls.server_name = name
        if self._validations:
            validation = self._validations.context(tls, name)
            if validation is not None:
                tls.context = validation
                return None
        if self.client_auth is not None and self.client_auth.rule_for(name) is not None:
            # We have read another name than OpenSSL: nobody would be asked for a certificate.
            return _refuse_name(tls, name)
        certificate = self._store.select(name)
        if certificate is None:
            return _refuse_name(tls, name)
        tls.certificate = certificate
        context = self._contexts[id(certificate)]
        if context is not self.default:
            tls.context = context
        return None


def pass_over_unreadable_names() -> None:
    """Have no traceback written for a server name that is not ASCII: any client could fill stderr
    with them. `ssl` refuses such a handshake, and cannot be asked not to write one."""
    before = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        name, error = unraisable.object, unraisable.exc_value
        if not (isinstance(error, UnicodeDecodeError) and isinstance(name, bytes)):
            before(unraisable)

    sys.unraisablehook = hook


def _refuse_name(tls: ServerSide, name: str | None) -> int:
    """The alert for a client that asks for a host which is not served."""
    tls.is_refused = True
    # RFC 8446 section 9.2: servers that require the extension SHOULD say so.
    return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME if name is not None else _MISSING_EXTENSION


_proven = False
"""Whether sessions have resumed across contexts, in this process or in what it was forked from."""


def shared_tickets(keys: TicketKeys, certificate: Certificate) -> SharedTickets | None:
    """Session tickets under `keys`; None, with a line in the log, where that is not possible.

    `certificate`: any one, to try it out. What has worked once is not tried again.
    """
    global _proven
    try:
        tickets = SharedTickets(keys)
        if not _proven:
            prove(tickets, lambda: _context(certificate, (), None))
            _proven = True
    except TlsError:
        return None  # those who want to serve the certificate will report it
    except UnsupportedError as error:
        log.warning(
            "TLS sessions on TCP resume only at the worker they began at", reason=str(error)
        )
        return None
    return tickets


_NO_CERTIFICATE = (b"", b"")


def _context(
    certificate: Certificate | None,
    alpn: Sequence[str],
    keylog: str | None,
    groups: Sequence[str] | None = None,
    policy: TlsPolicy = TlsPolicy.INTERMEDIATE,
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _OLDEST[policy]
    context.set_ciphers(_CIPHERS_TLS12)
    # Clients know best whether they have AES in hardware.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    with suppress(UnsupportedError):  # then their order counts throughout
        prefer_fast_ciphers(context)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 1
    context.set_alpn_protocols(list(alpn))
    if groups is not None:
        try:
            set_groups(context, groups)
        except UnsupportedError as error:
            if list(groups) != list(USUAL_GROUPS):
                raise TlsError(f"cannot be set on TCP: {error}", "tls.groups") from error
            _warn_of_groups(str(error))
    try:
        if certificate is not None:
            _load(context, certificate)
    except ssl.SSLError as error:
        assert certificate is not None
        raise TlsError(_refused(certificate, error)) from error
    if keylog is not None:
        try:
            context.keylog_filename = keylog
        except OSError as error:
            raise TlsError(f"{keylog}: {error.strerror}") from error
    return context


@cache
def _warn_of_groups(reason: str) -> None:
    """The default groups are not worth refusing to serve."""
    log.warning("key exchange groups on TCP are OpenSSL's own", reason=reason)


def _ask_for_certificates(
    context: ssl.SSLContext, rule: Rule, source: ssl.SSLContext | None
) -> None:
    """Have clients' certificates verified as `client_auth.verifier` does; raises TlsError.

    `source`: a context that has the authorities of the rule; None: there is none yet.
    """
    context.verify_mode = ssl.CERT_REQUIRED if rule.is_required else ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    if rule.pem.crl:
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_CHAIN
    context.set_ciphers(f"{_CIPHERS_TLS12}:@SECLEVEL=2")
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    with suppress(UnsupportedError):  # it would be better, not right only then
        finish_asking(
            context, [item.public_bytes(Encoding.DER) for item in rule.verifier.authorities]
        )
    try:
        if source is not None:
            share_authorities(context, source)
            return
    except UnsupportedError:
        pass  # then it gets a copy
    _load_authorities(context, rule)


def _load_authorities(context: ssl.SSLContext, rule: Rule) -> None:
    fd = os.memfd_create("authorities", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=True) as file:
        file.write(rule.pem.ca + b"\n" + rule.pem.crl)
        file.flush()
        try:
            context.load_verify_locations(f"/proc/self/fd/{fd}")
        except ssl.SSLError as error:
            message = f"OpenSSL refuses the authorities: {error.reason or error}"
            raise TlsError(message, "tls.client_auth") from error


def identity_of(tls: ServerSide) -> Identity | None:
    """Who a client has proved to be in a complete handshake."""
    if tls.rule is None:
        return None
    chain = _verified_chain(tls)
    certificate = ClientCertificate(chain) if chain else None
    return Identity(tls.rule, tls.server_name, certificate)


def _verified_chain(tls: ssl.SSLObject) -> list[bytes]:
    """In DER, the client's own certificate first."""
    leaf = tls.getpeercert(binary_form=True)
    if leaf is None:
        return []
    get: Any = getattr(tls, "get_verified_chain", None)
    if get is not None:
        return list(get())
    # What Python 3.13 has made public.
    inner: Any = tls._sslobj  # type: ignore[attr-defined]
    return [item.public_bytes(_ssl.ENCODING_DER) for item in inner.get_verified_chain()]


def refusal_of(error: ssl.SSLError) -> RefusedError | None:
    """Why a client's certificate is not accepted, if that is what has ended a handshake."""
    if isinstance(error, ssl.SSLCertVerificationError):
        verdict = verdict_of_openssl(error.verify_code)
        return RefusedError(verdict, error.verify_message)
    if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return RefusedError(Verdict.REQUIRED, "none was sent")
    return None


def check_certificate(certificate: Certificate) -> None:
    """Raise TlsError if OpenSSL refuses a certificate."""
    try:
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate)
    except ssl.SSLError as error:
        raise TlsError(_refused(certificate, error)) from error


def _refused(certificate: Certificate, error: ssl.SSLError) -> str:
    return f"OpenSSL refuses the certificate of {certificate.title}: {error.reason or error}"


def _load(context: ssl.SSLContext, certificate: Certificate) -> None:
    """Load chain and key, which `ssl` takes from files only: one in memory has the name of its
    descriptor."""
    fd = os.memfd_create("certificate", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=True) as file:
        file.write(certificate.pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{fd}")
