"""`Client-Cert` and `Client-Cert-Chain`: tell origins who the client is (RFC 9440)."""

from __future__ import annotations

from quicedge.http.message import Request
from quicedge.proxy.exchange import Exchange
from quicedge.proxy.filters.base import Filter

CLIENT_CERT, CLIENT_CERT_CHAIN = b"client-cert", b"client-cert-chain"


class ClientCertificateFields(Filter):
    """Origins can trust these fields: those of clients are dropped, with or without this filter."""

    def __init__(self, *, with_chain: bool) -> None:
        self._with_chain = with_chain

    def on_request(self, request: Request, exchange: Exchange) -> Request:
        identity = exchange.client.identity
        if identity is None or identity.certificate is None:
            return request
        certificate = identity.certificate
        fields = [*request.fields, (CLIENT_CERT, certificate.field)]
        # RFC 9440 section 2.3: there is no field for a chain without certificates.
        if self._with_chain and certificate.chain_field:
            fields.append((CLIENT_CERT_CHAIN, certificate.chain_field))
        return request.with_fields(fields)
