"""aioquic's TLS server with certificates chosen by name."""

from __future__ import annotations

from aioquic import tls
from aioquic.buffer import Buffer

from quicedge.quic.tls import CertificateStore, ServerCertificate


class ServerTls(tls.Context):
    """aioquic's TLS server, with the certificate chosen by the server name.

    It takes the place of the `tls.Context` that aioquic makes, by class assignment: aioquic
    offers no way to pass one in.
    """

    store: CertificateStore
    server_name: str | None
    selected: ServerCertificate

    def choose_certificates_from(self, store: CertificateStore) -> None:
        self.store = store
        self.server_name = None
        self._use(store.default)

    def _use(self, selected: ServerCertificate) -> None:
        self.selected = selected
        self.certificate = selected.leaf  # type: ignore[assignment]  # only DER is asked of it
        self.certificate_chain = list(selected.chain)  # type: ignore[arg-type]
        self.certificate_private_key = selected.private_key

    def _server_handle_hello(
        self, input_buf: Buffer, initial_buf: Buffer, handshake_buf: Buffer
    ) -> None:
        # The certificate decides which signature algorithms are offered, so it must be chosen
        # before aioquic's own reading of the hello.
        self.server_name = tls.pull_client_hello(input_buf).server_name
        input_buf.seek(0)
        self._use(self.store.select(self.server_name))
        super()._server_handle_hello(input_buf, initial_buf, handshake_buf)
