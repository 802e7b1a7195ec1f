"""aioquic's TLS server with certificates chosen by name and tickets that keep the session."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime

from aioquic import tls
from aioquic.buffer import Buffer

from quicedge.quic.hello import glance
from quicedge.quic.strikes import REGISTER_LENGTH, EarlyDataGuard, EarlyDataUse, stated_age
from quicedge.quic.tickets import Session, Tickets, ticket_id
from quicedge.quic.tls import CertificateStore, ServerCertificate

_ALWAYS = datetime.max.replace(tzinfo=UTC)
_EVER = datetime.min.replace(tzinfo=UTC)


class ServerTls(tls.Context):
    """aioquic's TLS server, with the certificate chosen by the server name.

    It takes the place of the `tls.Context` that aioquic makes, by class assignment: aioquic
    offers no way to pass one in.
    """

    store: CertificateStore
    server_name: str | None
    selected: ServerCertificate
    _tickets: Tickets | None
    _now: Callable[[], float]
    _version: Callable[[], int | None]
    _guard: EarlyDataGuard | None
    _stamp: bytes
    _early_data: bool
    _offered: tuple[Session, bytes, int]
    """The session a client resumes, its ticket, and the obfuscated age it states."""

    def choose_certificates_from(self, store: CertificateStore) -> None:
        self.store = store
        self.server_name = None
        self._tickets = None
        self._guard = None
        self._stamp = b""
        self._early_data = False
        self._use(store.default)

    def issue_tickets(
        self, tickets: Tickets, clock: Callable[[], float], version: Callable[[], int | None]
    ) -> None:
        """Let clients resume; `clock` and `version` are those of the packet being handled."""
        self._tickets = tickets
        self._now = clock
        self._version = version
        self.get_session_ticket_cb = self._open_ticket

    def take_early_data(self, guard: EarlyDataGuard, stamp: bytes) -> None:
        """Offer 0-RTT in tickets and take it when `guard` admits it."""
        self._guard = guard
        self._stamp = stamp

    @property
    def early_data_accepted(self) -> bool:
        """Whether 0-RTT data is taken."""
        return self._early_data

    @early_data_accepted.setter
    def early_data_accepted(self, wanted: bool) -> None:
        # aioquic sets it once the binder is verified, whenever the client offers early data.
        if wanted and self._guard is not None:
            session, ticket, obfuscated = self._offered
            age = stated_age(obfuscated, session.age_add)
            self._early_data = self._guard.admit(session, ticket, age, self._stamp, self._now())

    @property
    def early_data_use(self) -> EarlyDataUse | None:
        """The use of a ticket that taking its early data was, until the handshake is confirmed."""
        if not self._early_data:
            return None
        session, ticket, _ = self._offered
        return EarlyDataUse(session.early_data[:REGISTER_LENGTH], ticket_id(ticket))

    def settled(self) -> ServerTls:
        """What remains of a handshake that is confirmed: what was agreed, and no secrets."""
        rest = ServerTls.__new__(ServerTls)
        rest.state = self.state
        rest.alpn_negotiated = self.alpn_negotiated
        rest.server_name = self.server_name
        rest.selected = self.selected
        rest._early_data = self._early_data
        rest._session_resumed = self._session_resumed
        rest._receive_buffer = self._receive_buffer
        return rest

    def _use(self, selected: ServerCertificate) -> None:
        self.selected = selected
        self.certificate = selected.leaf  # type: ignore[assignment]  # only DER is asked of it
        self.certificate_chain = list(selected.chain)  # type: ignore[arg-type]
        self.certificate_private_key = selected.private_key

    def _server_handle_hello(
        self, input_buf: Buffer, initial_buf: Buffer, handshake_buf: Buffer
    ) -> None:
        # The certificate decides which signature algorithms are offered, so it must be chosen
        # before aioquic's own reading of the hello. Reading all of it twice costs too much.
        self.server_name, obfuscated_age = glance(input_buf.data_slice(0, input_buf.capacity))
        self._obfuscated_age = obfuscated_age or 0
        self._use(self.store.select(self.server_name))
        super()._server_handle_hello(input_buf, initial_buf, handshake_buf)

    # --- resumption ---------------------------------------------------------------------------

    def _open_ticket(self, ticket: bytes) -> tls.SessionTicket | None:
        """The session of a ticket that a client offers, in aioquic's form."""
        assert self._tickets is not None
        session = self._tickets.open(ticket, self._now())
        # RFC 8446 section 4.2.11 lets a server ignore a session; one of another name could show
        # the client a site under a certificate that does not cover it.
        if (
            session is None
            or session.version != self._version()
            or session.server_name != self.server_name
            or session.alpn != self.alpn_negotiated
        ):
            return None
        self._offered = (session, ticket, self._obfuscated_age)
        return tls.SessionTicket(
            age_add=session.age_add,
            cipher_suite=tls.CipherSuite(session.cipher_suite),
            not_valid_after=_ALWAYS,  # `Tickets.open` has checked the age, by our clock
            not_valid_before=_EVER,
            resumption_secret=session.resumption_secret,
            server_name=session.server_name or "",
            ticket=ticket,
        )

    def _server_handle_finished(self, input_buf: Buffer, output_buf: Buffer) -> None:
        super()._server_handle_finished(input_buf, output_buf)
        if self._tickets is not None and self._psk_key_exchange_mode is not None:
            tls.push_new_session_ticket(output_buf, self._make_ticket(self._tickets))

    def _make_ticket(self, tickets: Tickets) -> tls.NewSessionTicket:
        now = self._now()
        message = tls.NewSessionTicket(
            ticket_lifetime=int(tickets.lifetime),
            ticket_age_add=int.from_bytes(os.urandom(4), "big"),
            ticket_nonce=b"\0",  # one ticket a connection
            # RFC 9001 section 4.6.1: in QUIC no other value is allowed.
            max_early_data_size=0xFFFFFFFF if self._stamp else None,
        )
        derived = self._build_session_ticket(message, [])
        message.ticket = tickets.seal(
            Session(
                version=self._version() or 0,
                cipher_suite=derived.cipher_suite,
                resumption_secret=derived.resumption_secret,
                server_name=self.server_name,
                alpn=self.alpn_negotiated,
                age_add=message.ticket_age_add,
                issued_at=now,
                early_data=self._stamp,
            ),
            now,
        )
        return message
