"""Facts and control of one accepted, TLS-complete TCP connection."""

from __future__ import annotations

from collections.abc import Callable
from random import getrandbits

from quicedge.config.host_port import HostPort
from quicedge.config.limits import TCP_INFO_AGE
from quicedge.shares import Client
from quicedge.tcp.info import TcpInfo, congestion_control, read_info, read_rtt, unacknowledged
from quicedge.tcp.tls import Certificate, identity_of
from quicedge.tcp.transport import TlsTransport


class TcpConnection:
    """What a session, logs and statistics know of a connection below HTTP."""

    __slots__ = (
        "_clock", "_info", "_info_at", "_local", "_socket", "alpn", "created_at",
        "handshake_seconds", "id", "identity", "listener", "remote", "share", "syn_rtt",
        "transport",
    )  # fmt: skip

    def __init__(
        self,
        transport: TlsTransport,
        *,
        remote: HostPort,
        listener: str,
        share: Client,
        local: HostPort | None = None,
        created_at: float,
        clock: Callable[[], float],
    ) -> None:
        self.id = f"{getrandbits(64):016x}"
        self.transport = transport
        """What the session writes to."""
        self.remote = remote
        """The client."""
        self.listener = listener
        """The listening address, which may be a wildcard: `0.0.0.0:443`."""
        self._local = local
        self.share = share
        """The client that its resources are charged to."""
        self.alpn = transport.tls.selected_alpn_protocol()
        """None: the client offered none of ours."""
        self.identity = identity_of(transport.tls)
        """Who the client has proved to be; None: it was not asked."""
        self.created_at = created_at
        self.handshake_seconds = clock() - created_at
        """From accepting it to the end of the handshake."""
        self._clock = clock
        self._socket = transport.socket
        self._info: TcpInfo | None = None
        self._info_at = float("-inf")
        self.syn_rtt = read_rtt(self._socket)
        """The round trip before TLS, in seconds, as far as the kernel knows it."""

    @property
    def local(self) -> HostPort:
        """The address that the client connected to."""
        if self._local is None:
            sockaddr = self.transport.get_extra_info("sockname")
            self._local = HostPort.of(sockaddr) if sockaddr else HostPort.parse(self.listener)
        return self._local

    @property
    def server_name(self) -> str | None:
        return self.transport.tls.server_name

    @property
    def certificate(self) -> Certificate | None:
        """What the edge proved to be."""
        return self.transport.tls.certificate

    @property
    def tls_version(self) -> str | None:
        return self.transport.tls.version()

    @property
    def cipher(self) -> str | None:
        found = self.transport.tls.cipher()
        return None if found is None else found[0]

    @property
    def group(self) -> str | None:
        """The key exchange group by its registered name."""
        return self.transport.group

    @property
    def hello_retried(self) -> bool:
        return self.transport.hello_retried

    @property
    def resumed(self) -> bool:
        return bool(self.transport.tls.session_reused)

    @property
    def congestion_control(self) -> str | None:
        """The name of the kernel's congestion control."""
        return congestion_control(self._socket)

    @property
    def bytes_sent(self) -> int:
        """Bytes that were written, TLS included."""
        return self.transport.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Bytes that were read, TLS included."""
        return self.transport.bytes_received

    def info(self, *, fresh: bool = False) -> TcpInfo | None:
        """What the kernel knows, at most TCP_INFO_AGE old unless `fresh`; the last known of a
        closed connection."""
        now = self._clock()
        if fresh or now - self._info_at > TCP_INFO_AGE:
            self._info_at = now
            self._info = read_info(self._socket) or self._info
        return self._info

    def undelivered(self) -> int:
        """Bytes that are written and that the client's kernel has not acknowledged."""
        return self.transport.get_write_buffer_size() + (unacknowledged(self._socket) or 0)
