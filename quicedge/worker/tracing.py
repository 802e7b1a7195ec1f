"""Selects the connections of a worker that are traced: a sample, those of listed clients or server
names, and any that an operator requests."""

from __future__ import annotations

import ipaddress
import random
import time
from collections.abc import Callable, Iterable

from quicedge.config.schema import Qlog
from quicedge.config.tracelimits import QLOG_FOLLOW_TIMEOUT, QLOG_MAX_FOLLOWERS
from quicedge.downstream.http3 import Http3Session
from quicedge.http.h3 import H3Connection
from quicedge.http.h3_qlog import trace_codec
from quicedge.quic.connection import Connection
from quicedge.quic.connection.observer import endpoint_of
from quicedge.telemetry import events
from quicedge.telemetry.follower import Follower
from quicedge.telemetry.stats import FollowAnswer
from quicedge.telemetry.trace import Sink, Trace
from quicedge.telemetry.tracefiles import TraceFiles, trace_directory


class _Following:
    """A follower and the session it follows."""

    __slots__ = ("asked_at", "follower", "session")

    def __init__(self, session: Http3Session) -> None:
        self.session = session
        self.follower = Follower()
        self.asked_at = 0.0


class Tracer:
    """Starts and stops the traces of one worker. `clock` is the clock of its connections.

    Per connection: `accepted`, then `negotiated`; `check` is called about once per second.
    """

    def __init__(self, config: Qlog, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._files: TraceFiles | None = None
        self._directory: str | None = None
        self.refused = 0
        """Connections that were not traced because of `QLOG_MAX_OPEN`."""
        self._following: dict[str, _Following] = {}
        self._live_dropped = 0
        self.configure(config)

    def configure(self, config: Qlog) -> None:
        """Apply `config` from now on; running traces continue unchanged."""
        self._config = config
        self._networks = [ipaddress.ip_network(text) for text in config.addresses]
        self._names = {name.lower() for name in config.server_names}
        # With QLOGDIR alone, as set by interop runners, every connection is traced.
        by_variable = config.directory is None and not (self._networks or self._names)
        self._rate = 1.0 if by_variable and config.rate == 0 else config.rate
        directory = trace_directory(config)
        if directory != self._directory:
            if self._files is not None:
                self._files.close()
            self._directory = directory
            self._files = None
            if directory is not None:
                self._files = TraceFiles(directory, max_total=config.max_total_size)

    @property
    def dropped(self) -> int:
        """Writes dropped because of a slow or full disk."""
        return self._files.dropped + self._files.failed if self._files is not None else 0

    @property
    def running(self) -> int:
        """Number of traces being written."""
        return self._files.open if self._files is not None else 0

    def accepted(self, session: Http3Session) -> None:
        """A new connection: trace it, possibly tentatively until its server name is known."""
        if self._files is None:
            return
        connection = session.connection
        wanted = self._rate > 0 and random.random() < self._rate
        if not wanted and self._networks:
            host = str(connection.came_from.remote[0]).partition("%")[0]
            address = ipaddress.ip_address(host)
            address = getattr(address, "ipv4_mapped", None) or address
            wanted = any(address in network for network in self._networks)
        if wanted or self._names:
            # Starts at its first datagram: no event may precede the trace.
            self._start(connection, connection.created_at, tentative=not wanted)

    def negotiated(self, session: Http3Session) -> None:
        """The client's server name is known, and HTTP/3 is about to begin."""
        connection, trace = session.connection, session.connection.trace
        if trace is None:
            return
        if trace.tentative:
            if (connection.handshake.server_name or "").lower() in self._names:
                trace.keep()
            else:
                trace.discard()
            if trace.closed:
                connection.stop_trace()
                return
        if isinstance(session.h3, H3Connection):
            trace_codec(session.h3, trace)

    def start(self, session: Http3Session) -> str | None:
        """Trace a live connection; returns the file name, or None if it cannot be traced."""
        connection = session.connection
        trace = connection.trace
        if trace is not None and trace.file is not None:
            if trace.tentative:
                trace.keep()
            return trace.file
        if not self._start(connection, self._clock(), tentative=False):
            return None
        self._trace_codec(session)
        assert connection.trace is not None
        return connection.trace.file

    def stop(self, session: Http3Session) -> str | None:
        """End a connection's trace file; returns its name, or None if there was none."""
        trace = session.connection.trace
        file = trace.file if trace is not None else None
        if trace is not None:
            trace.end_file()
            self._detach_unused(session)
        return file

    def _start(self, connection: Connection, started: float, *, tentative: bool) -> bool:
        if self._files is None:
            return False
        wall = time.time() - (self._clock() - started)
        file = self._files.new(f"{int(wall * 1000)}-{connection.id}")
        if file is None:
            self.refused += 1
            return False
        size = self._config.max_file_size
        self._attach(connection, file, self._config.level, started, tentative, size)
        return True

    def _attach(
        self,
        connection: Connection,
        sink: Sink,
        level: str,
        started: float,
        tentative: bool = False,
        max_size: int = 1 << 62,
    ) -> None:
        """Attach a sink to the connection's events, preceded by its start."""

        def log_start() -> None:
            path = connection.paths.address or connection.came_from
            trace.log(
                events.ConnectionStarted(
                    local={"connection_ids": [cid.hex() for cid in connection.local_ids.active]},
                    remote=endpoint_of(path),
                )
            )

        def opening() -> None:
            log_start()
            connection.trace_opening()

        running = connection.trace
        if running is not None and not running.closed:
            trace = running
            trace.now = max(trace.now, started)
            trace.attach(sink, level=level, tentative=tentative, max_size=max_size, opening=opening)
            return
        trace = Trace(
            sink,
            level=level,
            group_id=connection.id,
            started=started,
            wall_clock=time.time() - (self._clock() - started),
            tentative=tentative,
            max_size=max_size,
        )
        log_start()
        connection.start_trace(trace)

    def _trace_codec(self, session: Http3Session) -> None:
        """Trace HTTP/3 frames too, once the codec exists."""
        codec, trace = getattr(session, "h3", None), session.connection.trace
        if isinstance(codec, H3Connection) and trace is not None:
            trace_codec(codec, trace)

    def _detach_unused(self, session: Http3Session) -> None:
        """Stop producing events once all sinks are closed."""
        trace = session.connection.trace
        if trace is None or not trace.closed:
            return
        codec = getattr(session, "h3", None)
        if isinstance(codec, H3Connection):
            codec.observer = None
        session.connection.stop_trace()

    # --- followers ------------------------------------------------------------------------------

    def follow(
        self, sessions: Iterable[Http3Session], connection_id: str, name: str, level: str
    ) -> FollowAnswer:
        """Return the events that a follower has not read yet; the first call attaches it."""
        now = self._clock()
        following = self._following.get(name)
        if following is None:
            session = next((one for one in sessions if one.connection.id == connection_id), None)
            if session is None or len(self._following) >= QLOG_MAX_FOLLOWERS:
                return FollowAnswer(found=False)
            following = self._following[name] = _Following(session)
            self._attach(session.connection, following.follower, level, now)
            self._trace_codec(session)
        following.asked_at = now
        follower = following.follower
        answer = FollowAnswer(found=True, lines=follower.take(), ended=follower.closed)
        if follower.closed:
            self._forget(name)
        return answer

    def check(self) -> None:
        """Remove followers that have stopped polling."""
        latest = self._clock() - QLOG_FOLLOW_TIMEOUT
        for name, following in list(self._following.items()):
            if following.asked_at < latest:
                trace = following.session.connection.trace
                if trace is not None:
                    trace.detach(following.follower)
                    self._detach_unused(following.session)
                self._forget(name)

    def _forget(self, name: str) -> None:
        self._live_dropped += self._following.pop(name).follower.dropped

    @property
    def live_dropped(self) -> int:
        """Writes dropped because followers did not read in time."""
        current = (following.follower.dropped for following in self._following.values())
        return self._live_dropped + sum(current)

    def close(self) -> None:
        """Write pending events and close."""
        if self._files is not None:
            self._files.close()
