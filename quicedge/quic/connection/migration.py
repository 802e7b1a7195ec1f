"""Which network path is used: validation, migration, the preferred address, black holes.

RFC 9000 sections 8 and 9. The paths themselves are in `paths`.
"""

from __future__ import annotations

from aioquic.quic.configuration import QuicConfiguration

from quicedge.quic.congestion import make_controller
from quicedge.quic.connection.connection_ids import LocalConnectionIds, RemoteConnectionIds
from quicedge.quic.connection.handshake import Handshake
from quicedge.quic.connection.paths import Path, Paths
from quicedge.quic.connection.preferred import usable_address
from quicedge.quic.connection.recovery import Recovery
from quicedge.quic.connection.stats import ConnectionCounters
from quicedge.quic.ecn import EcnValidation
from quicedge.quic.pacer import Pacer
from quicedge.quic.pmtud import PathMtu
from quicedge.quic.rtt import RttEstimator


class Migration:
    """Moves a connection from path to path; recovery, MTU and ECN follow."""

    __slots__ = (
        "_configuration", "_counters", "_handshake", "_local_ids", "_mtu_ceiling", "_paths",
        "_recovery", "_remote_ids",
    )  # fmt: skip

    def __init__(
        self,
        *,
        configuration: QuicConfiguration,
        mtu_ceiling: int,
        paths: Paths,
        local_ids: LocalConnectionIds,
        remote_ids: RemoteConnectionIds,
        handshake: Handshake,
        recovery: Recovery,
        counters: ConnectionCounters,
    ) -> None:
        self._configuration = configuration
        self._mtu_ceiling = mtu_ceiling
        self._paths = paths
        self._local_ids = local_ids
        self._remote_ids = remote_ids
        self._handshake = handshake
        self._recovery = recovery
        self._counters = counters

    def start(self, path: Path, now: float) -> None:
        """Use the first path."""
        self._paths.add(path)
        self._enter(path, None, now)

    def limit_datagrams(self, size: int) -> None:
        """The peer takes UDP payloads up to `size`."""
        self._mtu_ceiling = min(self._mtu_ceiling, size)
        for path in self._paths.known:
            if path.mtu is not None:
                path.mtu.limit(size)

    # --- input ----------------------------------------------------------------------------------

    def receive_packet(
        self, path: Path, now: float, *, changed_cid: bytes | None, probing: bool, newest: bool
    ) -> None:
        """A packet came on a path: remember it, and move when the client has moved.

        `changed_cid`: the ID of ours that a 1-RTT packet was sent to, if it is not the one in use.
        """
        paths = self._paths
        is_client = self._configuration.is_client
        if path not in paths.known:
            paths.add(path)
            # Challenged at once, a path that the client only probes is proven when it moves there.
            path.challenge_due = self._handshake.is_complete and not is_client
        if is_client or probing:
            return
        if changed_cid is not None:
            # RFC 9000 section 9.5: an endpoint that changes its ID wants us to change ours.
            self._local_ids.latest_used = changed_cid
            if path.remote_cid is None:
                self._remote_ids.change()
        if path is not paths.active and newest:
            self._move(path, now)

    def receive_handshake_packet(self) -> None:
        """A Handshake packet of the client came.

        RFC 9000 section 8.1: it shows that the client has our Initial packets, so it validates the
        address that they were sent to, whatever address it comes from. Where our packets went to
        several addresses, it shows of none that the client is there.
        """
        if not self._handshake.is_complete:
            addressed = [known for known in self._paths.known if known.bytes_sent]
            if len(addressed) == 1:
                addressed[0].is_validated = True

    def receive_response(self, data: bytes, now: float) -> None:
        """PATH_RESPONSE."""
        path = self._paths.receive_response(data)
        # A client moves to the preferred address once that has answered.
        if path is not None and self._configuration.is_client and path.remote_cid is not None:
            self._move(path, now)

    def on_confirmed(self, now: float) -> None:
        """The handshake is confirmed: validate the path in use if nothing did."""
        active = self._paths.active
        if not active.is_validated:
            self._begin_validation(active, now)

    def probe_preferred_address(self) -> None:
        """RFC 9000 section 9.6.1: a client validates the server's preferred address."""
        remote = self._handshake.remote
        if remote is None or remote.preferred_address is None:
            return
        address = usable_address(remote.preferred_address, self._paths.active.address)
        spare = next((cid for cid in self._remote_ids.spare if cid.sequence == 1), None)
        if address is None or spare is None:
            return
        path = Path(address)
        self._remote_ids.spare.remove(spare)
        path.remote_cid = spare
        path.challenge_due = True
        self._paths.add(path)

    def handle_timeout(self, now: float) -> bool:
        """Give up a path that was not validated in time (section 9.3.2); False if none is left."""
        deadline = self._paths.deadline()
        if deadline is None or now < deadline:
            return True
        failed = self._paths.active
        fallback = self._paths.give_up_active()
        if fallback is not None:
            self._enter(fallback, failed, now)
        return fallback is not None

    def look_for_black_holes(self, now: float) -> None:
        """A path may swallow full-size or marked packets, and carry the others."""
        recovery = self._recovery
        active = self._paths.active
        if recovery.newly_lost and active.ecn is not None:
            for epoch, first, stop, sent in recovery.take_newly_lost():
                active.ecn.on_lost(epoch, [(first, stop, sent)], now)
        if recovery.large_datagrams.is_black_hole and active.mtu is not None:
            active.mtu.on_black_hole(now)
            recovery.large_datagrams.reset()
            recovery.use_datagram_size(active.mtu.current)

    # --- the path in use ------------------------------------------------------------------------

    def _move(self, path: Path, now: float) -> None:
        """Send on another path from now on (RFC 9000 section 9)."""
        paths = self._paths
        previous = paths.active
        paths.promote(path)
        self._counters.migrations += 1
        if path.remote_cid is not None:
            self._remote_ids.use(path.remote_cid)
            path.remote_cid = None
        if not path.is_validated and self._handshake.is_complete:
            self._begin_validation(path, now)
        self._enter(path, previous, now)

    def _begin_validation(self, path: Path, now: float) -> None:
        """RFC 9000 section 8.2.4: give it three times the larger PTO."""
        pto = max(self._recovery.probe_timeout(), 2 * self._configuration.initial_rtt)
        self._paths.begin_validation(path, now + 3 * pto)

    def _enter(self, path: Path, previous: Path | None, now: float) -> None:
        """Give a path that will be used its own state; recovery follows it."""
        recovery = self._recovery
        if path.mtu is None:
            path.mtu = PathMtu(self._mtu_ceiling)
        if path.ecn is None:
            path.ecn = EcnValidation()
        if previous is not None and previous.ecn is not None:
            path.ecn.follow(previous.ecn)
        if path.rtt is None or path.controller is None or path.pacer is None:
            if previous is None or previous.host() == path.host():
                # RFC 9000 section 9.4: a change of the port alone is a NAT's doing.
                path.rtt, path.controller = recovery.rtt, recovery.controller
                path.pacer = recovery.pacer
            else:
                configuration = self._configuration
                size = path.mtu.current
                path.rtt = RttEstimator(configuration.initial_rtt)
                path.controller = make_controller(configuration.congestion_control_algorithm, size)
                path.pacer = Pacer(size)
        if path.controller is not recovery.controller:
            recovery.use_path(path.rtt, path.controller, path.pacer, now)
        recovery.use_datagram_size(path.mtu.current)
