"""Connection migration (RFC 9000 section 9): which path is active, path validation, the preferred
address, black holes. The state of each path is in `paths`.
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
    """Switches the active path; recovery, MTU discovery and ECN validation follow.

    Call `start` with the first path before anything else, `receive_packet` after the frames of each
    packet, `handle_timeout` at the deadline of `Paths`, and `look_for_black_holes` before packing.
    Invariant: recovery uses the RTT, window and pacer of the active path.
    """

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
        """Make the first path active."""
        self._paths.add(path)
        self._enter(path, None, now)

    def limit_datagrams(self, size: int) -> None:
        """Apply the peer's max_udp_payload_size."""
        self._mtu_ceiling = min(self._mtu_ceiling, size)
        for path in self._paths.known:
            if path.mtu is not None:
                path.mtu.limit(size)

    # --- input ----------------------------------------------------------------------------------

    def receive_packet(
        self, path: Path, now: float, *, changed_cid: bytes | None, probing: bool, newest: bool
    ) -> None:
        """Track the path of a packet, and follow a client that migrated.

        `changed_cid`: destination connection ID of a 1-RTT packet if it is not the current one.
        """
        paths = self._paths
        is_client = self._configuration.is_client
        if path not in paths.known:
            paths.add(path)
            # Validate a path while the client probes it, so that it is validated on migration.
            path.challenge_due = self._handshake.is_complete and not is_client
        if is_client or probing:
            return
        if changed_cid is not None:
            # RFC 9000 section 9.5: respond to a change of connection ID with a change of our own.
            self._local_ids.latest_used = changed_cid
            if path.remote_cid is None:
                self._remote_ids.change()
        if newest and path is not paths.known[0]:
            self._migrate(path, now)

    def receive_handshake_packet(self) -> None:
        """Validate the address on a client's Handshake packet.

        RFC 9000 section 8.1: it proves that the client received our Initial packets, so it
        validates the address they were sent to, whatever its own source address. If they were sent
        to several addresses, it validates none.
        """
        if not self._handshake.is_complete:
            addressed = [known for known in self._paths.known if known.bytes_sent]
            if len(addressed) == 1:
                addressed[0].is_validated = True

    def receive_response(self, data: bytes, now: float) -> None:
        """Process PATH_RESPONSE data."""
        path = self._paths.receive_response(data)
        # A client migrates to the preferred address once that is validated.
        if path is not None and self._configuration.is_client and path.remote_cid is not None:
            self._migrate(path, now)

    def on_confirmed(self, now: float) -> None:
        """Start to validate the active path unless it is validated."""
        active = self._paths.active
        if not active.is_validated:
            self._begin_validation(active, now)

    def probe_preferred_address(self) -> None:
        """Validate the server's preferred address (clients, RFC 9000 section 9.6.1)."""
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
        """Abandon a path that failed validation (section 9.3.2); False if no path is left."""
        deadline = self._paths.deadline()
        if deadline is None or now < deadline:
            return True
        failed = self._paths.active
        fallback = self._paths.give_up_active()
        if fallback is not None:
            self._enter(fallback, failed, now)
        return fallback is not None

    def look_for_black_holes(self, now: float) -> None:
        """Act on paths that drop only full-size or only ECN-marked packets."""
        recovery = self._recovery
        active = self._paths.active
        if recovery.newly_lost and active.ecn is not None:
            for epoch, first, stop, sent in recovery.take_newly_lost():
                active.ecn.on_lost(epoch, [(first, stop, sent)], now)
        if recovery.large_datagrams.is_black_hole and active.mtu is not None:
            active.mtu.on_black_hole(now)
            recovery.large_datagrams.reset()
            recovery.use_datagram_size(active.mtu.current)

    # --- the active path ------------------------------------------------------------------------

    def _migrate(self, path: Path, now: float) -> None:
        """Migrate to another known path."""
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
        """Start path validation, with three times the larger PTO as timeout (section 8.2.4)."""
        pto = max(self._recovery.probe_timeout(), 2 * self._configuration.initial_rtt)
        self._paths.begin_validation(path, now + 3 * pto)

    def _enter(self, path: Path, previous: Path | None, now: float) -> None:
        """Create what the path lacks, and switch recovery to it."""
        recovery = self._recovery
        if path.mtu is None:
            path.mtu = PathMtu(self._mtu_ceiling)
        if path.ecn is None:
            path.ecn = EcnValidation()
        if previous is not None and previous.ecn is not None:
            path.ecn.follow(previous.ecn)
        if path.rtt is None or path.controller is None or path.pacer is None:
            if previous is None or previous.host() == path.host():
                # RFC 9000 section 9.4: a change of the port alone is a NAT rebinding.
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
