"""aioquic's TLS server with certificates chosen by name and tickets that keep the session."""

from __future__ import annotations

import os
from collections.abc import Callable

from aioquic import tls
from aioquic.buffer import Buffer

from quicedge.quic.adapter.flight import FlightTls
from quicedge.quic.hello import ClientHello, OfferedPsk
from quicedge.quic.strikes import REGISTER_LENGTH, EarlyDataGuard, EarlyDataUse, stated_age
from quicedge.quic.tickets import Session, Tickets, ticket_id
from quicedge.quic.tls import CertificateStore, ServerCertificate


class ServerTls(FlightTls):
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
        self.selected = store.default

    def issue_tickets(
        self, tickets: Tickets, clock: Callable[[], float], version: Callable[[], int | None]
    ) -> None:
        """Let clients resume; `clock` and `version` are those of the packet being handled."""
        self._tickets = tickets
        self._now = clock
        self._version = version

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

    def certificate_for(self, hello: ClientHello) -> ServerCertificate:
        self.server_name = hello.server_name
        self.selected = self.store.select(hello.server_name)
        return self.selected

    # --- resumption ---------------------------------------------------------------------------

    def session_of(self, offered: OfferedPsk) -> Session | None:
        if self._tickets is None:
            return None
        session = self._tickets.open(offered.identity, self._now())
        # RFC 8446 section 4.2.11 lets a server ignore a session; one of another name could show
        # the client a site under a certificate that does not cover it.
        if (
            session is None
            or session.version != self._version()
            or session.server_name != self.server_name
            or session.alpn != self.alpn_negotiated
        ):
            return None
        self._offered = (session, offered.identity, offered.obfuscated_age)
        return session

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
