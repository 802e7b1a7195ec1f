"""The client of an exchange, as filters written in Python see it (`quicedge.filters.Client`)."""

from __future__ import annotations

from quicedge.proxy.client import ClientInfo


class FilterClient:
    """Current values of a connection, read when they are asked for."""

    __slots__ = ("_info",)

    def __init__(self, info: ClientInfo) -> None:
        self._info = info

    @property
    def address(self) -> str | None:
        address = self._info.address
        return None if address is None else address[0]

    @property
    def port(self) -> int | None:
        address = self._info.address
        return None if address is None else address[1]

    @property
    def http_version(self) -> str:
        return self._info.http_version.decode("ascii")

    @property
    def early_data(self) -> bool:
        return self._info.early_data

    @property
    def tls_version(self) -> str | None:
        return self._info.tls.version

    @property
    def tls_cipher(self) -> str | None:
        return self._info.tls.cipher

    @property
    def server_name(self) -> str | None:
        return self._info.tls.server_name

    @property
    def transport(self) -> str:
        return self._info.transport.kind.value

    @property
    def connection_id(self) -> str:
        return self._info.transport.connection_id

    @property
    def smoothed_rtt(self) -> float | None:
        return self._info.transport.smoothed_rtt

    @property
    def min_rtt(self) -> float | None:
        return self._info.transport.min_rtt

    @property
    def congestion_window(self) -> int | None:
        return self._info.transport.congestion_window

    @property
    def loss_ratio(self) -> float | None:
        return self._info.transport.loss_ratio
