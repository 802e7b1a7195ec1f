"""What a filter knows of the exchange that a message belongs to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from quicedge.filters.body import BodyTransform
from quicedge.filters.messages import Request


class Client(Protocol):
    """The client and its connection: current values. None: unknown."""

    @property
    def address(self) -> str | None:
        """The IP address; None until it is validated (in 0-RTT data)."""

    @property
    def port(self) -> int | None: ...

    @property
    def http_version(self) -> str:
        """`1.0`, `1.1`, `2` or `3`."""

    @property
    def early_data(self) -> bool:
        """Its handshake is not complete: the request may be a replay (RFC 8470)."""

    @property
    def tls_version(self) -> str | None:
        """`TLSv1.3`."""

    @property
    def tls_cipher(self) -> str | None: ...

    @property
    def server_name(self) -> str | None:
        """The name (SNI) that it asked for in the handshake."""

    @property
    def transport(self) -> str:
        """`quic` or `tcp`."""

    @property
    def connection_id(self) -> str:
        """As in logs and in the admin API."""

    @property
    def smoothed_rtt(self) -> float | None:
        """Seconds."""

    @property
    def min_rtt(self) -> float | None:
        """Seconds."""

    @property
    def congestion_window(self) -> int | None:
        """Bytes."""

    @property
    def loss_ratio(self) -> float | None:
        """The share of sent packets that were lost."""


class Context(Protocol):
    """One exchange, as one filter sees it."""

    request: Request
    """The request as the client has sent it; changing it changes nothing."""
    client: Client
    route: str
    """The route, as metrics name it."""
    state: dict[str, Any]
    """For what later phases of this filter need to know of this exchange."""

    @property
    def log(self) -> Any:
        """A structlog logger, bound to the filter and the connection."""

    @property
    def status(self) -> int:
        """The status of the response; 0 as long as there is none."""

    @property
    def outcome(self) -> str | None:
        """How the exchange ended, as in the access log; None while it is running."""

    @property
    def bytes_received(self) -> int:
        """Request content so far."""

    @property
    def bytes_sent(self) -> int:
        """Response content so far."""

    @property
    def seconds(self) -> float:
        """Since the request; until the end of the exchange, once it has ended."""

    transform_request: Callable[[BodyTransform], None]
    """Let the content of the request pass a transform; in `on_request` only."""
    transform_response: Callable[[BodyTransform], None]
    """Let the content of the response pass a transform; in `on_request` or `on_response`."""
